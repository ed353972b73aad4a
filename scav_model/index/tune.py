"""Measure recall and time of search among candidates, by their number."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.queries import queries_by_id
from scav_model.index.search import find

CANDIDATES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@torch.no_grad()
def tune(
    index: IndexReader,
    *,
    k: int = 10,
    queries: int = 50,
    side: str = "video",
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Measure modes hybrid and bounds against exact search, with clips of the index as queries.

    Args:
        k: nearest clips that count.
        queries: clips to ask with, drawn at random by `seed`; all where there are fewer.
        side: of the queries, video or audio.
        candidates: k′ to try; those from k to the size of the index are.

    Returns:
        A row for exact, one for each k′ of hybrid, and of bounds where the metric has them: `mode`, `candidates`,
        `recall` (share of the k clips of exact search that were found, in percent, mean over queries), `worst` (of any
        query, in percent), `ms` (wall-clock time of a query).

    Raises:
        SearchIndexError: an empty index, or one without the sides; k, queries or candidates below 1, seed below 0.
    """
    for name, value in (("k", k), ("queries", queries), ("candidates", min(candidates, default=0))):
        if value < 1:
            raise SearchIndexError(f"expected {name} to be at least 1, got {value}")
    if seed < 0:
        raise SearchIndexError(f"expected seed to be at least 0, got {seed}")
    if not len(index):
        raise SearchIndexError(f"{index.folder} is empty; add clips before tuning")
    live = np.flatnonzero(index.live)
    chosen = np.random.default_rng(seed).choice(live, min(queries, len(live)), replace=False)
    asked = queries_by_id(index, [index.id(int(number)) for number in np.sort(chosen)], side)
    asked.check(index)
    k = min(k, len(index))
    # Warm-up: the first read verifies checksums.
    find(index, asked, k, "exact")
    find(index, asked, k, "mean")
    started = time.perf_counter()
    right = find(index, asked, k, "exact")[1].numpy()
    rows = [_row("exact", len(index), np.ones(len(asked)), time.perf_counter() - started)]
    for mode in ("hybrid", "bounds") if index.has_bounds else ("hybrid",):
        for count in sorted({min(count, len(index)) for count in candidates if count >= k}):
            started = time.perf_counter()
            found = find(index, asked, k, mode, count)[1].numpy()
            seconds = time.perf_counter() - started
            shares = np.array([np.isin(*pair).mean() for pair in zip(right, found, strict=True)])
            rows.append(_row(mode, count, shares, seconds))
    return rows


def _row(mode: str, candidates: int, shares: np.ndarray[Any, Any], seconds: float) -> dict[str, Any]:
    return {
        "mode": mode,
        "candidates": candidates,
        "recall": 100 * float(shares.mean()),
        "worst": 100 * float(shares.min()),
        "ms": 1e3 * seconds / len(shares),
    }
