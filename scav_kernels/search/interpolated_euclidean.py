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
    all_pairs_interpolated_euclidean,
    listed_interpolated_euclidean,
    segment_means,
)
from scav_kernels.search.nearest import RunningTopK, no_nan
from scav_kernels.search.report import CANDIDATES, STOPPED, SearchReport, StageReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import cost_rounding, summary_rounding
from scav_kernels.search.summaries import DENSE, LISTED, Level, project, project_rotated, rotate

# Pairs whose bounds are in memory at a time.
_BLOCK_PAIRS = 1 << 20
# Drop a bound for the rest of the search if it leaves more than this share of at least this number of pairs.
_MAX_REMAINING = 0.5
_MIN_SEEN = _BLOCK_PAIRS // 16
# If bounds leave more than this share of a block, computing the whole block is faster.
_DENSE_SHARE = 0.125
# Score this number of remaining pairs together.
_PENDING_PAIRS = 1 << 14


class Section(NamedTuple):
    """Queries and items, [first, end) of the index's order, that are compared after resampling to `target` steps."""

    queries: Tensor
    first: int
    end: int
    target: int


class AlignedSearch:
    """Search in four stages: seeds, bounds of all pairs, a finer bound of the remaining pairs, distances."""

    def __init__(self, request: SearchRequest, prune: bool, report: SearchReport) -> None:
        self.request = request
        self.index = request.index
        self.squared = request.options["squared"]
        self.report = report
        self.prune = prune
        if prune and not report.stages:
            names = [CANDIDATES] if request.candidates else [level.name for level in (*DENSE, LISTED)]
            report.stages += [StageReport(name) for name in (*names, STOPPED)]
        longest = max(request.queries.shape[1], self.index.like.shape[1])
        self.slack = summary_rounding(self.index.like, longest)
        self.power = 2 if self.squared else 1
        self.dropped: set[int] = set()
        if prune:
            beyond = torch.arange(request.queries.shape[1], device=request.lengths.device) >= request.lengths[:, None]
            steps = request.queries.to(self.index.dtype).masked_fill(beyond[:, :, None], 0)
            finite = request.query_norms.isfinite()
            # The norm marks a query that is not finite.
            self.steps = rotate(steps.masked_fill(~finite[:, None, None], 0), self.index.directions)
            self.is_rotated = self.steps.shape[2] < steps.shape[2]
        self._means: dict[tuple[int, int, Level], Tensor] = {}
        # Pairs that no bound removed: queries, items, bounds.
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []

    def run(self, top_k: RunningTopK) -> None:
        sections = list(self._sections())
        if self.request.candidates:
            self._score_candidates(top_k, sections, self.request.candidates)
            return
        if self.prune:
            seeds = self._seed(top_k, sections)
            for section in sections:
                self._search_section(top_k, section, seeds)
            self._score_pending(top_k)
            return
        for section in sections:
            for begin, end, _ in self._blocks(section):
                self.report.scored += len(section.queries) * (end - begin)
                self._score_block(top_k, section, self.index.order[begin:end])

    def _sections(self) -> Iterator[Section]:
        """Yield sections that contain each pair once."""
        request, index = self.request, self.index
        resample = request.options["resample"]
        longest = int(max(request.queries.shape[1], index.like.shape[1]))
        all_queries = torch.arange(len(request.queries), device=index.device)

        def onto_items(length: int) -> Tensor:
            return all_queries[request.lengths <= length] if resample == "shorter" else all_queries

        def shorter_than(length: int) -> int:
            return length - 1 if resample == "shorter" else longest

        if resample == "shorter" or resample == request.queries_are:
            for length in index.distinct_lengths():
                if len(queries := onto_items(length)):
                    yield Section(queries, *index.range_of_lengths(length, length), length)
        if resample == "shorter" or resample != request.queries_are:
            for length in request.lengths.unique().tolist():
                first, end = index.range_of_lengths(1, shorter_than(length))
                if first < end:
                    yield Section(all_queries[request.lengths == length], first, end, length)

    def _query_means(self, section: Section, level: Level) -> Tensor:
        """Return means of segments of the section's queries, (Q, S, R)."""
        key = (section.first, section.target, level)
        if key not in self._means:
            segments = min(level.segments, section.target)
            means = segment_means(
                self.steps, self.request.lengths, section.queries, section.target, segments, self.squared
            )
            self._means[key] = (
                project_rotated(means, level.rank)
                if self.is_rotated
                else project(means, self.index.directions[: level.rank - 1])
            )
        return self._means[key]

    def _rounding(self, reach: Tensor) -> Tensor:
        """Return an upper limit of what rounding can add to a bound."""
        smallest = torch.finfo(reach.dtype).tiny ** 0.5 * self.index.like.shape[2]
        return self.slack * reach**self.power + smallest**self.power

    def _blocks(self, section: Section) -> Iterator[tuple[int, int, slice]]:
        """Yield blocks of items, order[begin:end], and their panels."""
        block = max(LANES, _BLOCK_PAIRS // len(section.queries) // LANES * LANES)
        for begin in range(section.first, section.end, block):
            end = min(begin + block, section.end)
            yield begin, end, slice((begin - section.first) // LANES, -(-(end - section.first) // LANES))

    def _panels(self, section: Section, number: int) -> Tensor:
        return self.index.panels(section.first, section.end, section.target, self.squared).dense[number]

    def _smallest_bounds(self, sections: list[Section], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return at most `count` pairs of each query, those with the smallest bounds.

        Returns queries, places in the index's order, and bounds without the allowance for rounding, (P,) each.
        """
        bounds = self.index.norms.new_full((len(self.request.queries), count), torch.inf)
        places = torch.full(bounds.shape, -1, device=bounds.device)
        finest = len(DENSE) - 1
        for section in sections:
            chosen, items = section.queries, section.end - section.first
            means_x, panels = self._query_means(section, DENSE[finest]), self._panels(section, finest)
            bounds[chosen], places[chosen] = aligned_nearest(
                means_x, panels, items, section.first, bounds[chosen], places[chosen], self.squared
            )
        rows, ranks = (places >= 0).nonzero(as_tuple=True)
        return rows, places[rows, ranks], bounds[rows, ranks]

    def _seed(self, top_k: RunningTopK, sections: list[Section]) -> tuple[Tensor, Tensor]:
        """Score the k pairs of each query with the smallest bounds, so that later bounds have a limit to exceed.

        Returns these pairs: queries, places in the index's order.
        """
        rows, places, bounds = self._smallest_bounds(sections, top_k.k)
        rounding = self._rounding(self.request.query_norms[rows] + self.index.norms[self.index.order[places]])
        within = ~(bounds - rounding > top_k.limits[rows])
        rows, places = rows[within], places[within]
        self.report.scored += len(rows)
        items = self.index.order[places]
        top_k.add(rows, items, self._score(rows, items, top_k.limits[rows]))
        return rows, places

    def _score_candidates(self, top_k: RunningTopK, sections: list[Section], count: int) -> None:
        """Score at most `count` pairs of each query, those with the smallest bounds."""
        queries, places, bounds = self._smallest_bounds(sections, count)
        items = self.index.order[places]
        rounding = self._rounding(self.request.query_norms[queries] + self.index.norms[items])
        pairs = len(self.request.queries) * len(self.index)
        self.report.stages[0].seen += pairs
        self.report.stages[0].removed += pairs - len(queries)
        self._score_in_order(top_k, queries, items, bounds - rounding)

    def _search_section(self, top_k: RunningTopK, section: Section, seeds: tuple[Tensor, Tensor]) -> None:
        row_of = torch.full((len(self.request.queries),), -1, device=section.queries.device)
        row_of[section.queries] = torch.arange(len(section.queries), device=row_of.device)
        for begin, end, panels in self._blocks(section):
            items = self.index.order[begin:end]
            skip = torch.zeros(
                len(section.queries), (panels.stop - panels.start) * LANES, dtype=torch.bool, device=items.device
            )
            skip[:, len(items) :] = True
            done = (row_of[seeds[0]] >= 0) & (seeds[1] >= begin) & (seeds[1] < end)
            skip[row_of[seeds[0][done]], seeds[1][done] - begin] = True
            count = len(section.queries) * len(items) - int(done.sum())
            rows, places, bounds = self._prune(top_k, section, items, panels, skip, count)
            reach = self.request.query_norms[section.queries[rows]] + self.index.norms[items[places]]
            rounding = self._rounding(reach)
            bounds = (bounds - rounding).nan_to_num(nan=-torch.inf, posinf=torch.inf)
            if len(rows) > _DENSE_SHARE * skip.numel():
                self.report.scored += len(rows)
                self._score_block(top_k, section, items, (rows, places, bounds))
            elif len(rows):
                self._refine(top_k, section, begin, (rows, places, bounds), rounding)

    def _prune(
        self, top_k: RunningTopK, section: Section, items: Tensor, panels: slice, skip: Tensor, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pairs of a block that no bound removes. `count` is the number of pairs that are not skipped.

        Returns rows, places, and bounds without the allowance for rounding, (P,) each.
        """
        used = [number for number in range(len(DENSE)) if number not in self.dropped]
        if not used:
            rows, places = (~skip).nonzero(as_tuple=True)
            return rows, places, self.index.norms.new_full(rows.shape, -torch.inf)
        # Items that are not finite remain in any case: their bounds are NaN.
        max_norm = self.index.norms[items].nan_to_num(posinf=0).amax()
        limits = top_k.limits[section.queries] + self._rounding(self.request.query_norms[section.queries] + max_norm)
        rows, places, bounds, removed = aligned_survivors(
            [self._query_means(section, DENSE[number]) for number in used],
            [self._panels(section, number)[panels] for number in used],
            limits,
            skip,
            self.squared,
        )
        left = count
        for number, pruned in zip(used, removed.tolist(), strict=True):
            stage = self.report.stages[number]
            stage.seen += left
            stage.removed += pruned
            if pruned < (1 - _MAX_REMAINING) * left and left >= _MIN_SEEN:
                self.dropped.add(number)
            left -= pruned
        return rows, places, bounds

    def _refine(
        self,
        top_k: RunningTopK,
        section: Section,
        begin: int,
        pairs: tuple[Tensor, Tensor, Tensor],
        rounding: Tensor,
    ) -> None:
        """Compute the finest bound of the remaining pairs (P,), and keep the pairs that it leaves for scoring."""
        rows, places, bounds = pairs
        queries, places = section.queries[rows], places + begin
        means_x = self._query_means(section, LISTED)
        means_y = self.index.panels(section.first, section.end, section.target, self.squared).listed
        steps = means_x.shape[1]
        limits = (top_k.limits[queries] + rounding).nan_to_num(nan=torch.inf) / steps
        # Multiplying by `steps` rounds twice; `rounding` allows for hundreds of roundings.
        sums = steps * listed_interpolated_euclidean(
            means_x, means_y, None, None, rows, places - section.first, limits, self.squared, "x"
        )
        bounds = torch.maximum(bounds, (sums - rounding).nan_to_num(nan=-torch.inf, posinf=torch.inf))
        remaining = bounds <= top_k.limits[queries]
        stage = self.report.stages[len(DENSE)]
        stage.seen += len(rows)
        stage.removed += len(rows) - int(remaining.sum())
        self._pending.append((queries[remaining], self.index.order[places[remaining]], bounds[remaining]))
        if sum(len(pairs[0]) for pairs in self._pending) >= _PENDING_PAIRS:
            self._score_pending(top_k)

    def _score_pending(self, top_k: RunningTopK) -> None:
        if not self._pending:
            return
        queries, items, bounds = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending = []
        self._score_in_order(top_k, queries, items, bounds)

    def _score_in_order(self, top_k: RunningTopK, queries: Tensor, items: Tensor, bounds: Tensor) -> None:
        """Score pairs (P,) in the order of their bounds, from which the allowance for rounding is subtracted."""
        scored = top_k.score_in_order(queries, items, bounds, self._score)
        self.report.scored += scored
        self.report.stages[-1].seen += len(queries)
        self.report.stages[-1].removed += len(queries) - scored

    def _score_block(
        self,
        top_k: RunningTopK,
        section: Section,
        items: Tensor,
        pairs: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        """Compute all distances of a block, then score the pairs that can be among the nearest, each alone.

        With `pairs`, which are rows, places and lower bounds (P,), score none but these.
        """
        request, index, queries = self.request, self.index, section.queries
        if index.is_read and len(items) > index.block:
            for begin in range(0, len(items), index.block):
                part = None
                if pairs is not None:
                    rows, places, bounds = pairs
                    here = (places >= begin) & (places < begin + index.block)
                    part = rows[here], places[here] - begin, bounds[here]
                self._score_block(top_k, section, items[begin : begin + index.block], part)
            return
        steps, lengths, chosen = index.load(items)
        fast = all_pairs_interpolated_euclidean(
            request.queries, steps, request.lengths, lengths, queries, chosen, section.target, self.squared
        )
        reach = request.query_norms[queries][:, None] + index.norms[items]
        uncertain = self._rounding(reach) + cost_rounding(index.like) * reach**self.power
        limits = top_k.limits[queries]
        lower = (fast - uncertain).nan_to_num(nan=-torch.inf, posinf=torch.inf)
        if pairs is None:
            if len(items) >= top_k.k:
                # This block has k items within this limit.
                upper = fast.add_(uncertain).nan_to_num(nan=torch.inf, posinf=torch.inf)
                limits = torch.minimum(limits, upper.kthvalue(top_k.k, 1).values)
            rows, places = (lower <= limits[:, None]).nonzero(as_tuple=True)
            bounds = lower[rows, places]
        else:
            rows, places, bounds = pairs
            bounds = torch.maximum(bounds, lower[rows, places])
            within = bounds <= limits[rows]
            rows, places, bounds = rows[within], places[within], bounds[within]
        top_k.score_in_order(queries[rows], items[places], bounds, self._score)

    def _score(self, queries: Tensor, items: Tensor, limits: Tensor) -> Tensor:
        request, index = self.request, self.index
        size = index.block if index.is_read else max(1, len(items))
        parts = []
        for rows, chosen, within in zip(queries.split(size), items.split(size), limits.split(size), strict=True):
            loaded, loaded_lengths, places = index.load(chosen)
            steps, lengths, pairs = (
                request.sides(request.queries, loaded),
                request.sides(request.lengths, loaded_lengths),
                request.sides(rows, places),
            )
            parts.append(
                listed_interpolated_euclidean(
                    *steps, *lengths, *pairs, within, self.squared, request.options["resample"]
                )
            )
        distances = torch.cat(parts) if parts else limits.new_empty(0)
        self.report.abandoned += int((distances.isinf() & limits.isfinite()).sum())
        # As by cdist: one step that is not finite, or too long for its square, makes a pair infinitely far, also if
        # resampling skips it.
        within_range = (request.query_norms[queries] + index.norms[items]).isfinite()
        return no_nan(distances.masked_fill(~within_range, torch.inf))


def _find(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    AlignedSearch(request, prune, report).run(top_k)


register_search("interpolated_euclidean", SearchMethod(_find, has_bounds=True, takes_candidates=True))
