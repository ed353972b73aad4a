"""Search of series by DTW: sequences of few features, whose distances cost little more than their bounds.

Costs are differences of features, so a distance computed beside others depends on its pair alone: it needs no interval
and no second look, unlike those of a `CascadeSearch`.
"""

import torch

from scav_kernels.search.kernels import nearest_series
from scav_kernels.search.nearest import RunningTopK
from scav_kernels.search.report import STOPPED, SearchReport, StageReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import sum_rounding

# As many features as csrc/cpu/difference_costs.inl calls few.
_FEW_FEATURES = 16
# Fewer items leave most lanes of a recursion over pairs empty, and longer sequences do not leave it in cache.
_MIN_ITEMS = 32
_MAX_STEPS = 1 << 15
# Numbers of the items that are compared at a time.
_BLOCK_NUMBERS = 1 << 21
_STAGES = ("LB_Keogh of queries", "LB_Keogh of items", STOPPED)


def suits_series(request: SearchRequest) -> bool:
    """Return whether `find_series` is able to answer, and the faster way."""
    like = request.index.like
    return (
        like.device.type == "cpu"
        and like.shape[2] <= _FEW_FEATURES
        and len(request.index) >= _MIN_ITEMS
        and max(like.shape[1], request.queries.shape[1]) <= _MAX_STEPS
        and request.options["cost"] != "cosine"
    )


def find_series(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    """Find the nearest items by DTW; with `prune`, by LB_Keogh and leaving pairs early."""
    index, options = request.index, request.options
    if prune and not report.stages:
        report.stages += [StageReport(name) for name in _STAGES]
    rounding = sum_rounding(index.like, request.queries.shape[1] + index.like.shape[1])
    size = max(1, _BLOCK_NUMBERS // (index.like.shape[1] * index.like.shape[2]))
    for items in torch.arange(len(index)).split(size):
        top_k.distances, top_k.items, counts = nearest_series(
            request.queries,
            index.rows(items),
            request.lengths,
            index.lengths[items],
            options["cost"],
            options["band"],
            int(items[0]),
            rounding,
            prune,
            top_k.distances,
            top_k.items,
        )
        *of_stages, scored, abandoned = counts.tolist()
        for stage, seen, removed in zip(report.stages, of_stages[:3], of_stages[3:], strict=prune):
            stage.seen += seen
            stage.removed += removed
        report.scored += scored
        report.abandoned += abandoned
