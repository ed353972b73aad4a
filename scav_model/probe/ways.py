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
        self._groups = list(self._by_length())

    def mean(self, k: int) -> Found:
        """By the cosine of mean steps."""
        found = (means(self.queries) @ self.means.T).topk(k, dim=1)
        return Found(found.indices, 1 - found.values, 0, 0)

    def hybrid(self, candidates: int, k: int) -> Found:
        """By sequence, among the items whose means are nearest; ties go to the lower number."""
        chosen = self.mean(candidates).items.sort(dim=1).values
        at_once = max(1, FLOATS // self.items.steps[0].numel())
        distances = torch.stack(
            [
                torch.cat([self.compare(row, some) for some in numbers.split(at_once)])
                for row, numbers in enumerate(chosen)
            ]
        )
        order = distances.sort(dim=1, stable=True).indices[:, :k]
        return Found(chosen.gather(1, order), distances.gather(1, order), chosen.numel(), 0)

    def compare(self, query: int, numbers: Tensor) -> Tensor:
        """(C,) distances of one query from some items."""
        asked = Sequences(self.queries.steps[query : query + 1], self.queries.lengths[query : query + 1])
        listed = Sequences(self.items.steps[numbers], self.items.lengths[numbers])
        if self.side == "video":
            return self.distance.all_pairs(asked, listed)[0]
        return self.distance.all_pairs(listed, asked)[:, 0]

    def exact(self, k: int, prune: str) -> Found:
        """By sequence, among all items; `prune` is topk's."""
        distances = torch.empty(len(self.queries.steps), 0)
        numbers = distances.long()
        scored = abandoned = 0
        options: dict[str, Any] = self.distance.options
        for group, listed in self._groups:
            answer = scav_kernels.topk(
                self.queries.steps,
                group,
                min(k, len(group)),
                self.queries.lengths,
                metric=self.distance.metric,
                queries_are="x" if self.side == "video" else "y",
                prune=prune,
                **options,
            )
            found = answer.distances
            if self.distance.per_step:
                found = found / (self.queries.lengths[:, None] + group.lengths[0])
            distances = torch.cat((distances.to(found), found), dim=1)
            numbers = torch.cat((numbers.to(listed), listed[answer.indices]), dim=1)
            scored, abandoned = scored + answer.report.scored, abandoned + answer.report.abandoned
        order = distances.sort(dim=1, stable=True).indices[:, :k]
        return Found(numbers.gather(1, order), distances.gather(1, order), scored, abandoned)

    @property
    def has_bounds(self) -> bool:
        """Whether `exact` has lower bounds to prune by."""
        one = self.queries.steps[:1, :1]
        options: dict[str, Any] = self.distance.options
        return scav_kernels.topk(one, one, 1, metric=self.distance.metric, **options).report.exhaustive is None

    def _by_length(self) -> Iterator[tuple[scav_kernels.SearchIndex, Tensor]]:
        """Items that can be searched at once, and their numbers: all, or, where a pair's distance is divided by its
        steps, those of one length, among which that changes no order."""
        steps, lengths = self.items
        if not self.distance.per_step or bool((lengths == lengths[0]).all()):
            yield scav_kernels.SearchIndex(steps, lengths), torch.arange(len(lengths), device=steps.device)
            return
        for length in lengths.unique().tolist():
            numbers = (lengths == length).nonzero()[:, 0]
            yield scav_kernels.SearchIndex(steps[numbers, :length], lengths[numbers]), numbers


def means(clips: Sequences) -> Tensor:
    """(G, D) float32 mean steps, scaled to length 1, some clips at a time."""
    starts = range(0, len(clips.steps), ROWS)
    some = [(clips.steps[start : start + ROWS].float(), clips.lengths[start : start + ROWS]) for start in starts]
    return torch.cat([pooled(Sequences(*part)) for part in some])


def share_found(found: Tensor, right: Tensor) -> float:
    """Share in percent of right (Q, k) that found (Q, k) has, row by row."""
    return 100 * (right[:, :, None] == found[:, None]).any(2).double().mean().item()
