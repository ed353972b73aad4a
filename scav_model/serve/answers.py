"""Answers of the API. Each class is a JSON object; its docstring describes it in the OpenAPI document."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.index.align import Alignment
from scav_model.index.matrix import matching_times, per_second
from scav_model.index.search import Hit
from scav_model.serve.engine import Asked, Compared, Engine, MetricName
from scav_model.serve.jobs import Spectrogram, as_bytes
from scav_model.serve.uploads import Upload
from scav_model.storage.text import printable

Side = Literal["video", "audio"]
# Rows and columns of a drawn matrix.
MAX_DRAWN = 400


@dataclass(frozen=True)
class UploadsAnswer:
    """Limits of uploads; `problem` says why no file can be uploaded."""

    problem: str | None
    megabytes: int
    seconds: float


@dataclass(frozen=True)
class IndexAnswer:
    """The contents of the index, and the ways to search it."""

    name: str
    clips: int
    searched: list[Side]
    metric: str
    metrics: list[MetricName]
    uploads: UploadsAnswer


@dataclass(frozen=True)
class ClipAnswer:
    """A clip of the index. `kind` tells what its player plays; `start` is its first second in that file."""

    id: str
    label: str | None
    seconds: float | None
    kind: Side | None
    start: float


@dataclass(frozen=True)
class ClipsAnswer:
    """Clips of the index; `total` counts all whose ids or labels contain the text."""

    total: int
    clips: list[ClipAnswer]


@dataclass(frozen=True)
class UploadAnswer:
    """An uploaded query. `upload` is its key, `missing` says why it lacks a side."""

    upload: str
    name: str
    seconds: float
    sides: list[Side]
    missing: dict[str, str]
    film: bool
    sound: bool


@dataclass(frozen=True)
class HitAnswer:
    """A clip that was found; `is_query` marks the clip that is the query. A distance that is not finite is null."""

    rank: int
    distance: float | None
    is_query: bool
    clip: ClipAnswer


@dataclass(frozen=True)
class SearchAnswer:
    """The nearest clips of a query, the nearest first."""

    side: Side
    searched: Side
    metric: str
    notes: list[str]
    hits: list[HitAnswer]


@dataclass(frozen=True)
class MatrixAnswer:
    """A matrix as bytes, row by row, in base64: 0 stands for `low`, 255 for `high`."""

    rows: int
    columns: int
    low: float
    high: float
    values: str


@dataclass(frozen=True)
class AxisAnswer:
    """Time of a query or a clip, from 0 to `end`; `matching` is the other side's time for each of its steps."""

    side: Side
    steps: int
    end: float
    matching: list[float]


@dataclass(frozen=True)
class MatchesAnswer:
    """Matches: a path of [query, clip] times, or a plan over rows and columns."""

    path: list[tuple[float, float]] | None
    plan: MatrixAnswer | None
    contributions: list[float]
    rest: float


@dataclass(frozen=True)
class AlignmentAnswer:
    """The alignment of a query (rows) and a clip (columns). `unit` of times is "s", or "steps" without known rates."""

    metric: str
    unit: Literal["s", "steps"]
    distance: float | None
    query: AxisAnswer
    clip: AxisAnswer
    costs: MatrixAnswer
    matches: MatchesAnswer | None


@dataclass(frozen=True)
class SpectrogramAnswer:
    """Loudness of sound by band (rows, the lowest first) and time (columns)."""

    seconds: float
    matrix: MatrixAnswer


def index_answer(engine: Engine) -> IndexAnswer:
    limits = engine.uploads.limits
    uploads = UploadsAnswer(engine.uploads.problem or None, limits.megabytes, limits.seconds)
    sides: list[Any] = engine.index.header.sides
    name = printable(engine.index.folder.resolve().name)
    return IndexAnswer(name, len(engine.index), sides, engine.metric, engine.metrics(), uploads)


def clip_answer(engine: Engine, number: int) -> ClipAnswer:
    media = engine.index.media(number)
    label = media.get("label")
    return ClipAnswer(
        engine.index.id(number),
        None if label is None else str(label),
        finite(media.get("seconds")),
        _side(engine.files.kind(number)),
        engine.files.offset(number),
    )


def _side(kind: str | None) -> Side | None:
    return None if kind is None else "audio" if kind == "audio" else "video"


def upload_answer(upload: Upload) -> UploadAnswer:
    sides: list[Any] = list(upload.sides)
    return UploadAnswer(
        upload.key,
        upload.name,
        upload.seconds,
        sides,
        {side: printable(reason) for side, reason in upload.missing.items()},
        upload.film is not None,
        upload.sound is not None,
    )


def hit_answer(engine: Engine, asked: Asked, hit: Hit) -> HitAnswer:
    return HitAnswer(hit.rank, finite(hit.distance), hit.id == asked.clip, clip_answer(engine, hit.number))


def alignment_answer(compared: Compared, rates: dict[str, float | None]) -> AlignmentAnswer:
    side: Side = "video" if compared.side == "video" else "audio"
    target: Side = "audio" if compared.side == "video" else "video"
    known = None not in rates.values()
    rows, columns = compared.costs.shape
    ends = rows / (rates[side] or 1 if known else 1), columns / (rates[target] or 1 if known else 1)
    found = compared.alignment
    matching = [uniform(rows, ends[1]), uniform(columns, ends[0])]
    if found is not None:
        matching = [
            matching_times(found.query, found.clip, found.weight, rows, ends[0]),
            matching_times(found.clip, found.query, found.weight, columns, ends[1]),
        ]
    return AlignmentAnswer(
        compared.metric,
        "s" if known else "steps",
        None if found is None else finite(found.distance),
        AxisAnswer(side, rows, ends[0], matching[0]),
        AxisAnswer(target, columns, ends[1], matching[1]),
        matrix_answer(smaller(compared.costs)),
        None if found is None else matches_answer(found, (rows, columns), ends),
    )


def matches_answer(aligned: Alignment, shape: tuple[int, int], ends: tuple[float, float]) -> MatchesAnswer:
    """Return a path if matches never go back on either side, and a plan if they do."""
    contributions = per_second(aligned, ends[1])
    path = sorted(zip(aligned.query, aligned.clip, strict=True))
    if all(before <= after for (_, before), (_, after) in pairwise(path)):
        return MatchesAnswer(path, None, contributions, aligned.rest)
    plan = torch.zeros(shape)
    places = [
        torch.tensor(times).div(end / steps).long().clamp(0, steps - 1)
        for times, end, steps in zip((aligned.query, aligned.clip), ends, shape, strict=True)
    ]
    plan[places[0], places[1]] = torch.tensor(aligned.weight)
    return MatchesAnswer(None, matrix_answer(smaller(plan)), contributions, aligned.rest)


def uniform(steps: int, end: float) -> list[float]:
    return ((np.arange(steps) + 0.5) * end / steps).tolist()


def smaller(matrix: Tensor) -> NDArray[np.float32]:
    """Return a matrix of at most `MAX_DRAWN` rows and columns, of the means of what they cover."""
    rows, columns = (min(size, MAX_DRAWN) for size in matrix.shape)
    kept: NDArray[np.float32] = torch.nn.functional.adaptive_avg_pool2d(matrix[None].float(), (rows, columns))[
        0
    ].numpy()
    return kept


def matrix_answer(values: NDArray[np.float32]) -> MatrixAnswer:
    values = np.nan_to_num(values)
    encoded = base64.b64encode(as_bytes(values).tobytes()).decode()
    return MatrixAnswer(values.shape[0], values.shape[1], float(values.min()), float(values.max()), encoded)


def spectrogram_answer(sound: Spectrogram) -> SpectrogramAnswer:
    encoded = base64.b64encode(sound.values).decode()
    return SpectrogramAnswer(sound.seconds, MatrixAnswer(sound.bands, sound.spectra, 0.0, 255.0, encoded))


def finite(value: Any) -> float | None:
    """Return a finite number as a float, and None for anything else: JSON has no NaN."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
