"""Numbers that pictures of an alignment are drawn from: costs, contributions of each second, and times that match."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from scav_kernels.ops.registry import METRICS
from scav_model.distances import Distance
from scav_model.index.align import Alignment, ground_costs


def cost_matrix(distance: Distance, query: Tensor, clip: Tensor, side: str) -> Tensor:
    """Return the ground costs (N, M) of a query's steps (N, D) and a clip's (M, D); `side` is the query's."""
    video, audio = (query, clip) if side == "video" else (clip, query)
    costs = ground_costs(video, audio, ground_cost(distance))
    return costs if side == "video" else costs.T


def ground_cost(distance: Distance) -> str:
    """Return the cost of two steps by which a distance compares sequences: euclidean, sqeuclidean or cosine."""
    if "cosine" in distance.metric:
        return "cosine"
    options = METRICS[distance.metric].defaults() | distance.options
    return str(options.get("cost", "sqeuclidean" if options.get("squared") else "euclidean"))


def per_second(aligned: Alignment, end: float) -> list[float]:
    """Return what each second (or step, where the index knows no rates) of a clip of that length contributes."""
    sums = [0.0] * max(1, math.ceil(end - 1e-6))
    for place, share in zip(aligned.clip, aligned.contribution, strict=True):
        sums[min(int(place), len(sums) - 1)] += share
    return sums


def matching_times(
    places: Sequence[float], others: Sequence[float], weights: Sequence[float], steps: int, end: float
) -> list[float]:
    """Return, for the middle of each of `steps` equal parts of 0 to `end`, the time of the other side that matches it.

    Args:
        places, others, weights: of the matches: the time on this side, on the other side, and the weight.
    """
    parts = np.clip((np.asarray(places) / end * steps).astype(int), 0, steps - 1)
    total = np.bincount(parts, weights, minlength=steps)
    sums = np.bincount(parts, np.asarray(weights) * np.asarray(others), minlength=steps)
    middles = (np.arange(steps) + 0.5) * end / steps
    known = total > 0
    return [float(time) for time in np.interp(middles, middles[known], sums[known] / total[known])]
