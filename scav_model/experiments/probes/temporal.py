"""Recall against the strength of a disturbance in time, applied to one side of the test clips.

Where the disturbance is applied matters. In the features, before encoding, it is as if the clip had been recorded so:
the encoder sees the neighbors and the distances from the ends that it would see there, and what is measured is model
and distance together. In encoded steps, each step still knows of the neighbors that it had in the undisturbed clip, so
that only the distance's own use of order is measured. The first is the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from scav_model.config import Option
from scav_model.distances import Sequences
from scav_model.experiments.probes.change import WHERE, Change, Sides, Where, changed
from scav_model.experiments.probes.experiment import METRICS, Experiment, distances, search
from scav_model.experiments.probes.plots import plot_temporal
from scav_model.experiments.probes.results import Results
from scav_model.experiments.probes.transforms import TRANSFORMATIONS
from scav_model.experiments.tables import Row, markdown, mean_of_directions
from scav_model.storage.files import working_in, write_text

KEYS = ("transformation", "strength", "metric")


def disturbance(transformation: str, strength: float, seed: int) -> Change:
    """Return the change of every clip. Random draws depend only on seed, transformation and clip id."""
    chosen = TRANSFORMATIONS[transformation]

    def apply(steps: Tensor, clip_id: str) -> Tensor:
        random = np.random.default_rng([seed, *f"{transformation} {clip_id}".encode()])
        return chosen.apply(steps, strength, random)

    return Change(apply, lambda steps: chosen.length(steps, strength))


def check(transformations: Sequence[str], strengths: Sequence[float], side: str, where: str, seed: int) -> None:
    unknown = [name for name in transformations if name not in TRANSFORMATIONS]
    if unknown or not transformations:
        known = ", ".join(TRANSFORMATIONS)
        raise ValueError(f"transformations must be some of {known}, got {', '.join(unknown) or 'none'}")
    outside = [strength for strength in strengths if not 0 <= strength <= 1]
    if outside:
        raise ValueError(f"strengths must be from 0 to 1, got {', '.join(map(str, outside))}")
    if side not in ("video", "audio"):
        raise ValueError(f"side must be video or audio, got {side!r}")
    if where not in WHERE:
        raise ValueError(f"where must be features or encoded, got {where!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def run_temporal(
    experiment: Experiment,
    *,
    out: Path = Path("runs/temporal"),
    metrics: Sequence[str] = METRICS,
    options: dict[str, dict[str, Option]] | None = None,
    transformations: Sequence[Literal["shift", "roll", "crop", "warp", "reverse", "permute"]] = (
        "shift",
        "roll",
        "crop",
        "warp",
        "reverse",
        "permute",
    ),
    strengths: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
    side: Literal["video", "audio"] = "video",
    where: Where = "features",
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Row]:
    """Return two rows, one per direction, for each transformation, strength and metric, in that order.

    Strength 0 is always among them: the clips as they are, searched once for all transformations. Writes results.json
    after every cell, and table.md and recall.png at the end, all in `out`.

    Args:
        out: Folder for results.json (written after every cell), table.md and recall.png.
        options: Keyword arguments by metric, {soft_dtw: {gamma: 0.1}}; without any, a metric takes the checkpoint's.
        transformations: What is done to the clips' time; scav_model.experiments.probes.transforms defines each.
        strengths: How much of it, from 0 (nothing) to 1; 0 is always among them.
        side: Modality whose clips are transformed, all of them; the other stays as it is.
        where: Transform the features that the encoder reads, or the encoded steps.
        seed: Seed of what is random in a transformation, clip by clip.
        resume: Keep the finished cells of an earlier run with the same settings; metrics, strengths may be added.
    """
    options = options or {}
    check(transformations, strengths, side, where, seed)
    searched = distances(experiment.config, metrics, options)
    strengths = sorted({0.0, *strengths})
    settings = {**experiment.settings(), "side": side, "where": where, "seed": seed, "options": options}
    with working_in(out, "runs an experiment"):
        results = Results(out, settings, KEYS, resume=resume, overwrite=overwrite)
        cells: list[Row] = [
            {"transformation": transformation, "strength": strength, "metric": metric}
            for transformation in dict.fromkeys(transformations)
            for strength in strengths
            for metric in searched
        ]

        @cache
        def encoded() -> tuple[Sequences, Sequences]:
            return experiment.encode(experiment.features)

        @cache
        def undisturbed(metric: str) -> list[Row]:
            return search(*encoded(), searched[metric])

        # Cells of one disturbance follow each other.
        @lru_cache(maxsize=1)
        def disturbed(transformation: str, strength: float) -> tuple[Sequences, Sequences]:
            change = disturbance(transformation, strength, seed)
            return changed(experiment, encoded(), [(change, side)], where)

        def search_cell(cell: Row) -> list[Row]:
            transformation, strength, metric = (cell[key] for key in KEYS)
            if strength == 0:
                return undisturbed(metric)
            return search(*disturbed(transformation, strength), searched[metric])

        rows = results.fill(cells, search_cell)
        write_text(out / "table.md", table(rows, len(experiment.features), side, where) + "\n")
        plot_temporal(rows, gallery=len(experiment.features), side=side, where=where, path=out / "recall.png")
        return rows


def table(rows: Sequence[Row], gallery: int, side: Sides, where: Where) -> str:
    """Return a Markdown table: R@1 in %, mean of both directions, by transformation and metric, and strength."""
    recall = mean_of_directions(rows, KEYS)
    strengths = list(dict.fromkeys(row["strength"] for row in rows))
    lines = [
        [transformation, metric, *(f"{recall[transformation, strength, metric]:.1f}" for strength in strengths)]
        for transformation, metric in dict.fromkeys((row["transformation"], row["metric"]) for row in rows)
    ]
    what = "features" if where == "features" else "encoded steps"
    note = (
        f"R@1 in % among {gallery} clips (chance {100 / gallery:.1f}), mean of both directions, by the strength of "
        f"what is done to the {side}'s {what}."
    )
    return note + "\n\n" + markdown(["transformation", "metric", *(f"{s:g}" for s in strengths)], lines, names=2)
