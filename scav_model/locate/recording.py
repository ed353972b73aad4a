"""Where in a long recording a short sound or picture occurs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.decode import DecodeError, recording_seconds
from scav_model.locate.steps import StepReader
from scav_model.locate.subsequence import SubsequenceDTW, nearest_parts
from scav_model.model import AudioVisualModel
from scav_model.progress import Progress

SIDES = ("audio", "video")
COSTS = ("euclidean", "sqeuclidean", "cosine")


@dataclass(frozen=True)
class Place:
    """A part of the recording.

    Attributes:
        rank: from 1, the nearest first.
        start: second of the recording at which it begins.
        end: second at which it ends.
        distance: DTW of the query's steps with the part's, a sum along the path, in the cost's unit.
    """

    rank: int
    start: float
    end: float
    distance: float


@dataclass(frozen=True)
class Located:
    """The places of a query in a recording.

    Attributes:
        query, recording: the files.
        side: of the query, audio or video.
        searched: side of the recording.
        query_steps: n, by which to divide distances of queries of several lengths.
        rate_hz: steps of the recording in a second.
        places: the nearest first; no two share a step.
        distances: (M,) of the nearest part that ends at each step of the recording.
    """

    query: Path
    recording: Path
    side: str
    searched: str
    query_steps: int
    rate_hz: float
    places: list[Place]
    distances: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        """Length of the recording, in whole steps."""
        return len(self.distances) / self.rate_hz


def locate(
    query: str | Path,
    recording: str | Path,
    *,
    k: int = 5,
    side: Literal["audio", "video"] = "audio",
    searched: Literal["audio", "video"] | None = None,
    model: AudioVisualModel | None = None,
    visual: str | None = None,
    audio: str | None = None,
    frame_rate: float | None = None,
    cost: Literal["euclidean", "sqeuclidean", "cosine"] = "euclidean",
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    window_seconds: float = 10.0,
    context_seconds: float = 1.0,
    progress: bool = True,
) -> Located:
    """Find the k parts of a long recording that are nearest to a short query, by subsequence DTW.

    The recording is decoded and encoded in windows: memory does not grow with it, but for 16 bytes a step.

    Args:
        query: Media file of seconds, such as a wav or an mp4.
        recording: Media file of any length.
        k: Places to find. The first is the nearest part of the recording; each of the others is the nearest that
            shares no step with those before it. -k is the same.
        side: Side of the query, audio or video.
        searched: Side of the recording; null takes that of the query. The other side needs a model.
        model: Encodes both files by the front ends that it was trained on; None compares the features of front ends.
        visual: Front end of pictures, as scav extract takes it; null takes the model's, or patches.
        audio: Front end of sounds, in the same way; null takes the model's, or log_mel.
        frame_rate: Frames of pictures in a second; null takes the model's, or 5.
        cost: Distance between two steps: euclidean, sqeuclidean or cosine.
        step_penalty: Added for each step in which only the query or only the recording goes on, in the cost's unit.
            Larger values find parts of the query's own length.
        diagonal_weight: Factor of the cost of a step in which both go on.
        window_seconds: Seconds of the recording that are encoded at a time; with a model, about the length of the clips
            that it was trained on.
        context_seconds: Seconds before and after a window that are encoded with it.
        progress: Show a progress bar.

    Raises:
        DecodeError: a file that cannot be read, or has no such side; the message names it.
        EncoderError: no such front end, or a model that does not remember its own.
        ValueError: an option out of range, features that are NaN or infinite, or another side without a model.
    """
    query, recording = Path(query), Path(recording)
    _check_options(k, side, searched, cost, step_penalty, diagonal_weight, window_seconds, context_seconds)
    target = searched or side
    if model is None and target != side:
        raise ValueError(
            f"expected a checkpoint to find {side} in {target}, got none; only a model encodes both sides alike"
        )
    specs = {"video": visual, "audio": audio}
    if model is None:
        of_query = reader = StepReader.of_front_end(side, specs[side], frame_rate)
    else:
        if visual or audio or frame_rate:
            model.use_front_ends(visual, audio, frame_rate=frame_rate)
        of_query, reader = StepReader.of_model(model, side), StepReader.of_model(model, target)
    try:
        seconds = recording_seconds(recording, target)
    except DecodeError as error:
        raise DecodeError(f"the recording {recording} cannot be used: {error}") from error
    try:
        steps = _finite(of_query.whole(query), f"the query {query}")
    except DecodeError as error:
        raise DecodeError(f"the query {query} cannot be used: {error}") from error
    dtw = SubsequenceDTW(steps, cost=cost, step_penalty=step_penalty, diagonal_weight=diagonal_weight)
    windows = reader.windows(recording, window_seconds, context_seconds)
    count = None if seconds is None else max(1, math.ceil(seconds / window_seconds))
    try:
        for window in Progress(windows, total=count, desc="locate", unit="window", disable=not progress):
            dtw.add(_finite(window, f"the recording {recording}"))
    except DecodeError as error:
        raise DecodeError(f"the recording {recording} cannot be used: {error}") from error
    distances, starts = dtw.finish()
    parts = nearest_parts(distances, starts, k)
    places = [
        Place(rank, start / reader.rate_hz, (end + 1) / reader.rate_hz, float(distances[end]))
        for rank, (start, end) in enumerate(parts, start=1)
    ]
    return Located(query, recording, side, target, len(steps), reader.rate_hz, places, distances)


def _finite(steps: Tensor, name: str) -> Tensor:
    if not bool(steps.isfinite().all()):
        raise ValueError(f"the features of {name} are NaN or infinite")
    return steps


def _check_options(
    k: int,
    side: str,
    searched: str | None,
    cost: str,
    step_penalty: float,
    diagonal_weight: float,
    window_seconds: float,
    context_seconds: float,
) -> None:
    if k < 1:
        raise ValueError(f"expected k to be at least 1, got {k}")
    for name, value, known in (("side", side, SIDES), ("searched", searched or side, SIDES), ("cost", cost, COSTS)):
        if value not in known:
            raise ValueError(f"expected {name} to be {', '.join(known[:-1])} or {known[-1]}, got {value!r}")
    for name, number, positive in (
        ("step_penalty", step_penalty, False),
        ("diagonal_weight", diagonal_weight, True),
        ("window_seconds", window_seconds, True),
        ("context_seconds", context_seconds, False),
    ):
        if not (number > 0 if positive else number >= 0) or not math.isfinite(number):
            raise ValueError(f"expected {name} to be {'above 0' if positive else '0 or more'}, got {number}")
