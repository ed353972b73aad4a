"""Distances between queries and the clips of an index, by whole sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

import scav_kernels
from scav_kernels.search.topk import TopK
from scav_model.data.store.header import DTYPES
from scav_model.distances import POOLED_COSINE, Sequences
from scav_model.search.bounds import has_bounds
from scav_model.search.index import Group, Piece, SearchIndex
from scav_model.search.queries import Queries

# A piece tells how much bounds leave out if it has so many times the clips that it is asked for.
TELLING = 8
# Queries that are compared with a block in one call.
ROWS = 256


def distances(index: SearchIndex, queries: Sequences, side: str, clips: Sequences) -> Tensor:
    """(Q, B); `side` is the queries'. Videos are always the first of a pair, in both directions."""
    if side == "video":
        return index.distance.all_pairs(queries, clips)
    return index.distance.all_pairs(clips, queries).T


def smallest(distance: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest of each row (Q, C), ascending, and their numbers (Q, C); of ties those that come first."""
    order = distance.sort(dim=1, stable=True).indices[:, :k]
    return distance.gather(1, order), numbers.gather(1, order)


class Outside(Protocol):
    """What is known beyond this index, such as to other parts of a larger one."""

    def __call__(self, found: Tensor) -> Tensor:
        """Given the distances (Q, at most k) found here so far, ascending: (Q,) distances within each of which there
        are k clips elsewhere and here, so that what is farther is of no interest; inf where nothing is known."""


def exact(
    index: SearchIndex,
    queries: Queries,
    k: int,
    *,
    outside: Outside | None = None,
    report: scav_kernels.SearchReport | None = None,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Distances (Q, k), ascending, and numbers (Q, k) of the nearest clips; of ties those with the lower number.

    Certified: all are compared but those that a lower bound shows to be beyond the k-th. The bounds are those that the
    index keeps, where these are of the queries' lengths; else runs of clips of one length are summarised once there
    have been queries enough. Both only while they leave out enough to be worth their while. There must be k clips.

    Args:
        outside: is asked before each part, and told in the end; places beyond what it knows hold inf.
        report: the pairs of this search are added to it.
        device: that compares.
    """
    asked = Sequences(*(part.to(device) for part in stored(index, queries.sequences)))
    index.prepared.ask(asked.lengths.tolist())
    course = _Course(index, asked, queries.side, report or scav_kernels.SearchReport())
    best = torch.empty(len(queries), 0)
    numbers = torch.empty(len(queries), 0, dtype=torch.int64)
    for search in course.parts(device):
        limits = best[:, -1] if best.shape[1] == k else torch.full((len(queries),), torch.inf)
        if outside is not None:
            limits = torch.minimum(limits, outside(best))
        for listed, found in search(k, limits):
            # Earlier clips come first and have the lower numbers, so that a stable order breaks ties as it should.
            best, numbers = smallest(torch.cat((best, found), dim=1), torch.cat((numbers, listed), dim=1), k)
    if outside is not None:
        outside(best)
    return best, numbers


def by_bounds(index: SearchIndex, queries: Queries, k: int, candidates: int) -> tuple[Tensor, Tensor]:
    """As `exact`, but of each group of clips only the `candidates` whose lower bounds are least are compared."""
    asked = stored(index, queries.sequences)
    index.prepared.ask(asked.lengths.tolist())
    course = _Course(index, asked, queries.side, scav_kernels.SearchReport())
    lengths = asked.lengths.tolist()
    parts: list[tuple[Tensor, Tensor]] = []
    for group in index.groups(queries.target):
        parts += course.group(group, group.is_summarised_for(lengths), k, None, candidates)
    numbers, distances = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
    return smallest(distances, numbers, k)


Found = Iterator[tuple[Tensor, Tensor]]


@dataclass
class _Course:
    """One search: each piece's numbers and distances (Q, C) of all that may be among the k nearest."""

    index: SearchIndex
    asked: Sequences
    side: str
    report: scav_kernels.SearchReport

    def parts(self, device: str) -> Iterator[Callable[[int, Tensor], Found]]:
        """The index in parts, in order, each to be searched for the k nearest that are within limits (Q,)."""
        if has_bounds(self.index.header) and device == "cpu" and not self.index.prepared.useless:
            lengths = self.asked.lengths.tolist()
            groups = list(self.index.groups(self.target))
            if all(group.is_summarised_for(lengths) for group in groups):
                yield from (partial(self.group, group, True) for group in groups)
                return
        yield from (partial(self.piece, piece) for piece in self.index.pieces(self.target))

    def group(
        self, group: Group, summarised: bool, k: int, limits: Tensor | None, candidates: int | None = None
    ) -> Found:
        """The nearest of a group by its bounds, or of its `candidates` alone; `summarised`: for these queries."""
        if not len(group):
            return
        database = self.index.prepared.get((self.target, int(group.numbers[0]), summarised), group.database)
        kept = min(k, len(group))
        count = None if candidates is None else max(kept, min(candidates, len(group)))
        answer = self._nearest(database, kept, limits, "auto", count)
        if len(group) >= TELLING * kept:
            self.index.prepared.learn(answer.report)
        found, items = answer
        yield group.numbers[items.clamp(min=0)], found

    def piece(self, piece: Piece, k: int, limits: Tensor) -> Found:
        distance = self.index.distance
        if distance.metric == POOLED_COSINE or (distance.per_step and not piece.even):
            yield from self._all(piece)
        elif piece.even:
            yield from self._even(piece, k, limits)
        else:
            yield from self._uneven(piece, k, limits)

    @property
    def target(self) -> str:
        return "audio" if self.side == "video" else "video"

    def _nearest(
        self,
        database: scav_kernels.SearchIndex,
        k: int,
        limits: Tensor | None,
        prune: str,
        candidates: int | None = None,
    ) -> TopK:
        """A pair's distance is the same whatever is pruned: neither bounds nor limits change a digit."""
        distance = self.index.distance
        options: dict[str, Any] = distance.options
        with distance.one_warning.counting():
            answer = scav_kernels.topk(
                self.asked.steps.to(database.like.dtype),
                database,
                k,
                self.asked.lengths,
                metric=distance.metric,
                queries_are="x" if self.side == "video" else "y",
                prune=prune,
                limits=None if limits is None else limits.to(database.device),
                candidates=candidates,
                **options,
            )
        self.report.pairs += answer.report.pairs
        self.report.scored += answer.report.scored
        self.report.abandoned += answer.report.abandoned
        return answer

    def _even(self, piece: Piece, k: int, limits: Tensor) -> Found:
        """The nearest of an even piece, of ties those with the lower number."""
        live = torch.from_numpy(self.index.live[piece.start : piece.start + piece.count])
        kept = min(k, int(live.sum()))
        if not kept:
            return
        prepared, device = self.index.prepared, self.asked.steps.device
        database = prepared.get(
            (self.target, piece.start, False),
            lambda: scav_kernels.SearchIndex(self.index.even(self.target, piece).to(device)),
        )
        # Deleted clips are in the way of as many others at most.
        count = min(piece.count, kept + piece.count - int(live.sum()))
        steps = self.asked.lengths[:, None].cpu() + database.like.shape[1] if self.index.distance.per_step else None
        if steps is not None:
            # A little more than all that rounds down to the limit.
            limits = limits * steps[:, 0] * (1 + 2.0**-20)
        bounded = prepared.worth
        answer = self._nearest(database, count, limits, "auto" if bounded else "none")
        if bounded and piece.count >= TELLING * count:
            prepared.learn(answer.report)
        found, items = (part.cpu() for part in answer)
        counted = live[items] & (items >= 0)
        order = counted.sort(dim=1, descending=True, stable=True).indices[:, :kept]
        found = found.masked_fill(~counted, torch.inf).gather(1, order)
        yield items.gather(1, order) + piece.start, found if steps is None else found / steps

    def _uneven(self, piece: Piece, k: int, limits: Tensor) -> Found:
        """The nearest of each block."""
        for listed, block in self.index.blocks(self.target, piece):
            block = Sequences(*(part.to(self.asked.steps.device) for part in block))
            answer = self._nearest(scav_kernels.SearchIndex(*block), min(k, len(listed)), limits, "none")
            found, items = (part.cpu() for part in answer)
            yield torch.from_numpy(listed)[items], found

    def _all(self, piece: Piece) -> Found:
        """All clips, in order: divided by their steps, distances of clips of several lengths have another order than
        the sums that `topk` compares."""
        queries, lengths = self.asked.steps.float(), self.asked.lengths
        for listed, block in self.index.blocks(self.target, piece):
            block = Sequences(*(part.to(queries.device) for part in block))
            found = [
                distances(self.index, Sequences(queries[row : row + ROWS], lengths[row : row + ROWS]), self.side, block)
                for row in range(0, len(lengths), ROWS)
            ]
            self.report.pairs += len(lengths) * len(listed)
            self.report.scored += len(lengths) * len(listed)
            yield torch.from_numpy(listed).expand(len(lengths), -1), torch.cat(found).cpu()


def stored(index: SearchIndex, queries: Sequences) -> Sequences:
    """Queries rounded as the index's clips are, so that all distances are between numbers of one kind."""
    return Sequences(queries.steps.to(DTYPES[index.header.dtype]), queries.lengths)


def compare(index: SearchIndex, queries: Queries, query: int, numbers: Sequence[int]) -> Tensor:
    """(C,) distances of one query from any clips."""
    clips = index.gather(queries.target, numbers)
    steps, lengths = stored(index, queries.one(query))
    return distances(index, Sequences(steps.float(), lengths), queries.side, clips)[0]


def reorder(index: SearchIndex, queries: Queries, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (Q, k), ascending, and numbers (Q, k) of the nearest among each query's candidates (Q, C)."""
    chosen = candidates.sort(dim=1).values
    found = torch.stack([compare(index, queries, row, chosen[row].tolist()) for row in range(len(queries))])
    return smallest(found, chosen, k)
