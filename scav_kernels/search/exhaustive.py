"""Search by a metric that registers no search method: compute every pair, each alone."""

import torch

from scav_kernels.ops.registry import SearchMethod
from scav_kernels.search.nearest import RunningTopK, no_nan
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest

# Pairs in a block.
_BLOCK_PAIRS = 1 << 14


def _find(request: SearchRequest, _prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    queries = torch.arange(len(request.queries), device=request.queries.device)
    for items in torch.arange(len(request.index), device=queries.device).split(max(1, _BLOCK_PAIRS // len(queries))):
        distances = torch.stack([request.distances_to_item(item) for item in items.tolist()])  # (B, Q)
        top_k.add(queries.repeat(len(items)), items.repeat_interleave(len(queries)), no_nan(distances.flatten()))
        report.scored += distances.numel()


EXHAUSTIVE = SearchMethod(_find)
