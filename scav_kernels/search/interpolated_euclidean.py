"""Search by interpolated Euclidean distance: bounds from means of segments, then distances pair by pair."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.registry import SearchMethod, register_search
from scav_kernels.search.kernels import (
    LANES,
    aligned_nearest,
    aligned_survivors,
    crowd_interpolated_euclidean,
    listed_interpolated_euclidean,
    segment_means,
)
from scav_kernels.search.nearest import Nearest, no_nan
from scav_kernels.search.question import Question
from scav_kernels.search.report import CANDIDATES, STOPPED, SearchReport, StageReport
from scav_kernels.search.rounding import of_cells, of_summaries
from scav_kernels.search.summaries import DENSE, LISTED, Level, in_coordinates, in_fewer, turned

# Pairs whose bounds are held at a time.
_HELD = 1 << 20
# A bound of all pairs that leaves more than this share of at least so many is dropped for the rest of the search.
_WORTH = 0.5
_ENOUGH = _HELD // 16
# Above this share, the pairs that bounds leave are quicker scored with those that they removed.
_CROWDED = 0.125
# So many pairs that bounds leave are tried together.
_WAITING = 1 << 14


class Section(NamedTuple):
    """Queries and items [first, end) of the index's order that are compared at one number of steps."""

    queries: Tensor
    first: int
    end: int
    target: int


class AlignedSearch:
    def __init__(self, question: Question, prune: bool, report: SearchReport) -> None:
        self.ask = question
        self.index = question.index
        self.squared = question.options["squared"]
        self.report = report
        self.prune = prune
        if prune and not report.stages:
            names = [CANDIDATES] if question.candidates else [level.name for level in (*DENSE, LISTED)]
            report.stages += [StageReport(name) for name in (*names, STOPPED)]
        longest = max(question.queries.shape[1], self.index.like.shape[1])
        self.slack = of_summaries(self.index.like, longest)
        self.power = 2 if self.squared else 1
        self.dropped: set[int] = set()
        if prune:
            beyond = (
                torch.arange(question.queries.shape[1], device=question.lengths.device) >= question.lengths[:, None]
            )
            steps = question.queries.to(self.index.dtype).masked_fill(beyond[:, :, None], 0)
            finite = question.query_norms.isfinite()
            # A query that is not finite is found out by its norm.
            self.steps = turned(steps.masked_fill(~finite[:, None, None], 0), self.index.directions)
            self.is_turned = self.steps.shape[2] < steps.shape[2]
        self._kept: dict[tuple[int, int, Level], Tensor] = {}
        # Pairs that all bounds have left: queries, items, bounds.
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(self, nearest: Nearest) -> None:
        sections = list(self._sections())
        if self.ask.candidates:
            self._approximate(nearest, sections, self.ask.candidates)
            return
        if self.prune:
            seeds = self._seed(nearest, sections)
            for section in sections:
                self._section(nearest, section, seeds)
            self._try_waiting(nearest)
            return
        for section in sections:
            for begin, end, _ in self._blocks(section):
                self.report.scored += len(section.queries) * (end - begin)
                self._crowd(nearest, section, self.index.order[begin:end])

    def _sections(self) -> Iterator[Section]:
        """Every pair in one of them."""
        ask, index = self.ask, self.index
        resample = ask.options["resample"]
        longest = int(max(ask.queries.shape[1], index.like.shape[1]))
        every = torch.arange(len(ask.queries), device=index.device)

        def onto_items(length: int) -> Tensor:
            return every[ask.lengths <= length] if resample == "shorter" else every

        def shorter_than(length: int) -> int:
            return length - 1 if resample == "shorter" else longest

        if resample == "shorter" or resample == ask.queries_are:
            for length in index.distinct_lengths():
                if len(queries := onto_items(length)):
                    yield Section(queries, *index.range_of_lengths(length, length), length)
        if resample == "shorter" or resample != ask.queries_are:
            for length in ask.lengths.unique().tolist():
                first, end = index.range_of_lengths(1, shorter_than(length))
                if first < end:
                    yield Section(every[ask.lengths == length], first, end, length)

    def _own(self, section: Section, level: Level) -> Tensor:
        """Summaries of the section's queries, (Q, S, R)."""
        key = (section.first, section.target, level)
        if key not in self._kept:
            segments = min(level.segments, section.target)
            means = segment_means(self.steps, self.ask.lengths, section.queries, section.target, segments, self.squared)
            self._kept[key] = (
                in_fewer(means, level.rank)
                if self.is_turned
                else in_coordinates(means, self.index.directions[: level.rank - 1])
            )
        return self._kept[key]

    def _allowed(self, reach: Tensor) -> Tensor:
        """What rounding may have added to a bound."""
        smallest = torch.finfo(reach.dtype).tiny ** 0.5 * self.index.like.shape[2]
        return self.slack * reach**self.power + smallest**self.power

    def _blocks(self, section: Section) -> Iterator[tuple[int, int, slice]]:
        """Items order[begin:end], and their panels."""
        block = max(LANES, _HELD // len(section.queries) // LANES * LANES)
        for begin in range(section.first, section.end, block):
            end = min(begin + block, section.end)
            yield begin, end, slice((begin - section.first) // LANES, -(-(end - section.first) // LANES))

    def _panels(self, section: Section, number: int) -> Tensor:
        return self.index.panels(section.first, section.end, section.target, self.squared).dense[number]

    def _least(self, sections: list[Section], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each query the pairs, at most `count`, whose bounds of all pairs are least: queries, places in the index's
        order, and bounds without allowance for rounding, (P,) each."""
        bounds = self.index.norms.new_full((len(self.ask.queries), count), torch.inf)
        places = torch.full(bounds.shape, -1, device=bounds.device)
        finest = len(DENSE) - 1
        for section in sections:
            chosen, items = section.queries, section.end - section.first
            own, panels = self._own(section, DENSE[finest]), self._panels(section, finest)
            bounds[chosen], places[chosen] = aligned_nearest(
                own, panels, items, section.first, bounds[chosen], places[chosen], self.squared
            )
        rows, ranks = (places >= 0).nonzero(as_tuple=True)
        return rows, places[rows, ranks], bounds[rows, ranks]

    def _seed(self, nearest: Nearest, sections: list[Section]) -> tuple[Tensor, Tensor]:
        """Scores, of each query, the k pairs whose bounds are least and within its limit, so that there is something
        that bounds can exceed; these pairs: queries, places in the index's order."""
        rows, places, bounds = self._least(sections, nearest.k)
        allowed = self._allowed(self.ask.query_norms[rows] + self.index.norms[self.index.order[places]])
        within = ~(bounds - allowed > nearest.limits[rows])
        rows, places = rows[within], places[within]
        self.report.scored += len(rows)
        items = self.index.order[places]
        nearest.offer(rows, items, self._score(rows, items, nearest.limits[rows]))
        return rows, places

    def _approximate(self, nearest: Nearest, sections: list[Section], count: int) -> None:
        """Scores, of each query, at most `count` pairs whose bounds of all pairs are least."""
        queries, places, bounds = self._least(sections, count)
        items = self.index.order[places]
        allowed = self._allowed(self.ask.query_norms[queries] + self.index.norms[items])
        pairs = len(self.ask.queries) * len(self.index)
        self.report.stages[0].seen += pairs
        self.report.stages[0].removed += pairs - len(queries)
        self._try(nearest, queries, items, bounds - allowed)

    def _section(self, nearest: Nearest, section: Section, seeds: tuple[Tensor, Tensor]) -> None:
        row_of = torch.full((len(self.ask.queries),), -1, device=section.queries.device)
        row_of[section.queries] = torch.arange(len(section.queries), device=row_of.device)
        for begin, end, some in self._blocks(section):
            items = self.index.order[begin:end]
            panels = some.stop - some.start
            skip = torch.zeros(len(section.queries), panels * LANES, dtype=torch.bool, device=items.device)
            skip[:, len(items) :] = True
            done = (row_of[seeds[0]] >= 0) & (seeds[1] >= begin) & (seeds[1] < end)
            skip[row_of[seeds[0][done]], seeds[1][done] - begin] = True
            asked = len(section.queries) * len(items) - int(done.sum())
            rows, places, bounds = self._survivors(nearest, section, items, some, skip, asked)
            reach = self.ask.query_norms[section.queries[rows]] + self.index.norms[items[places]]
            allowed = self._allowed(reach)
            bounds = (bounds - allowed).nan_to_num(nan=-torch.inf, posinf=torch.inf)
            if len(rows) > _CROWDED * skip.numel():
                self.report.scored += len(rows)
                self._crowd(nearest, section, items, (rows, places, bounds))
            elif len(rows):
                self._few(nearest, section, begin, (rows, places, bounds), allowed)

    def _survivors(
        self, nearest: Nearest, section: Section, items: Tensor, some: slice, skip: Tensor, asked: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of a block, `asked` in all, that no bound of all pairs removes: rows, places, and bounds without
        allowance for rounding, (P,) each."""
        used = [number for number in range(len(DENSE)) if number not in self.dropped]
        if not used:
            rows, places = (~skip).nonzero(as_tuple=True)
            return rows, places, self.index.norms.new_full(rows.shape, -torch.inf)
        # What is not finite is compared all the same: its bound is not a number.
        farthest = self.index.norms[items].nan_to_num(posinf=0).amax()
        most = nearest.limits[section.queries] + self._allowed(self.ask.query_norms[section.queries] + farthest)
        rows, places, bounds, removed = aligned_survivors(
            [self._own(section, DENSE[number]) for number in used],
            [self._panels(section, number)[some] for number in used],
            most,
            skip,
            self.squared,
        )
        left = asked
        for number, gone in zip(used, removed.tolist(), strict=True):
            stage = self.report.stages[number]
            stage.seen += left
            stage.removed += gone
            if gone < (1 - _WORTH) * left and left >= _ENOUGH:
                self.dropped.add(number)
            left -= gone
        return rows, places, bounds

    def _few(
        self,
        nearest: Nearest,
        section: Section,
        begin: int,
        pairs: tuple[Tensor, Tensor, Tensor],
        allowed: Tensor,
    ) -> None:
        """A finer bound of the pairs that are left, and what that leaves in order."""
        rows, places, bounds = pairs
        queries, places = section.queries[rows], places + begin
        own = self._own(section, LISTED)
        theirs = self.index.panels(section.first, section.end, section.target, self.squared).listed
        steps = own.shape[1]
        limits = (nearest.limits[queries] + allowed).nan_to_num(nan=torch.inf) / steps
        # As exact as a bound: twice a unit in the last place, of which `allowed` has hundreds.
        sums = steps * listed_interpolated_euclidean(
            own, theirs, None, None, rows, places - section.first, limits, self.squared, "x"
        )
        bounds = torch.maximum(bounds, (sums - allowed).nan_to_num(nan=-torch.inf, posinf=torch.inf))
        alive = bounds <= nearest.limits[queries]
        stage = self.report.stages[len(DENSE)]
        stage.seen += len(rows)
        stage.removed += len(rows) - int(alive.sum())
        self._waiting.append((queries[alive], self.index.order[places[alive]], bounds[alive]))
        if sum(len(pairs[0]) for pairs in self._waiting) >= _WAITING:
            self._try_waiting(nearest)

    def _try_waiting(self, nearest: Nearest) -> None:
        if not self._waiting:
            return
        queries, items, bounds = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting = []
        self._try(nearest, queries, items, bounds)

    def _try(self, nearest: Nearest, queries: Tensor, items: Tensor, bounds: Tensor) -> None:
        """Pairs (P,) in the order of their bounds, which rounding has been allowed for."""
        scored = nearest.try_in_order(queries, items, bounds, self._score)
        self.report.scored += scored
        self.report.stages[-1].seen += len(queries)
        self.report.stages[-1].removed += len(queries) - scored

    def _crowd(
        self,
        nearest: Nearest,
        section: Section,
        items: Tensor,
        pairs: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        """All pairs at once; those that may be among the nearest, up to rounding, are then scored alone. Of `pairs`,
        rows, places and lower bounds (P,), no others are asked for."""
        ask, index, queries = self.ask, self.index, section.queries
        if index.is_read and len(items) > index.block:
            for begin in range(0, len(items), index.block):
                some = None
                if pairs is not None:
                    rows, places, bounds = pairs
                    here = (places >= begin) & (places < begin + index.block)
                    some = rows[here], places[here] - begin, bounds[here]
                self._crowd(nearest, section, items[begin : begin + index.block], some)
            return
        steps, lengths, chosen = index.held(items)
        fast = crowd_interpolated_euclidean(
            ask.queries, steps, ask.lengths, lengths, queries, chosen, section.target, self.squared
        )
        reach = ask.query_norms[queries][:, None] + index.norms[items]
        uncertain = self._allowed(reach) + of_cells(index.like) * reach**self.power
        limits = nearest.limits[queries]
        lower = (fast - uncertain).nan_to_num(nan=-torch.inf, posinf=torch.inf)
        if pairs is None:
            if len(items) >= nearest.k:
                # There are k in this block that are no farther.
                upper = fast.add_(uncertain).nan_to_num(nan=torch.inf, posinf=torch.inf)
                limits = torch.minimum(limits, upper.kthvalue(nearest.k, 1).values)
            rows, places = (lower <= limits[:, None]).nonzero(as_tuple=True)
            bounds = lower[rows, places]
        else:
            rows, places, bounds = pairs
            bounds = torch.maximum(bounds, lower[rows, places])
            within = bounds <= limits[rows]
            rows, places, bounds = rows[within], places[within], bounds[within]
        nearest.try_in_order(queries[rows], items[places], bounds, self._score)

    def _score(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        ask, index = self.ask, self.index
        some = index.block if index.is_read else max(1, len(items))
        found = []
        for own, chosen, most in zip(queries.split(some), items.split(some), limits.split(some), strict=True):
            held, held_lengths, places = index.held(chosen)
            steps, lengths, pairs = (
                ask.sides(ask.queries, held),
                ask.sides(ask.lengths, held_lengths),
                ask.sides(own, places),
            )
            found.append(
                listed_interpolated_euclidean(*steps, *lengths, *pairs, most, self.squared, ask.options["resample"])
            )
        distances = torch.cat(found) if found else limits.new_empty(0)
        self.report.abandoned += int((distances.isinf() & limits.isfinite()).sum())
        return no_nan(distances)


def _find(request: Question, prune: bool, report: SearchReport, nearest: Nearest) -> None:
    AlignedSearch(request, prune, report).run(nearest)


register_search("interpolated_euclidean", SearchMethod(_find, has_bounds=True, takes_candidates=True))
