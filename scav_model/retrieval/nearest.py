"""Nearest-neighbor search among encoded clips: evaluation, probes, mteb and the index on disk all call `nearest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

import scav_kernels
from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.retrieval.means import Block, mean_scores

Mode: TypeAlias = Literal["exact", "hybrid", "mean", "bounds"]
METHODS: tuple[Mode, ...] = get_args(Mode)
# Queries that are compared with a block of clips in one call.
ROWS = 256
# Numbers of the candidates that are compared with a query in one call: 64 MiB of float32.
FLOATS = 1 << 24


class Found(NamedTuple):
    """The nearest items of each query, and how many pairs of sequences were compared."""

    distances: Tensor  # (Q, k), ascending
    numbers: Tensor  # (Q, k) int64
    report: scav_kernels.SearchReport


class Part(NamedTuple):
    """Items that are searched in one call.

    Attributes:
        items: a database, of items of one length if distances are divided by steps; or items to be compared in full.
        numbers: (G,) int64 number of each item, ascending.
        prune: as `scav_kernels.topk` takes it.
        live: (G,) bool, False for items that must not be found; None: all may be.
        learn: takes the report of this part's search, and k; None: nobody asks.
    """

    items: scav_kernels.SearchIndex | Sequences
    numbers: Tensor
    prune: str = "none"
    live: Tensor | None = None
    learn: Callable[[scav_kernels.SearchReport, int], None] | None = None


class Items(Protocol):
    """Encoded clips of one side that can be searched.

    Attributes:
        distance: between videos and audios.
        dtype: of the stored steps. Queries are rounded to it before sequences are compared.
        floats: numbers of the longest item.
        ascending: whether the parts are in the order of the items' numbers. If so, the k-th distance of the parts so
            far limits the search of the next.
    """

    @property
    def distance(self) -> Distance: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def floats(self) -> int: ...
    @property
    def ascending(self) -> bool: ...

    def means(self) -> Iterator[Block]:
        """Yield numbers (B,) and mean steps (B, D) of the items, block by block, in order."""

    def gather(self, numbers: Tensor) -> Sequences:
        """Return the items that have these numbers (B,)."""

    def parts(self, queries: Sequences, method: str, prune: str) -> Iterator[Part]:
        """Yield all items in parts, for a search by method exact or bounds."""


class Limits(Protocol):
    """Distances that are known outside these items, such as to other parts of a larger index."""

    def __call__(self, found: Tensor) -> Tensor:
        """Take the distances (Q, at most k) found so far, ascending. Return distances (Q,) within which k items of all
        parts are known, so that no farther item matters; inf if nothing is known."""


@torch.no_grad()
def nearest(
    queries: Sequences,
    items: Items,
    side: str,
    k: int,
    *,
    method: str = "exact",
    candidates: int | Tensor | None = None,
    prune: str = "auto",
    limits: Limits | None = None,
) -> Found:
    """Find the k nearest items of each query; of ties, the lower number comes first.

    Args:
        queries: steps (Q, N, D) and lengths (Q,).
        items: of the other side.
        side: of the queries, video or audio. Videos are the distance's x in both directions.
        k: items for each query, at most as many as there are.
        method: one of four. `exact` compares sequences, and leaves out items that a lower bound shows to be beyond the
            k-th. `mean` compares mean steps by 1 − cosine. `hybrid` compares the sequences of the `candidates` with the
            nearest means. `bounds` compares the sequences of the `candidates` with the smallest lower bounds in each
            part.
        candidates: how many, for `hybrid` and `bounds`; for `hybrid` also their numbers (Q, C) themselves, chosen
            elsewhere, where −1 stands for none.
        prune: "auto" or "none", as `scav_kernels.topk` takes it.
        limits: called before each part of exact search, and with the final distances; None: nothing is known outside.

    Returns:
        Distances, numbers and report. Places for which there is no item, or none within the limits, hold inf.
    """
    if method == "mean":
        scores, numbers = mean_scores(queries, items.means, k)
        return Found(1 - scores, numbers, scav_kernels.SearchReport())
    if method == "hybrid":
        if not isinstance(candidates, Tensor):
            candidates = mean_scores(queries, items.means, max(k, candidates or 0))[1]
        return _among(queries, items, side, k, candidates)
    queries = Sequences(queries.steps.to(items.dtype), queries.lengths)
    report = scav_kernels.SearchReport()
    best = torch.empty(len(queries.steps), 0, device=queries.steps.device)
    numbers = best.long()
    for part in items.parts(queries, method, prune):
        limit = None
        if items.ascending and method == "exact":
            limit = best[:, -1] if best.shape[1] == k else best.new_full((len(best),), torch.inf)
            if limits is not None:
                limit = torch.minimum(limit, limits(best).to(limit))
        search = _Search(queries, side, items.distance, report, limit)
        found, listed = search.part(part, k, candidates if method == "bounds" else None)
        best, numbers = torch.cat((best, found), dim=1), torch.cat((numbers, listed), dim=1)
        if not items.ascending:
            order = numbers.argsort(dim=1)
            best, numbers = best.gather(1, order), numbers.gather(1, order)
        best, numbers = smallest(best, numbers, k)
    if limits is not None:
        limits(best)
    return Found(best, numbers, report)


def smallest(distances: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest of each row (Q, C), ascending, and their numbers; of ties those that come first."""
    order = distances.sort(dim=1, stable=True).indices[:, :k]
    return distances.gather(1, order), numbers.gather(1, order)


def has_bounds(distance: Distance) -> bool:
    """Return True if exact search by this distance has lower bounds to prune by."""
    if distance.metric == POOLED_COSINE:
        return False
    one = torch.zeros(1, 1, 1)
    return scav_kernels.topk(one, one, 1, metric=distance.kernel_metric, **distance.options).report.exhaustive is None


def compare(queries: Sequences, clips: Sequences, side: str, distance: Distance) -> Tensor:
    """Return the distances (Q, B) of all pairs of queries and clips."""
    if side == "video":
        return distance.all_pairs(queries, clips)
    return distance.all_pairs(clips, queries).T


def _among(queries: Sequences, items: Items, side: str, k: int, candidates: Tensor) -> Found:
    """Find the k nearest among each query's candidates (Q, C)."""
    chosen = candidates.sort(dim=1).values
    at_once = max(1, FLOATS // items.floats)
    rows = []
    for row, length in enumerate(queries.lengths.tolist()):
        steps = queries.steps[row : row + 1, :length].to(items.dtype)
        parts = []
        for numbers in chosen[row].split(at_once):
            clips = items.gather(numbers.clamp(min=0))
            one = Sequences(steps.to(clips.steps.dtype), queries.lengths[row : row + 1])
            parts.append(compare(one, clips, side, items.distance)[0])
        rows.append(torch.cat(parts))
    distances = torch.stack(rows).masked_fill(chosen < 0, torch.inf)
    pairs = chosen.numel()
    return Found(*smallest(distances, chosen, k), scav_kernels.SearchReport(pairs, scored=pairs, approximate=True))


class _Search(NamedTuple):
    """One search, of one part after the other."""

    queries: Sequences
    side: str
    distance: Distance
    report: scav_kernels.SearchReport
    limits: Tensor | None  # (Q,)

    def part(self, part: Part, k: int, candidates: int | Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the distances (Q, at most k), ascending, and numbers of the part's nearest."""
        database = part.items
        numbers = part.numbers.to(self.queries.steps.device)
        if isinstance(database, Sequences):
            if self.distance.per_step or self.distance.metric == POOLED_COSINE:
                return self._all(database, numbers, k)
            database = scav_kernels.SearchIndex(*database)
        hidden = 0 if part.live is None else int((~part.live).sum())
        # Items that must not be found take at most as many places.
        count = min(len(database), k + hidden)
        distances, places = self._topk(database, count, part, candidates)
        if part.live is not None and hidden:
            may = part.live.to(places.device)[places] & (places >= 0)
            order = may.sort(dim=1, descending=True, stable=True).indices[:, : min(k, len(database) - hidden)]
            distances = distances.masked_fill(~may, torch.inf).gather(1, order)
            places = places.gather(1, order)
        return distances, numbers[places.clamp(min=0)]

    def _topk(
        self, database: scav_kernels.SearchIndex, k: int, part: Part, candidates: int | Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A pair's distance is the same whatever is pruned: neither bounds nor limits change a digit."""
        distance, lengths = self.distance, self.queries.lengths
        # The database's items have one length.
        steps = lengths[:, None] + database.lengths[:1] if distance.per_step else None
        limits = self.limits
        if limits is not None and steps is not None:
            # A little more than all that rounds down to the limit.
            limits = limits * steps[:, 0] * (1 + 2.0**-20)
        with distance.one_warning.counting():
            answer = scav_kernels.topk(
                self.queries.steps.to(database.like.dtype),
                database,
                k,
                lengths,
                metric=distance.kernel_metric,
                queries_are="x" if self.side == "video" else "y",
                prune=part.prune,
                limits=None if limits is None else limits.to(database.dtype),
                candidates=None if candidates is None else max(k, min(int(candidates), len(database))),
                **distance.options,
            )
        self.report.pairs += answer.report.pairs
        self.report.scored += answer.report.scored
        self.report.abandoned += answer.report.abandoned
        if part.learn is not None:
            part.learn(answer.report, k)
        return answer.distances if steps is None else answer.distances / steps, answer.indices

    def _all(self, clips: Sequences, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Compare all pairs. Distances that are divided by the steps of clips of several lengths have another order
        than the sums that `topk` compares."""
        steps, lengths = self.queries.steps.to(clips.steps.dtype), self.queries.lengths
        distances = torch.cat(
            [
                compare(Sequences(steps[row : row + ROWS], lengths[row : row + ROWS]), clips, self.side, self.distance)
                for row in range(0, len(steps), ROWS)
            ]
        )
        self.report.pairs += distances.numel()
        self.report.scored += distances.numel()
        return smallest(distances, numbers.expand(len(steps), -1), k)
