"""Alignment of a query and a clip: which second matches which, and what each match adds to the distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import scav_kernels
from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.index.index import IndexReader
from scav_model.index.search import Answer

# Cells of a plan that hold less than this share of the largest are left out, their part of the distance in `rest`.
SMALLEST = 0.01


@dataclass(frozen=True)
class Alignment:
    """Matches of one query and one clip, L of them.

    Attributes:
        query: (L,) seconds, the middle of the step, or steps counted from 0 where the index knows no rates.
        clip: (L,) for the clip, in the same way.
        weight: (L,) how much of the match counts, 1 the most.
        contribution: (L,) what the match adds to the distance, in its unit.
        rest: what no listed match adds: regularization, and matches too small to be listed.
        distance: the sum of all.
        unit: "s" or "steps".
    """

    query: list[float]
    clip: list[float]
    weight: list[float]
    contribution: list[float]
    rest: float
    distance: float
    unit: str


Matches = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def alignments(index: IndexReader, answer: Answer) -> list[list[Alignment]]:
    """Return the alignment of each hit of each query, in the index's metric, after mode mean too."""
    side, target = answer.queries.side, answer.queries.target
    rates = {name: index.header.features[name]["rate_hz"] for name in ("video", "audio")}
    return [
        [
            align(index.distance, answer.queries.steps(query), index.steps(target, hit.number), side, rates)
            for hit in hits
        ]
        for query, hits in enumerate(answer.hits)
    ]


def align(distance: Distance, query: Tensor, clip: Tensor, side: str, rates: dict[str, float | None]) -> Alignment:
    """Return the alignment of a query (N, D) and a clip (M, D) under a distance.

    Args:
        side: video or audio, what the query is; the clip is the other.
        rates: steps per second of `video` and `audio`.
    """
    video, audio = (query, clip) if side == "video" else (clip, query)
    cells, weight, contribution = METRICS[distance.metric](video, audio, dict(distance.options))
    if distance.per_step:
        contribution = contribution / (len(video) + len(audio))
    whole = [Sequences(steps[None], torch.tensor([len(steps)])) for steps in (video, audio)]
    total = float(distance.pairs(*whole))
    weight = weight / weight.max()
    kept = weight >= SMALLEST
    cells, weight, contribution = cells[kept], weight[kept], contribution[kept]
    known = [rates[name] for name in ("video", "audio")]
    unit = "steps" if None in known else "s"
    places = [
        cells[:, column] if rate is None or None in known else (cells[:, column] + 0.5) / rate
        for column, rate in enumerate(known)
    ]
    if side == "audio":
        places.reverse()
    return Alignment(
        places[0].tolist(),
        places[1].tolist(),
        weight.tolist(),
        contribution.tolist(),
        rest=total - float(contribution.sum()),
        distance=total,
        unit=unit,
    )


def ground_costs(video: Tensor, audio: Tensor, cost: str) -> Tensor:
    """Return the ground costs (N, M) of all pairs of steps."""
    if cost == "cosine":
        return 1 - F.normalize(video, dim=1) @ F.normalize(audio, dim=1).T
    euclidean = torch.cdist(video, audio, compute_mode="donot_use_mm_for_euclid_dist")
    return euclidean.square() if cost == "sqeuclidean" else euclidean


def _resampled(video: Tensor, audio: Tensor, options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return cells (L, 2) at which one side, resampled to the other's steps, meets it, and both sides there (L, D).

    A place on the resampled side may lie between steps.
    """
    resample, mode = options.get("resample", "x"), options.get("mode", "linear")
    if resample == "shorter":
        resample = "x" if len(video) <= len(audio) else "y"
    moved, kept = (video, audio) if resample == "x" else (audio, video)
    places = torch.arange(len(moved), dtype=moved.dtype)[:, None]
    align_corners = False if mode == "linear" else None
    both = F.interpolate(torch.cat((moved, places), 1).T[None], len(kept), mode=mode, align_corners=align_corners)[0].T
    steps = torch.arange(len(kept), dtype=torch.float64)
    source = both[:, -1].double()
    cells = torch.stack((source, steps) if resample == "x" else (steps, source), dim=1)
    return cells, both[:, :-1], kept


def _interpolated(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    cells, stretched, kept = _resampled(video, audio, options)
    apart = (stretched - kept).square().sum(1)
    if not options.get("squared", False):
        apart = apart.sqrt()
    return cells, torch.ones(len(kept)), apart / len(kept)


def _interpolated_cosine(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    cells, stretched, kept = _resampled(video, audio, options)
    apart = 1 - F.cosine_similarity(stretched, kept, dim=1)
    return cells, torch.ones(len(kept)), apart / len(kept)


def _chamfer(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    """Match each step of the side, or of both sides, to its nearest step."""
    costs = ground_costs(video, audio, options.get("cost", "euclidean"))
    direction = options.get("direction", "x")
    share = 2 if direction == "both" else 1
    cells, contributions = [], []
    for side, axis in (("x", 1), ("y", 0)):
        if direction in (side, "both"):
            nearest, steps = costs.argmin(axis), torch.arange(costs.shape[1 - axis])
            rows, columns = (steps, nearest) if side == "x" else (nearest, steps)
            cells.append(torch.stack((rows, columns), dim=1).double())
            contributions.append(costs[rows, columns] / len(steps) / share)
    return torch.cat(cells), torch.ones(sum(map(len, cells))), torch.cat(contributions)


def _dtw(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    path = scav_kernels.dtw_path(video, audio, **options)
    costs = ground_costs(video, audio, options.get("cost", "euclidean"))
    return path.double(), torch.ones(len(path)), costs[path[:, 0], path[:, 1]]


def _soft_dtw(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    expected = scav_kernels.soft_dtw_alignment(video, audio, **options)
    return _cells(expected, expected * ground_costs(video, audio, options.get("cost", "sqeuclidean")))


def _sinkhorn(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    plan = scav_kernels.sinkhorn_plan(video, audio, **options)
    return _cells(plan, plan * ground_costs(video, audio, options.get("cost", "euclidean")))


def _pooled(video: Tensor, audio: Tensor, options: dict[str, Any]) -> Matches:
    """Match every step with every step: 1 − cosine of the means is the mean of these contributions."""
    lengths = video.mean(0).norm() * audio.mean(0).norm()
    contribution = (1 - video @ audio.T / lengths.clamp(min=1e-12)) / (len(video) * len(audio))
    return _cells(torch.ones_like(contribution), contribution)


def _cells(weight: Tensor, contribution: Tensor) -> Matches:
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in weight.shape), indexing="ij")
    return torch.stack((rows.flatten(), columns.flatten()), dim=1).double(), weight.flatten(), contribution.flatten()


# A divergence subtracts what each side costs against itself, which is no match of the two: it is in the rest.
METRICS: dict[str, Callable[[Tensor, Tensor, dict[str, Any]], Matches]] = {
    "interpolated_euclidean": _interpolated,
    "dtw": _dtw,
    "soft_dtw": _soft_dtw,
    "soft_dtw_divergence": _soft_dtw,
    "sinkhorn": _sinkhorn,
    "sinkhorn_divergence": _sinkhorn,
    POOLED_COSINE: _pooled,
    "chamfer": _chamfer,
    "interpolated_cosine": _interpolated_cosine,
}
