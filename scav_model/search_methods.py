"""Ways to search one gallery, side by side: what each finds, and how many pairs it compares for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scav_kernels
from scav_model.distances import Distance, Sequences, pooled

# Clips that are pooled at a time.
ROWS = 256
# Numbers of candidates that are gathered at a time: 64 MiB of float32.
FLOATS = 1 << 24
# Clips of one length that are searched apart from others.
MANY = 64


class Found(NamedTuple):
    """What a way to search found, and the pairs of sequences that it compared."""

    items: Tensor  # (Q, k) int64, the nearest first
    distances: Tensor  # (Q, k), ascending
    scored: int  # pairs, those included that were left half-way
    abandoned: int  # of them, those that were left half-way


class Ways:
    """Q queries and G items, prepared once as an index has them: mean steps, and what bounds need.

    Args:
        queries: steps (Q, N, D) and lengths.
        items: of the other side.
        side: of the queries, video or audio.
        distance: between sequences.
    """

    def __init__(self, queries: Sequences, items: Sequences, side: str, distance: Distance) -> None:
        self.queries, self.items, self.side, self.distance = queries, items, side, distance
        self.pairs = len(queries.steps) * len(items.steps)
        self.means = means(items)
        # A pair's distance is divided by its steps, which changes the order of items of different lengths.
        self.divided = distance.per_step and not bool((items.lengths == items.lengths[0]).all())
        self._groups = list(self._by_length())
        grouped = torch.zeros(len(items.steps), dtype=torch.bool, device=items.steps.device)
        for _, numbers in self._groups:
            grouped[numbers] = True
        self._rest = (~grouped).nonzero()[:, 0]
        self._at_once = max(1, FLOATS // items.steps[0].numel())

    def mean(self, k: int) -> Found:
        """By the cosine of mean steps."""
        found = (means(self.queries) @ self.means.T).topk(k, dim=1)
        return Found(found.indices, 1 - found.values, 0, 0)

    def hybrid(self, candidates: int, k: int) -> Found:
        """By sequence, among the items whose means are nearest; ties go to the lower number."""
        chosen = self.mean(candidates).items.sort(dim=1).values
        distances = torch.stack(
            [
                torch.cat([self.compare(row, some) for some in numbers.split(self._at_once)])
                for row, numbers in enumerate(chosen)
            ]
        )
        order = distances.sort(dim=1, stable=True).indices[:, :k]
        return Found(chosen.gather(1, order), distances.gather(1, order), chosen.numel(), 0)

    def by_bounds(self, candidates: int, k: int) -> Found:
        """By sequence, among the items whose lower bounds are least, where `has_candidates`."""
        return self._nearest(*self._groups[0], k, "auto", candidates)

    @property
    def has_candidates(self) -> bool:
        """Whether `by_bounds` has bounds of all pairs that are quick enough to choose candidates by."""
        return self.distance.metric == "interpolated_euclidean" and not self.divided

    def compare(self, query: int, numbers: Tensor) -> Tensor:
        """(C,) distances of one query from some items."""
        asked = Sequences(self.queries.steps[query : query + 1], self.queries.lengths[query : query + 1])
        return self._distances(asked, Sequences(self.items.steps[numbers], self.items.lengths[numbers]))[0]

    def _distances(self, queries: Sequences, items: Sequences) -> Tensor:
        """(Q, B); videos are always the first of a pair."""
        if self.side == "video":
            return self.distance.all_pairs(queries, items)
        return self.distance.all_pairs(items, queries).T

    def exact(self, k: int, prune: str) -> Found:
        """By sequence, among all items; `prune` is topk's. Ties go to the lower number."""
        # Without bounds nothing is gained by searching lengths apart.
        whole = prune == "none" and self.divided
        numbers = torch.arange(len(self.items.steps), device=self.items.steps.device) if whole else self._rest
        found = [self._nearest(group, listed, k, prune) for group, listed in ([] if whole else self._groups)]
        found += [self._all(some, k) for some in numbers.split(self._at_once)]
        items = torch.cat([one.items for one in found], dim=1)
        distances = torch.cat([one.distances for one in found], dim=1)
        by_number = items.argsort(dim=1)
        order = by_number.gather(1, distances.gather(1, by_number).sort(dim=1, stable=True).indices[:, :k])
        scored, abandoned = sum(one.scored for one in found), sum(one.abandoned for one in found)
        return Found(items.gather(1, order), distances.gather(1, order), scored, abandoned)

    def _nearest(
        self, group: scav_kernels.SearchIndex, listed: Tensor, k: int, prune: str, candidates: int | None = None
    ) -> Found:
        """Of items that can be searched at once, whose numbers are `listed`."""
        options: dict[str, Any] = self.distance.options
        with self.distance.one_warning.counting():
            answer = scav_kernels.topk(
                self.queries.steps,
                group,
                min(k, len(group)),
                self.queries.lengths,
                metric=self.distance.metric,
                queries_are="x" if self.side == "video" else "y",
                prune=prune,
                candidates=candidates,
                **options,
            )
        distances = answer.distances
        if self.distance.per_step:
            distances = distances / (self.queries.lengths[:, None] + group.lengths[0])
        return Found(listed[answer.indices], distances, answer.report.scored, answer.report.abandoned)

    def _all(self, numbers: Tensor, k: int) -> Found:
        """Of some items, all compared."""
        listed = Sequences(self.items.steps[numbers], self.items.lengths[numbers])
        distances = self._distances(self.queries, listed)
        nearest = distances.sort(dim=1, stable=True).indices[:, :k]
        return Found(numbers[nearest], distances.gather(1, nearest), distances.numel(), 0)

    @property
    def has_bounds(self) -> bool:
        """Whether `exact` has lower bounds to prune by."""
        one = self.queries.steps[:1, :1]
        options: dict[str, Any] = self.distance.options
        return scav_kernels.topk(one, one, 1, metric=self.distance.metric, **options).report.exhaustive is None

    def _by_length(self) -> Iterator[tuple[scav_kernels.SearchIndex, Tensor]]:
        """Items that can be searched at once, and their numbers: all; or, where distances are divided by steps, those
        of one length, if there are many."""
        steps, lengths = self.items
        if not self.divided:
            yield scav_kernels.SearchIndex(steps, lengths), torch.arange(len(lengths), device=steps.device)
            return
        for length in lengths.unique().tolist():
            numbers = (lengths == length).nonzero()[:, 0]
            if len(numbers) >= MANY:
                yield scav_kernels.SearchIndex(steps[numbers, :length], lengths[numbers]), numbers


def means(clips: Sequences) -> Tensor:
    """(G, D) float32 mean steps, scaled to length 1, some clips at a time."""
    made = []
    for start in range(0, len(clips.steps), ROWS):
        some = slice(start, start + ROWS)
        made.append(pooled(Sequences(clips.steps[some].float(), clips.lengths[some])))
    return torch.cat(made)


def share_found(found: Tensor, right: Tensor) -> float:
    """Share in percent of right (Q, k) that found (Q, k) has, row by row."""
    return 100 * (right[:, :, None] == found[:, None]).any(2).double().mean().item()
