"""Search by a distance that aligns ground costs: lower bounds from few coordinates, then distances.

A metric brings the bounds, which may be none, and the allowance for rounding, as a `Cascade`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.registry import SearchMethod
from scav_kernels.search.index import step_coordinates
from scav_kernels.search.nearest import RunningTopK, no_nan
from scav_kernels.search.report import STOPPED, SearchReport, StageReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import PairScale, cost_rounding, unit_roundoff

# Drop a bound for the rest of the search if it leaves more than this share of at least this number of pairs: it takes
# about a tenth of the time of the distance.
_MAX_REMAINING, _MIN_SEEN = 0.85, 1000
# Pairs in a block.
_BLOCK_PAIRS = 1 << 16
# If more than the first share of a block's pairs remains, bounds of the whole block are faster than those of the
# remaining pairs. Above the second, so are distances, although most would never be computed in the order of bounds.
_DENSE_BOUNDS, _DENSE_DISTANCES = 0.25, 0.75
# Score this number of remaining pairs together: the more pairs, the better their order.
_PENDING_PAIRS = 1 << 17


class Bound(NamedTuple):
    """A lower bound.

    `compute(x, y, x_lengths, y_lengths)` returns it for all pairs, from `rank` coordinates. With weights of steps, it
    also takes `x_weights`, `y_weights` or both.
    """

    name: str
    rank: int
    compute: Callable[..., Tensor]


class Cascade(NamedTuple):
    """The parts of a `CascadeSearch` that belong to a metric, whose options include the ground cost as `cost`.

    Attributes:
        rounding: rounding(scale, options) is how far rounding may move a distance or a bound.
        bounds: bounds(cost, options) are the lower bounds, from the cheapest to the tightest. `cost` is the ground cost
            between the coordinates of steps: "euclidean", or "sqeuclidean" for the two others.
    """

    rounding: Callable[[PairScale, dict[str, Any]], Tensor]
    bounds: Callable[[str, dict[str, Any]], list[Bound]] | None = None

    def method(self) -> SearchMethod:
        def find(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
            CascadeSearch(self, request, prune, report).run(top_k)

        return SearchMethod(find, has_bounds=self.bounds is not None)


class CascadeSearch:
    """Search by bounds, then by distances of the remaining pairs in the order of their bounds.

    The last digits of a batched distance depend on the other pairs of the batch. So a batched distance gives an
    interval, and the pairs whose intervals reach the nearest are computed once more, each alone.
    """

    def __init__(self, cascade: Cascade, request: SearchRequest, prune: bool, report: SearchReport) -> None:
        self.cascade = cascade
        self.request, self.index, self.report = request, request.index, report
        self.cost = request.options["cost"]
        self.unit_steps = self.cost == "cosine"
        cost = "euclidean" if self.cost == "euclidean" else "sqeuclidean"
        self.bounds = cascade.bounds(cost, request.options) if prune and cascade.bounds else []
        rows = request.queries.to(self.index.dtype)
        self.query_coordinates = {
            bound.rank: step_coordinates(rows, self.index.directions[: bound.rank - 1], self.unit_steps)
            for bound in self.bounds
        }
        self.dropped: set[int] = set()
        # Pairs that no bound removed: queries, items, bounds.
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        # Pairs that can be among the nearest: queries, items, lower ends of their intervals.
        self._candidates: list[tuple[Tensor, Tensor, Tensor]] = []
        if not report.stages and self.bounds:
            report.stages += [StageReport(bound.name) for bound in self.bounds] + [StageReport(STOPPED)]

    def run(self, top_k: RunningTopK) -> None:
        # By the upper ends of the intervals.
        upper = RunningTopK(len(self.request.queries), top_k.k, self.index.dtype, self.index.device)
        upper.distances[:] = top_k.distances
        size = max(1, _BLOCK_PAIRS // len(self.request.queries))
        for begin in range(0, len(self.index), size):
            items = torch.arange(begin, min(begin + size, len(self.index)), device=self.index.device)
            (self._prune_block if self.bounds else self._score_block)(upper, items)
            self._drop_distant(upper)
        self._score_pending(upper)
        self._drop_distant(upper)
        for pairs in self._candidates:
            top_k.score_in_order(*pairs, self._pair_distances)

    def _drop_distant(self, upper: RunningTopK) -> None:
        """Remove candidates that can no longer be among the nearest."""
        if self._candidates:
            queries, items, lower = (torch.cat(parts) for parts in zip(*self._candidates, strict=True))
            limits = upper.limits[queries]
            # Of equal distances, e.g. inf, the k with the lowest index are enough.
            close = (lower < limits) | ((lower == limits) & (items <= upper.items[queries, -1]))
            self._candidates = [(queries[close], items[close], lower[close])]

    def _interval(self, queries: Tensor, items: Tensor, batched: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lower and upper ends of the intervals in which distances lie, from `batched` distances."""
        around = self.rounding(queries, items)
        lower = (batched - around).nan_to_num(nan=-torch.inf, posinf=torch.inf)
        return lower, (batched + around).nan_to_num(nan=torch.inf, posinf=torch.inf)

    def _score_block(self, top_k: RunningTopK, items: Tensor, remaining: Tensor | None = None) -> None:
        """Compute all distances of a block, and keep the `remaining` (Q, B) pairs that can be among the nearest."""
        for chosen in torch.arange(len(items), device=items.device).split(self.index.block):
            queries = torch.arange(len(self.request.queries), device=items.device)
            batched = no_nan(self.request.all_pairs(queries, items[chosen]))
            lower, upper = self._interval(queries[:, None], items[chosen], batched)
            within = lower <= top_k.limits[:, None]
            pairs = torch.ones_like(within) if remaining is None else remaining[:, chosen]
            self.report.scored += int(pairs.sum())
            rows, places = (within & pairs).nonzero(as_tuple=True)
            top_k.add(rows, items[chosen[places]], upper[rows, places])
            self._candidates.append((rows, items[chosen[places]], lower[rows, places]))

    def _prune_block(self, top_k: RunningTopK, items: Tensor) -> None:
        """Apply the bounds to all pairs of a block."""
        all_queries = torch.arange(len(self.request.queries), device=items.device)
        rounding = self.rounding(all_queries[:, None], items)
        bounds = torch.full_like(rounding, -torch.inf)
        remaining = torch.ones_like(rounding, dtype=torch.bool)
        for number, bound in enumerate(self.bounds):
            if number in self.dropped or not remaining.any():
                continue
            rows, places = remaining.nonzero(as_tuple=True)
            values = self.bound(bound, items, (rows, places))
            values = (values - rounding[rows, places]).nan_to_num(nan=-torch.inf, posinf=torch.inf)
            bounds[rows, places] = torch.maximum(bounds[rows, places], values)
            if top_k.limits.isinf().any():
                self._seed(top_k, items, bounds, remaining)
            stage = self.report.stages[number]
            before = int(remaining.sum())
            remaining &= bounds <= top_k.limits[:, None]
            stage.seen += before
            stage.removed += before - int(remaining.sum())
            if stage.seen >= _MIN_SEEN and stage.removed < (1 - _MAX_REMAINING) * stage.seen:
                self.dropped.add(number)
        if int(remaining.sum()) > _DENSE_DISTANCES * remaining.numel():
            self._score_block(top_k, items, remaining)
            return
        rows, places = remaining.nonzero(as_tuple=True)
        self._pending.append((rows, items[places], bounds[rows, places]))
        if sum(len(pairs[0]) for pairs in self._pending) >= _PENDING_PAIRS:
            self._score_pending(top_k)

    def _score_pending(self, top_k: RunningTopK) -> None:
        if self._pending:
            queries, items, bounds = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
            self._pending = []
            scored = top_k.score_in_order(queries, items, bounds, self._score)
            self.report.stages[-1].seen += len(queries)
            self.report.stages[-1].removed += len(queries) - scored

    def bound(self, bound: Bound, items: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Return bounds (P,) of pairs: queries (P,), ascending, and places (P,) among the items (B,)."""
        rows, places = pairs

        def compute(queries: slice, items: Tensor) -> Tensor:
            steps = self.request.sides(
                self.query_coordinates[bound.rank][queries], self.index.coordinates(bound.rank, self.unit_steps)[items]
            )
            lengths = self.request.sides(self.request.lengths[queries], self.index.lengths[items])
            values = bound.compute(*steps, *lengths, **self.request.weights(queries, items))
            return values if self.request.queries_are == "x" else values.T

        if len(rows) > _DENSE_BOUNDS * len(self.request.queries) * len(items):
            return compute(slice(None), items)[rows, places]
        return self._by_query(rows, items[places], lambda query, items: compute(slice(query, query + 1), items)[0])

    def _by_query(self, queries: Tensor, items: Tensor, compute: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Return `compute(query, items)` of pairs (P,) with ascending queries.

        Kernels are fastest with many items for one query.
        """
        out = self.index.norms.new_empty(len(queries))
        distinct, counts = queries.unique_consecutive(return_counts=True)
        begin = 0
        for query, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            for first in range(begin, begin + count, self.index.block):
                part = slice(first, min(first + self.index.block, begin + count))
                out[part] = compute(query, items[part])
            begin += count
        return out

    def _seed(self, top_k: RunningTopK, items: Tensor, bounds: Tensor, remaining: Tensor) -> None:
        """Score the k pairs of each query with the smallest bounds, so that later bounds have a limit to exceed.

        These pairs no longer remain.
        """
        places = bounds.topk(min(top_k.k, len(items)), largest=False).indices
        rows = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
        first = remaining[rows, places]
        rows, places = rows[first], places[first]
        remaining[rows, places] = False
        top_k.score_in_order(rows, items[places], bounds[rows, places], self._score)

    def _score(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        """Return upper ends of the intervals of pairs (P,), and keep the pairs that can be within their limits."""
        self.report.scored += len(queries)

        def fast(query: int, items: Tensor) -> Tensor:
            return no_nan(self.request.all_pairs(torch.tensor([query], device=items.device), items)[0])

        lower, upper = self._interval(queries, items, self._by_query(queries, items, fast))
        close = lower <= limits
        self._candidates.append((queries[close], items[close], lower[close]))
        return upper

    def _pair_distances(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        return no_nan(self.request.pair_distances(queries, items, limits))

    def rounding(self, queries: Tensor, items: Tensor) -> Tensor:
        """Return how far rounding may move distances and bounds of pairs, (P,)."""
        reach = self.request.query_norms[queries] + self.index.norms[items]
        cost = 2 * torch.ones_like(reach) if self.unit_steps else reach if self.cost == "euclidean" else reach.square()
        cell = 4 * cost_rounding(self.index.like) * cost
        steps = self.request.lengths[queries] + self.index.lengths[items]
        scale = PairScale(cost, cell, steps, unit_roundoff(self.index.like))
        return self.cascade.rounding(scale, self.request.options)
