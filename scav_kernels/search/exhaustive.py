"""Search by a metric that brings no search of its own: every pair, each computed alone."""

import torch

from scav_kernels.ops.registry import SearchMethod
from scav_kernels.search.nearest import Nearest, no_nan
from scav_kernels.search.question import Question
from scav_kernels.search.report import SearchReport

# Pairs that are computed before they are offered.
_PAIRS = 1 << 14


def _find(request: Question, _prune: bool, report: SearchReport, nearest: Nearest) -> None:
    queries = torch.arange(len(request.queries), device=request.queries.device)
    for items in torch.arange(len(request.index), device=queries.device).split(max(1, _PAIRS // len(queries))):
        distances = torch.stack([request.to_item(item) for item in items.tolist()])  # (B, Q)
        nearest.offer(queries.repeat(len(items)), items.repeat_interleave(len(queries)), no_nan(distances.flatten()))
        report.scored += distances.numel()


EXHAUSTIVE = SearchMethod(_find)
