"""Search by interpolated Euclidean distance: bounds from means of segments, then distances pair by pair."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from scav_kernels.search.kernels import LANES, aligned_bounds, listed_interpolated_euclidean
from scav_kernels.search.nearest import Nearest, no_nan
from scav_kernels.search.question import Question
from scav_kernels.search.report import STOPPED, SearchReport, StageReport
from scav_kernels.search.rounding import of_cells, of_summaries
from scav_kernels.search.summaries import in_coordinates, in_fewer, ragged_segment_means, turned


class Level(NamedTuple):
    """A bound from the means of `segments` segments, in `rank` coordinates."""

    segments: int
    rank: int

    @property
    def name(self) -> str:
        return "pooled vectors" if self.segments == 1 else f"means of {self.segments} segments"


# Those of all pairs of a block, and the one of the pairs that they leave.
DENSE = (Level(1, 16), Level(4, 16), Level(16, 8))
LISTED = Level(32, 32)
# Pairs whose bounds are held at a time.
_HELD = 1 << 20
# A bound of all pairs that leaves more than this share of at least so many is dropped for the rest of the search.
_WORTH = 0.5
_ENOUGH = _HELD // 16
# Above this share, the pairs that bounds leave are quicker scored with those that they removed.
_CROWDED = 0.125


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
            report.stages += [StageReport(level.name) for level in (*DENSE, LISTED)] + [StageReport(STOPPED)]
        longest = max(question.queries.shape[1], self.index.steps.shape[1])
        self.slack = of_summaries(self.index.steps, longest)
        self.power = 2 if self.squared else 1
        self.dropped: set[int] = set()
        beyond = torch.arange(question.queries.shape[1], device=question.lengths.device) >= question.lengths[:, None]
        steps = question.queries.to(self.index.dtype).masked_fill(beyond[:, :, None], 0)
        finite = question.query_norms.isfinite()
        # A query that is not finite is found out by its norm.
        self.steps = turned(steps.masked_fill(~finite[:, None, None], 0), self.index.directions) if prune else steps
        self.is_turned = self.steps.shape[2] < steps.shape[2]
        self._kept: dict[tuple[int, int, Level], Tensor] = {}

    def run(self, nearest: Nearest) -> None:
        if self.prune:
            sections = list(self._sections())
            seeds = self._seed(nearest, sections)
            for section in sections:
                self._section(nearest, section, seeds)
            return
        queries = torch.arange(len(self.ask.queries), device=self.index.steps.device)
        for begin in range(0, len(self.index), self.index.block):
            items = torch.arange(begin, min(begin + self.index.block, len(self.index)), device=queries.device)
            self.report.scored += len(queries) * len(items)
            self._crowd(nearest, queries, items, None, None)

    def _sections(self) -> Iterator[Section]:
        """Every pair in one of them."""
        ask, index = self.ask, self.index
        resample = ask.options["resample"]
        longest = int(max(ask.queries.shape[1], index.steps.shape[1]))
        every = torch.arange(len(ask.queries), device=index.steps.device)

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
            means = ragged_segment_means(
                self.steps[section.queries],
                self.ask.lengths[section.queries],
                section.target,
                level.segments,
                self.squared,
            )
            self._kept[key] = (
                in_fewer(means, level.rank)
                if self.is_turned
                else in_coordinates(means, self.index.directions[: level.rank - 1])
            )
        return self._kept[key]

    def _allowed(self, reach: Tensor) -> Tensor:
        """What rounding may have added to a bound."""
        smallest = torch.finfo(reach.dtype).tiny ** 0.5 * self.index.steps.shape[2]
        return self.slack * reach**self.power + smallest**self.power

    def _blocks(self, section: Section) -> Iterator[tuple[int, int, slice]]:
        """Items order[begin:end], and their panels."""
        block = max(LANES, _HELD // len(section.queries) // LANES * LANES)
        for begin in range(section.first, section.end, block):
            end = min(begin + block, section.end)
            yield begin, end, slice((begin - section.first) // LANES, -(-(end - section.first) // LANES))

    def _panels(self, section: Section, level: Level) -> Tensor:
        return self.index.panels(section.first, section.end, section.target, *level, self.squared)

    def _seed(self, nearest: Nearest, sections: list[Section]) -> tuple[Tensor, Tensor]:
        """Scores, of each query, the k pairs whose bounds are least and within its limit, so that there is something
        that bounds can exceed; these pairs: queries, places in the index's order."""
        least = Nearest(len(self.ask.queries), nearest.k, self.index.dtype, self.index.steps.device)
        for section in sections:
            own, panels = self._own(section, DENSE[-1]), self._panels(section, DENSE[-1])
            for begin, end, some in self._blocks(section):
                sums = aligned_bounds(own, panels[some], least.limits[section.queries], self.squared)
                sums = no_nan(sums[:, : end - begin])
                found, places = sums.topk(min(nearest.k, end - begin), largest=False, sorted=False)
                rows = section.queries[:, None].expand_as(places)
                least.offer(rows.flatten(), places.flatten() + begin, found.flatten())
        queries = torch.arange(len(least.items), device=least.items.device)[:, None].expand_as(least.items)
        rows, places = queries.flatten(), least.items.flatten()
        allowed = self._allowed(self.ask.query_norms[rows] + self.index.norms[self.index.order[places]])
        within = ~(least.distances.flatten() - allowed > nearest.limits[rows])
        rows, places = rows[within], places[within]
        self.report.scored += len(rows)
        limits = least.distances.new_full((len(rows),), torch.inf)
        items = self.index.order[places]
        nearest.offer(rows, items, self._score(rows, items, limits))
        return rows, places

    def _section(self, nearest: Nearest, section: Section, seeds: tuple[Tensor, Tensor]) -> None:
        level_of = {number: level for number, level in enumerate(DENSE) if number not in self.dropped}
        own = {number: self._own(section, level) for number, level in level_of.items()}
        row_of = torch.full((len(self.ask.queries),), -1, device=section.queries.device)
        row_of[section.queries] = torch.arange(len(section.queries), device=row_of.device)
        for begin, end, some in self._blocks(section):
            queries, items = section.queries, self.index.order[begin:end]
            reach = self.ask.query_norms[queries][:, None] + self.index.norms[items]
            pairs = _Pairs(queries, items, self._allowed(reach))
            done = (row_of[seeds[0]] >= 0) & (seeds[1] >= begin) & (seeds[1] < end)
            pairs.alive[row_of[seeds[0][done]], seeds[1][done] - begin] = False
            for number, level in level_of.items():
                if number not in self.dropped:
                    self._thin(nearest, pairs, number, own[number], self._panels(section, level)[some])
            left = int(pairs.alive.sum())
            if left > _CROWDED * pairs.alive.numel():
                self.report.scored += left
                for start in range(0, len(items), self.index.block):
                    part = slice(start, start + self.index.block)
                    self._crowd(nearest, queries, items[part], pairs.alive[:, part], pairs.bounds[:, part])
            elif left:
                self._few(nearest, section, begin, pairs)

    def _thin(self, nearest: Nearest, pairs: "_Pairs", number: int, own: Tensor, panels: Tensor) -> None:
        """A bound of all pairs of a block."""
        stage = self.report.stages[number]
        limits = nearest.limits[pairs.queries]
        most = limits + pairs.allowed.nan_to_num(posinf=0).amax(1)
        sums = aligned_bounds(own, panels, most, self.squared)[:, : len(pairs.items)]
        # What is not a number removes no pair.
        pairs.bounds = torch.maximum(pairs.bounds, (sums - pairs.allowed).nan_to_num(nan=-torch.inf, posinf=torch.inf))
        before = int(pairs.alive.sum())
        pairs.alive &= pairs.bounds <= limits[:, None]
        left = int(pairs.alive.sum())
        stage.seen += before
        stage.removed += before - left
        if left > _WORTH * before and before >= _ENOUGH:
            self.dropped.add(number)

    def _few(self, nearest: Nearest, section: Section, begin: int, pairs: "_Pairs") -> None:
        """A finer bound of the pairs that are left, and what that leaves in order."""
        rows, places = pairs.alive.nonzero(as_tuple=True)
        queries, items = pairs.queries[rows], pairs.items[places]
        bounds, allowed = pairs.bounds[rows, places], pairs.allowed[rows, places]
        own = self._own(section, LISTED)
        theirs = self.index.summaries(section.first, section.end, section.target, *LISTED, self.squared)
        steps = own.shape[1]
        limits = (nearest.limits[queries] + allowed).nan_to_num(nan=torch.inf) / steps
        # As exact as a bound: twice a unit in the last place, of which `allowed` has hundreds.
        sums = steps * self._listed(own, theirs, rows, places + begin - section.first, limits)
        bounds = torch.maximum(bounds, (sums - allowed).nan_to_num(nan=-torch.inf, posinf=torch.inf))
        alive = bounds <= nearest.limits[queries]
        stage = self.report.stages[len(DENSE)]
        stage.seen += len(rows)
        stage.removed += len(rows) - int(alive.sum())
        self._offer(nearest, queries[alive], items[alive], bounds[alive])

    def _listed(self, own: Tensor, theirs: Tensor, rows: Tensor, places: Tensor, limits: Tensor) -> Tensor:
        return listed_interpolated_euclidean(own, theirs, None, None, rows, places, limits, self.squared, "x")

    def _crowd(
        self, nearest: Nearest, queries: Tensor, items: Tensor, alive: Tensor | None, bounds: Tensor | None
    ) -> None:
        """All pairs at once; those that may be among the nearest, up to rounding, are then scored alone."""
        fast = self.ask.all_pairs(queries, items)
        reach = self.ask.query_norms[queries][:, None] + self.index.norms[items]
        lower = fast - self._allowed(reach) - of_cells(self.index.steps) * reach**self.power
        lower = lower.nan_to_num(nan=-torch.inf, posinf=torch.inf)
        if bounds is not None:
            lower = torch.maximum(lower, bounds)
        within = lower <= nearest.limits[queries][:, None]
        rows, places = (within if alive is None else within & alive).nonzero(as_tuple=True)
        nearest.try_in_order(queries[rows], items[places], lower[rows, places], self._score)

    def _offer(self, nearest: Nearest, queries: Tensor, items: Tensor, bounds: Tensor) -> None:
        scored = nearest.try_in_order(queries, items, bounds, self._score)
        self.report.scored += scored
        self.report.stages[-1].seen += len(queries)
        self.report.stages[-1].removed += len(queries) - scored

    def _score(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        ask = self.ask
        steps, lengths, pairs = (
            ask.sides(ask.queries, self.index.steps),
            ask.sides(ask.lengths, self.index.lengths),
            ask.sides(queries, items),
        )
        found = listed_interpolated_euclidean(*steps, *lengths, *pairs, limits, self.squared, ask.options["resample"])
        self.report.abandoned += int((found.isinf() & limits.isfinite()).sum())
        return no_nan(found)


class _Pairs:
    """Pairs of a block: lower bounds, and which may still be among the nearest, (Q, B) both."""

    def __init__(self, queries: Tensor, items: Tensor, allowed: Tensor) -> None:
        self.queries, self.items, self.allowed = queries, items, allowed
        self.alive = torch.ones(allowed.shape, dtype=torch.bool, device=allowed.device)
        self.bounds = torch.full_like(allowed, -torch.inf)
