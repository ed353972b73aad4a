"""Exact nearest neighbors."""

from typing import Any, Unpack

import torch
from torch import Tensor

from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.checks import WEIGHTS, check_tensors
from scav_kernels.ops.convergence import OneWarning
from scav_kernels.ops.registry import METRICS, Metric, find_metric
from scav_kernels.search.exhaustive import EXHAUSTIVE
from scav_kernels.search.index import SearchIndex, check_lengths, without_autocast
from scav_kernels.search.nearest import RunningTopK
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest

# Queries in one pass over the database.
_BLOCK_QUERIES = 256


class TopK(tuple[Tensor, Tensor]):
    """The result of ``topk``: a tuple (distances, indices), with the ``report`` (SearchReport) of the search."""

    report: SearchReport

    @property
    def distances(self) -> Tensor:
        """Distances (Q, k), ascending."""
        return self[0]

    @property
    def indices(self) -> Tensor:
        """Indices (Q, k) int64 of the items in the database."""
        return self[1]


@torch.no_grad()
@without_autocast
def topk(
    queries: Tensor,
    database: Tensor | SearchIndex,
    k: int,
    query_lengths: Tensor | None = None,
    database_lengths: Tensor | None = None,
    *,
    metric: MetricName = "interpolated_euclidean",
    queries_are: str = "x",
    prune: str = "auto",
    limits: Tensor | None = None,
    candidates: int | None = None,
    **options: Unpack[MetricOptions],
) -> TopK:
    """Find the k nearest items of each query: queries (Q, N, D), database (G, M, D) -> distances, indices (Q, k).

    The search is exact, unless `candidates` is given. The distances are those of ``cdist``, ascending, ties to the
    lower index, with or without pruning. Each returned distance is computed for its pair alone, so it depends on
    nothing else, and equal items are equally far. NaN counts as infinitely far and is returned as inf. The Q·G
    distances are never in memory together. The database is read block by block, never copied or converted as a whole,
    and may be memory-mapped.

    Args:
        queries: (Q, N, D), float32, float64, bfloat16 or float16.
        database: (G, M, D), like queries; or a SearchIndex of it, which keeps the summaries that bounds need after the
            first search.
        k: items for each query, 1 ≤ k ≤ G.
        query_lengths: (Q,) int64 valid steps, 1 ≤ length ≤ N; None: all. Values beyond a length are ignored.
        database_lengths: (G,) int64 valid steps, 1 ≤ length ≤ M; None: all. A SearchIndex has its own.
        metric: the name of a distance, as for ``cdist``.
        queries_are: "x" or "y", the argument of the metric that the queries are. The database is the other one.
            Interpolated Euclidean resamples x by default, so a video that searches audios is "x", and an audio or text
            that searches videos is "y".
        prune: "auto" skips pairs whose lower bound exceeds the k-th distance, if the metric has a bound: interpolated
            Euclidean, DTW (unless ``normalize="path"``), Sinkhorn (unless ``scaling``) and Chamfer. By all others, the
            search is exhaustive, as with "none".
        limits: (Q,) in the dtype of the distances. Items beyond the limit of a query do not count, and bounds prune
            against it from the start, e.g. if the k-th distance in another part of a database is known. None: no limit.
        candidates: compare each query with only this number of items, k ≤ candidates, those with the smallest lower
            bounds; for interpolated Euclidean. The result is then approximate: more candidates miss fewer items.
            None: exact.
        options: options of the metric. ``x_weights`` and ``y_weights`` are (Q, N) and (G, M), or the other way round if
            the queries are "y". The default ``cost`` of "soft_dtw" and its divergence is "sqeuclidean"; that of "dtw",
            "chamfer", "sinkhorn" and its divergence is "euclidean".

    Returns:
        a tuple of distances (Q, k), float64 for float64 inputs and float32 for all others, and indices (Q, k) int64,
        with a ``report`` of the pairs that each bound removed. If fewer than k items are within a limit or among the
        candidates, inf and −1 fill the rest.

    Warns:
        UserWarning: once a call, if pairs that Sinkhorn compared are not below its ``tolerance``. A pair counts each
            time that it is compared.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range, before any work.
    """
    index = _index(queries, database, database_lengths)
    _check(queries, index, k, query_lengths, queries_are, prune)
    _check_limits(limits, queries, index)
    _check_candidates(candidates, k, metric, prune)
    entry = find_metric(metric, options)
    all_options = {**entry.defaults(), **options}
    names = WEIGHTS if queries_are == "x" else WEIGHTS[::-1]
    query_weights, item_weights = (all_options.pop(name, None) for name in names)
    lengths = _check_pairs(queries, index, query_lengths, entry, queries_are, all_options)
    if all_options.get("return_convergence"):
        raise ValueError("topk: expected return_convergence=False, got True; call sinkhorn for that of the items found")
    _check_weights(entry, names[0], query_weights, queries, lengths)
    _check_weights(entry, names[1], item_weights, index.like, index.lengths)

    report = SearchReport(pairs=len(queries) * len(index), approximate=candidates is not None)
    pruned = prune == "auto" and entry.has_bounds
    if prune == "none":
        report.exhaustive = "prune='none'"
    elif not pruned:
        report.exhaustive = f"{metric} has no lower bound that holds"
    search = EXHAUSTIVE if entry.search is None else entry.search
    distances = queries.new_empty((len(queries), k), dtype=index.dtype)
    indices = torch.empty((len(queries), k), dtype=torch.int64, device=queries.device)
    with OneWarning("topk").counting():
        for first in range(0, len(queries), _BLOCK_QUERIES):
            block = slice(first, first + _BLOCK_QUERIES)
            request = SearchRequest(
                queries[block].detach(),
                lengths[block],
                index,
                entry,
                all_options,
                queries_are,
                candidates,
                None if query_weights is None else query_weights[block],
                item_weights,
            )
            top_k = RunningTopK(len(request.queries), k, index.dtype, queries.device)
            if limits is not None:
                # No item has this distance yet, so any item within the limit replaces it.
                top_k.distances[:] = limits[block, None]
            search.find(request, pruned, report, top_k)
            distances[block], indices[block] = top_k.distances, top_k.items
    if limits is not None or candidates is not None:
        missing = indices == torch.iinfo(torch.int64).max
        distances.masked_fill_(missing, torch.inf)
        indices.masked_fill_(missing, -1)
    result = TopK((distances, indices))
    result.report = report
    return result


def _index(queries: Tensor, database: Tensor | SearchIndex, lengths: Tensor | None) -> SearchIndex:
    if isinstance(database, SearchIndex):
        if lengths is not None:
            raise ValueError(
                "topk: expected no database_lengths beside a SearchIndex, which has its own; pass them to SearchIndex"
            )
        check_tensors("topk", queries=queries, database=database.like)
        return database
    check_tensors("topk", queries=queries, database=database, database_lengths=lengths)
    if database.ndim == 3:
        check_lengths("topk", "database_lengths", lengths, *database.shape[:2])
    return SearchIndex(database, lengths)


def _check(
    queries: Tensor, index: SearchIndex, k: int, query_lengths: Tensor | None, queries_are: str, prune: str
) -> None:
    check_tensors("topk", queries=queries, query_lengths=query_lengths)
    if queries_are not in ("x", "y"):
        raise ValueError(f"topk: expected queries_are 'x' or 'y', got {queries_are!r}")
    if prune not in ("auto", "none"):
        raise ValueError(f"topk: expected prune 'auto' or 'none', got {prune!r}")
    if isinstance(k, bool) or not isinstance(k, int):
        raise TypeError(f"topk: expected k to be an int, got {k!r} of type {type(k).__name__}")
    if not 1 <= k <= len(index):
        raise ValueError(
            f"topk: expected k from 1 to {len(index)}, the size of the database, got {k}; "
            "pass min(k, len(database)) for as many as there are"
        )


def _check_limits(limits: Tensor | None, queries: Tensor, index: SearchIndex) -> None:
    if limits is None:
        return
    check_tensors("topk", limits=limits)
    expected = (len(queries),), index.dtype, queries.device
    if (limits.shape, limits.dtype, limits.device) != expected:
        raise ValueError(
            f"topk: expected limits of shape {expected[0]}, {expected[1]} on {expected[2]}, one for each query, got "
            f"{tuple(limits.shape)}, {limits.dtype} on {limits.device}"
        )
    if bool(limits.isnan().any()):
        raise ValueError("topk: expected limits to be numbers, got NaN; inf lets all items count")


def _check_candidates(candidates: int | None, k: int, metric: str, prune: str) -> None:
    if candidates is None:
        return
    if isinstance(candidates, bool) or not isinstance(candidates, int):
        raise TypeError(
            f"topk: expected candidates to be an int, got {candidates!r} of type {type(candidates).__name__}"
        )
    if candidates < k:
        raise ValueError(f"topk: expected at least as many candidates as k = {k}, got {candidates}")
    if not find_metric(metric, {}).takes_candidates or prune != "auto":
        able = " or ".join(f"metric={name!r}" for name in METRICS if METRICS[name].takes_candidates)
        raise ValueError(
            f"topk: expected {able} and prune='auto' with candidates, which its lower bounds choose, "
            f"got {metric!r} and {prune!r}"
        )


def _check_weights(metric: Metric, name: str, weights: Tensor | None, like: Tensor, lengths: Tensor) -> None:
    """Check weights by the metric's own checks, on as many sequences of zeros, each against one step."""
    if weights is None:
        return
    steps = like.new_zeros(1, 1, 1).expand(len(lengths), like.shape[1], 1)
    sides = (steps, lengths), (steps[:, :1], None)
    (x, x_lengths), (y, y_lengths) = sides if name == "x_weights" else sides[::-1]
    metric.paired(x, y, x_lengths, y_lengths, **{name: weights})


def _check_pairs(
    queries: Tensor,
    index: SearchIndex,
    query_lengths: Tensor | None,
    metric: Metric,
    queries_are: str,
    options: dict[str, Any],
) -> Tensor:
    """Check inputs and options by the metric's own checks, on a call without pairs; return the queries' lengths."""
    database = (len(index), *index.like.shape[1:])
    if queries.ndim == 3 and queries.shape[2] != database[2]:
        raise ValueError(
            f"topk: expected queries and database with the same feature size D, got {queries.shape[2]} and "
            f"{database[2]} (shapes {tuple(queries.shape)} and {database})"
        )
    if queries.dtype != index.like.dtype and queries.is_floating_point():
        raise TypeError(
            f"topk: expected queries and database of one dtype, got {queries.dtype} and {index.like.dtype}; convert "
            "the queries, e.g. queries.to(database.dtype)"
        )
    x, y = (queries, index.like) if queries_are == "x" else (index.like, queries)
    torch.ops.scav.check_pairs("topk", x, y, None, None, False)
    check_lengths("topk", "query_lengths", query_lengths, *queries.shape[:2])
    metric.all_pairs(x[:0], y[:0], None, None, **options)
    if query_lengths is not None:
        return query_lengths
    return torch.full((len(queries),), queries.shape[1], device=queries.device)
