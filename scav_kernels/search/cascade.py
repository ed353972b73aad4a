"""Search by a distance that aligns ground costs: lower bounds from few coordinates, then distances.

A metric brings the bounds, which may be none, and the allowance for rounding, as a `Cascade`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.registry import SearchMethod
from scav_kernels.search.index import step_coordinates
from scav_kernels.search.nearest import Nearest, no_nan
from scav_kernels.search.question import Question
from scav_kernels.search.report import STOPPED, SearchReport, StageReport
from scav_kernels.search.rounding import PairScale, of_cells, unit_roundoff

# Bounds that leave more than this share of at least so many pairs are dropped for the rest of the search: one takes
# about as long as a tenth of the distance.
_WORTH, _ENOUGH = 0.85, 1000
# Pairs of a block.
_HELD = 1 << 16
# Above this share of a block's pairs, bounds of all of them are quicker than of each of those left; above the other one
# distances are, though in the order of their bounds most would never be computed.
_CROWDED, _CROWD_SCORED = 0.25, 0.75
# So many pairs that bounds leave are tried together: the more, the better is the order in which they are.
_WAITING = 1 << 17


class Bound(NamedTuple):
    """`of(x, y, x_lengths, y_lengths)`: lower bounds of all pairs, from `rank` coordinates of steps."""

    name: str
    rank: int
    of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


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
        def find(request: Question, prune: bool, report: SearchReport, nearest: Nearest) -> None:
            CascadeSearch(self, request, prune, report).run(nearest)

        return SearchMethod(find, has_bounds=self.bounds is not None)


class CascadeSearch:
    """Bounds, and then distances of the pairs that they leave, in the order of their bounds. A distance's last digits
    depend on its company, so that it says between which two numbers the pair's own lies; of the pairs that may be among
    the nearest after all, that one is computed, each alone."""

    def __init__(self, cascade: Cascade, question: Question, prune: bool, report: SearchReport) -> None:
        self.cascade = cascade
        self.ask, self.index, self.report = question, question.index, report
        self.cost = question.options["cost"]
        self.unit = self.cost == "cosine"
        cost = "euclidean" if self.cost == "euclidean" else "sqeuclidean"
        self.bounds = cascade.bounds(cost, question.options) if prune and cascade.bounds else []
        rows = question.queries.to(self.index.dtype)
        self.own = {
            bound.rank: step_coordinates(rows, self.index.directions[: bound.rank - 1], self.unit)
            for bound in self.bounds
        }
        self.dropped: set[int] = set()
        # Pairs that bounds have left: queries, items, bounds.
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        # Pairs that may be among the nearest: queries, items, least that their distances can be.
        self._close: list[tuple[Tensor, Tensor, Tensor]] = []
        if not report.stages and self.bounds:
            report.stages += [StageReport(bound.name) for bound in self.bounds] + [StageReport(STOPPED)]

    def run(self, nearest: Nearest) -> None:
        # By the most that distances can be.
        at_most = Nearest(len(self.ask.queries), nearest.k, self.index.dtype, self.index.device)
        at_most.distances[:] = nearest.distances
        size = max(1, _HELD // len(self.ask.queries))
        for begin in range(0, len(self.index), size):
            items = torch.arange(begin, min(begin + size, len(self.index)), device=self.index.device)
            (self._bounded if self.bounds else self._all)(at_most, items)
            self._leave_far(at_most)
        self._try_waiting(at_most)
        self._leave_far(at_most)
        for pairs in self._close:
            nearest.try_in_order(*pairs, self._alone)

    def _leave_far(self, at_most: Nearest) -> None:
        """Of the pairs that were close, keeps those that still are."""
        if self._close:
            queries, items, least = (torch.cat(parts) for parts in zip(*self._close, strict=True))
            limits = at_most.limits[queries]
            # Among equals, as where many are infinitely far, there are k of lower index.
            close = (least < limits) | ((least == limits) & (items <= at_most.items[queries, -1]))
            self._close = [(queries[close], items[close], least[close])]

    def _between(self, queries: Tensor, items: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the most that distances of pairs can be, by what was found of them in some company: of one
        shape."""
        around = self.uncertainty(queries, items)
        least = (found - around).nan_to_num(nan=-torch.inf, posinf=torch.inf)
        return least, (found + around).nan_to_num(nan=torch.inf, posinf=torch.inf)

    def _all(self, nearest: Nearest, items: Tensor, alive: Tensor | None = None) -> None:
        """All pairs of a block at once, those that are `alive` (Q, B) to be tried."""
        for chosen in torch.arange(len(items), device=items.device).split(self.index.block):
            queries = torch.arange(len(self.ask.queries), device=items.device)
            found = no_nan(self.ask.all_pairs(queries, items[chosen]))
            least, most = self._between(queries[:, None], items[chosen], found)
            within = least <= nearest.limits[:, None]
            asked = torch.ones_like(within) if alive is None else alive[:, chosen]
            self.report.scored += int(asked.sum())
            rows, places = (within & asked).nonzero(as_tuple=True)
            nearest.offer(rows, items[chosen[places]], most[rows, places])
            self._close.append((rows, items[chosen[places]], least[rows, places]))

    def _bounded(self, nearest: Nearest, items: Tensor) -> None:
        """All pairs of a block."""
        every = torch.arange(len(self.ask.queries), device=items.device)
        allowed = self.uncertainty(every[:, None], items)
        bounds = torch.full_like(allowed, -torch.inf)
        alive = torch.ones_like(allowed, dtype=torch.bool)
        for number, bound in enumerate(self.bounds):
            if number in self.dropped or not alive.any():
                continue
            rows, places = alive.nonzero(as_tuple=True)
            found = self.bound(bound, items, (rows, places))
            found = (found - allowed[rows, places]).nan_to_num(nan=-torch.inf, posinf=torch.inf)
            bounds[rows, places] = torch.maximum(bounds[rows, places], found)
            if nearest.limits.isinf().any():
                self._seed(nearest, items, bounds, alive)
            stage = self.report.stages[number]
            before = int(alive.sum())
            alive &= bounds <= nearest.limits[:, None]
            stage.seen += before
            stage.removed += before - int(alive.sum())
            if stage.seen >= _ENOUGH and stage.removed < (1 - _WORTH) * stage.seen:
                self.dropped.add(number)
        if int(alive.sum()) > _CROWD_SCORED * alive.numel():
            self._all(nearest, items, alive)
            return
        rows, places = alive.nonzero(as_tuple=True)
        self._waiting.append((rows, items[places], bounds[rows, places]))
        if sum(len(pairs[0]) for pairs in self._waiting) >= _WAITING:
            self._try_waiting(nearest)

    def _try_waiting(self, nearest: Nearest) -> None:
        if self._waiting:
            queries, items, bounds = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            scored = nearest.try_in_order(queries, items, bounds, self._score)
            self.report.stages[-1].seen += len(queries)
            self.report.stages[-1].removed += len(queries) - scored

    def bound(self, bound: Bound, items: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Of pairs of queries (P,), ascending, and places (P,) among the items (B,): (P,)."""
        rows, places = pairs

        def of(queries: slice, items: Tensor) -> Tensor:
            steps = self.ask.sides(self.own[bound.rank][queries], self.index.coordinates(bound.rank, self.unit)[items])
            found = bound.of(*steps, *self.ask.sides(self.ask.lengths[queries], self.index.lengths[items]))
            return found if self.ask.queries_are == "x" else found.T

        if len(rows) > _CROWDED * len(self.ask.queries) * len(items):
            return of(slice(None), items)[rows, places]
        return self._by_query(rows, items[places], lambda query, some: of(slice(query, query + 1), some)[0])

    def _by_query(self, queries: Tensor, items: Tensor, of: Callable[[int, Tensor], Tensor]) -> Tensor:
        """`of(query, its items)` of pairs (P,) whose queries ascend, (P,): the kernels are quickest where one sequence
        meets many."""
        out = self.index.norms.new_empty(len(queries))
        distinct, counts = queries.unique_consecutive(return_counts=True)
        begin = 0
        for query, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            for first in range(begin, begin + count, self.index.block):
                some = slice(first, min(first + self.index.block, begin + count))
                out[some] = of(query, items[some])
            begin += count
        return out

    def _seed(self, nearest: Nearest, items: Tensor, bounds: Tensor, alive: Tensor) -> None:
        """Scores the k pairs of each query whose bounds are least, so that there is something that bounds can exceed;
        they are not alive afterwards."""
        places = bounds.topk(min(nearest.k, len(items)), largest=False).indices
        rows = torch.arange(len(places), device=places.device)[:, None].expand_as(places)
        first = alive[rows, places]
        rows, places = rows[first], places[first]
        alive[rows, places] = False
        nearest.try_in_order(rows, items[places], bounds[rows, places], self._score)

    def _score(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        """The most that distances (P,) of pairs can be; those that may be within their limit are noted down."""
        self.report.scored += len(queries)

        def fast(query: int, items: Tensor) -> Tensor:
            return no_nan(self.ask.all_pairs(torch.tensor([query], device=items.device), items)[0])

        least, most = self._between(queries, items, self._by_query(queries, items, fast))
        close = least <= limits
        self._close.append((queries[close], items[close], least[close]))
        return most

    def _alone(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        return no_nan(self.ask.all_alone(queries, items, limits))

    def uncertainty(self, queries: Tensor, items: Tensor) -> Tensor:
        """How far rounding may move a distance or a bound: (P,) of lists of pairs (P,)."""
        reach = self.ask.query_norms[queries] + self.index.norms[items]
        cost = 2 * torch.ones_like(reach) if self.unit else reach if self.cost == "euclidean" else reach.square()
        cell = 4 * of_cells(self.index.like) * cost
        steps = self.ask.lengths[queries] + self.index.lengths[items]
        scale = PairScale(cost, cell, steps, unit_roundoff(self.index.like))
        return self.cascade.rounding(scale, self.ask.options)
