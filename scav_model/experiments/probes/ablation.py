"""Recall by distance × sequence length × resolution × interpolation direction, of one model and without training.

Every cell but the one of whole clips at full resolution searches at other settings than the model was trained with:
it says what becomes of this model there, not what a model trained there would reach. Changed *features* go through the
encoder; changed *encoded* steps come out of it, as an index that stores fewer steps would hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from scav_model.config import Option
from scav_model.distances import Distance, Sequences
from scav_model.experiments.probes.change import SIDES, WHERE, Change, Sides, Where, changed
from scav_model.experiments.probes.experiment import METRICS, Experiment, distances, search
from scav_model.experiments.probes.plots import plot_ablation
from scav_model.experiments.probes.results import Results
from scav_model.experiments.tables import Row, markdown, mean_of_directions
from scav_model.storage.files import working_in, write_text

INTERPOLATED = "interpolated_euclidean"
KEYS = ("where", "length", "factor", "metric", "resample")
Direction: TypeAlias = Literal["x", "y", "shorter"]
DIRECTIONS: tuple[Direction, ...] = ("x", "y", "shorter")
Reduction: TypeAlias = Literal["average", "subsample"]
REDUCTIONS = ("average", "subsample")


def shorten(steps: Tensor, length: float) -> Tensor:
    """Return the first max(1, round(length·T)) of T steps: (T, D) to (T', D)."""
    return steps[: shortened(len(steps), length)]


def shortened(steps: int, length: float) -> int:
    return max(1, round(length * steps))


def coarsen(steps: Tensor, factor: int, reduction: Reduction) -> Tensor:
    """Make one step of each `factor` steps in a row, and one of the rest: (T, D) to (⌈T/factor⌉, D).

    `average` takes their mean, `subsample` the first of them.
    """
    if factor == 1 or reduction == "subsample":
        return steps[::factor]
    return torch.stack([group.mean(0) for group in steps.split(factor)])


def coarsened(steps: int, factor: int) -> int:
    return -(-steps // factor)


def shortening(length: float) -> Change:
    return Change(lambda steps, clip_id: shorten(steps, length), partial(shortened, length=length))


def coarsening(factor: int, reduction: Reduction) -> Change:
    return Change(lambda steps, clip_id: coarsen(steps, factor, reduction), partial(coarsened, factor=factor))


def check(
    lengths: Sequence[float],
    factors: Sequence[int],
    resample: Sequence[str],
    where: Sequence[str],
    reduction: str,
    coarsened_sides: str,
) -> None:
    outside = [length for length in lengths if not 0 < length <= 1]
    if outside or not lengths:
        raise ValueError(f"lengths must be shares above 0 and up to 1, got {', '.join(map(str, outside)) or 'none'}")
    small = [factor for factor in factors if factor < 1]
    if small or not factors:
        raise ValueError(f"factors must be whole and at least 1, got {', '.join(map(str, small)) or 'none'}")
    for name, values, known in (
        ("resample", resample, DIRECTIONS),
        ("where", where, WHERE),
        ("reduction", (reduction,), REDUCTIONS),
        ("coarsen", (coarsened_sides,), SIDES),
    ):
        unknown = [value for value in values if value not in known]
        if unknown or not values:
            raise ValueError(f"{name} must be of {', '.join(known)}, got {', '.join(unknown) or 'none'}")


def variants(
    experiment: Experiment,
    metrics: Sequence[str],
    options: Mapping[str, Mapping[str, Option]],
    resample: Sequence[Direction],
) -> dict[tuple[str, str | None], Distance]:
    """Return distances by metric and interpolation direction; only interpolated Euclidean has directions."""
    found: dict[tuple[str, str | None], Distance] = {}
    for metric, distance in distances(experiment.config, metrics, options).items():
        if metric != INTERPOLATED:
            found[metric, None] = distance
            continue
        for direction in resample:
            found[metric, direction] = Distance(metric, {**distance.options, "resample": direction}, distance.per_step)
    return found


def run_ablation(
    experiment: Experiment,
    *,
    out: Path = Path("runs/ablation"),
    metrics: Sequence[str] = METRICS,
    options: dict[str, dict[str, Option]] | None = None,
    lengths: Sequence[float] = (1.0, 0.5, 0.25),
    factors: Sequence[int] = (1, 2, 4),
    resample: Sequence[Direction] = DIRECTIONS,
    where: Sequence[Where] = ("encoded", "features"),
    reduction: Reduction = "average",
    coarsen: Sides = "both",
    resume: bool = False,
    overwrite: bool = False,
) -> list[Row]:
    """Return two rows, one per direction, for each place, length, factor and distance, in that order.

    A row's `video_steps` and `audio_steps` are the clips' mean steps as they are compared; `setting` says "as trained"
    of whole clips at full resolution and "test time" of all others. Writes results.json after every cell, and table.md
    and recall.png at the end, all in `out`.

    Args:
        out: Folder for results.json (written after every cell), table.md and recall.png.
        options: Keyword arguments by metric, {soft_dtw: {gamma: 0.1}}; without any, a metric takes the checkpoint's.
        lengths: Shares of each clip to keep, from its start, on both sides; above 0, up to 1.
        factors: How many steps in a row become one; 2 halves the steps per second.
        resample: Side that interpolated_euclidean resamples to the other: x (video), y (audio) or the shorter.
        where: Change the features that the encoder reads, the encoded steps, or each in turn.
        reduction: What steps become one by: their mean, or the first of them.
        coarsen: Modality whose resolution is lowered.
        resume: Keep the finished cells of an earlier run with the same settings; metrics, lengths may be added.
    """
    options = options or {}
    check(lengths, factors, resample, where, reduction, coarsen)
    searched = variants(experiment, metrics, options, resample)
    settings = {**experiment.settings(), "reduction": reduction, "coarsen": coarsen, "options": options}
    with working_in(out, "runs an experiment"):
        results = Results(out, settings, KEYS, resume=resume, overwrite=overwrite)
        grid = product(dict.fromkeys(where), sorted(set(lengths), reverse=True), sorted(set(factors)), searched)
        cells = [dict(zip(KEYS, (place, length, factor, *key), strict=True)) for place, length, factor, key in grid]

        @cache
        def encoded() -> tuple[Sequences, Sequences]:
            return experiment.encode(experiment.features)

        # Cells of one change follow each other.
        @lru_cache(maxsize=1)
        def shortened_and_coarsened(place: Where, length: float, factor: int) -> tuple[Sequences, Sequences]:
            if length == factor == 1:
                return encoded()
            changes: list[tuple[Change, Sides]] = [
                (shortening(length), "both"),
                (coarsening(factor, reduction), coarsen),
            ]
            return changed(experiment, encoded(), changes, place)

        def search_cell(cell: Row) -> list[Row]:
            sequences = shortened_and_coarsened(cell["where"], cell["length"], cell["factor"])
            found = search(*sequences, searched[cell["metric"], cell["resample"]])
            return [{**_about(cell, sequences), **row} for row in found]

        rows = results.fill(cells, search_cell)
        write_text(out / "table.md", table(rows, experiment, reduction, coarsen) + "\n")
        plot_ablation(rows, gallery=len(experiment.features), coarsened=coarsen, path=out / "recall.png")
        return rows


def _about(cell: Mapping[str, Any], sequences: tuple[Sequences, Sequences]) -> dict[str, Any]:
    video, audio = (side.lengths.double().mean().item() for side in sequences)
    resample = cell["resample"]
    return {
        "distance": cell["metric"] if resample is None else f"{cell['metric']} ({resample})",
        "setting": "as trained" if cell["length"] == cell["factor"] == 1 else "test time",
        "video_steps": video,
        "audio_steps": audio,
    }


def table(rows: Sequence[Row], experiment: Experiment, reduction: Reduction, coarsened_sides: Sides) -> str:
    """Return a Markdown table per place: R@1, mean of both directions, by length and factor, and distance."""
    gallery = len(experiment.features)
    recall = mean_of_directions(rows, ("where", "length", "factor", "distance"))
    columns = list(dict.fromkeys(row["distance"] for row in rows))
    parts = [
        f"R@1 in % among {gallery} clips (chance {100 / gallery:.1f}), mean of both directions. Length is the share of "
        f"each clip that is kept, factor how many steps become one ({reduction}, {coarsened_sides}); steps are means. "
        "Whole clips at factor 1 are as trained; all else is the same model at other settings, not trained for them."
    ]
    for place in dict.fromkeys(row["where"] for row in rows):
        seen = {(row["length"], row["factor"]): row for row in rows if row["where"] == place}
        lines = [
            [f"{length:g}", str(factor), f"{row['video_steps']:.1f}", f"{row['audio_steps']:.1f}"]
            + [f"{recall[place, length, factor, column]:.1f}" for column in columns]
            for (length, factor), row in seen.items()
        ]
        what = "Features, before encoding" if place == "features" else "Encoded steps"
        parts += [f"{what}:", markdown(["length", "factor", "video steps", "audio steps", *columns], lines)]
    return "\n\n".join(parts)
