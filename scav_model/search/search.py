"""Searching an index, and putting others' candidates in order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from scav_model.search.bounds import has_bounds
from scav_model.search.compare import by_bounds, compare, exact, reorder, smallest
from scav_model.search.header import SearchIndexError
from scav_model.search.index import SearchIndex
from scav_model.search.pooled import nearest_means
from scav_model.search.queries import Queries

MODES = ("exact", "hybrid", "mean", "bounds")
# Candidates that hybrid takes from the means, and bounds from the bounds.
CANDIDATES = 200


@dataclass(frozen=True)
class Hit:
    """A clip that was found.

    Attributes:
        rank: from 1.
        id: of the clip.
        number: of the clip in the index.
        distance: lower is closer; in the index's metric, or 1 − cosine of the mean steps after mode mean.
        media: what the index knows of the clip: path, start, seconds, label, split.
    """

    rank: int
    id: str
    number: int
    distance: float
    media: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        queries: what was asked.
        mode: exact, hybrid, mean or bounds.
        hits: of each query, the nearest first.
        notes: what the one who asked should know, such as that there are fewer clips than were asked for.
    """

    queries: Queries
    mode: str
    hits: list[list[Hit]]
    notes: list[str] = field(default_factory=list)


class Workers(Protocol):
    """Others that compare, each with a part of the index: the answer is that of this process alone."""

    def exact(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """As `scav_model.search.compare.exact`."""

    def nearest_means(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """As `scav_model.search.pooled.nearest_means`."""


@torch.no_grad()
def search(
    index: SearchIndex,
    queries: Queries,
    k: int = 10,
    *,
    mode: str = "exact",
    candidates: int = CANDIDATES,
    workers: Workers | None = None,
) -> Answer:
    """The k nearest clips to each query.

    Args:
        index: is searched on the side that the queries are not of.
        queries: Q, encoded by the index's model.
        k: clips to return; all, with a note, where there are fewer.
        mode: `exact` compares whole sequences with every clip; `hybrid` with the `candidates` whose means are nearest;
            `mean` ranks by the means alone; `bounds` compares whole sequences with the `candidates`, of every group of
            up to 100,000 clips, whose lower bounds are least, by interpolated Euclidean.
        candidates: k′ of `hybrid` and `bounds`, the dial between their recall and their time (`scav index tune`
            measures both); at least k.
        workers: who compares, such as `scav_model.cluster.SearchWorkers`; None: this process. Not in mode bounds.

    Raises:
        SearchIndexError: queries of another size or side than the index holds, an unknown mode, one that the metric
            does not have, k or candidates below 1, workers in mode bounds.
        DamagedIndexError: what had to be read is not what was written.
    """
    if mode not in MODES:
        raise SearchIndexError(f"expected mode to be one of {', '.join(MODES)}, got {mode!r}")
    for name, value in (("k", k), ("candidates", candidates)):
        if value < 1:
            raise SearchIndexError(f"expected {name} to be at least 1, got {value}")
    if mode == "bounds" and workers is not None:
        raise SearchIndexError("mode bounds searches in one process; with workers, use --mode exact")
    if mode == "bounds" and not has_bounds(index.header):
        raise SearchIndexError(
            f"mode bounds needs the metric interpolated_euclidean, not divided by steps, and {index.folder} has "
            f"{index.header.metric}{' divided by steps' if index.header.per_step else ''}; use --mode hybrid"
        )
    queries.check(index)
    notes = []
    if not len(index):
        return Answer(queries, mode, [[] for _ in queries.names], ["the index is empty, so nothing is found"])
    if k > len(index):
        notes.append(f"k is {k} and the index holds {len(index)} clips, so all of them are returned")
        k = len(index)
    means = functools.partial(nearest_means, index) if workers is None else workers.nearest_means
    if mode == "exact":
        distances, numbers = exact(index, queries, k) if workers is None else workers.exact(queries, k)
    elif mode == "mean":
        distances, numbers = means(queries, k)
    else:
        if candidates < k:
            notes.append(f"candidates is {candidates}, less than k, so {k} are taken")
        count = min(max(candidates, k), len(index))
        if mode == "bounds":
            distances, numbers = by_bounds(index, queries, k, count)
        else:
            distances, numbers = reorder(index, queries, means(queries, count)[1], k)
    rows = zip(distances.tolist(), numbers.tolist(), strict=True)
    return Answer(queries, mode, [hits(index, *row) for row in rows], notes)


def hits(index: SearchIndex, distances: Sequence[float], numbers: Sequence[int]) -> list[Hit]:
    listed = enumerate(zip(distances, numbers, strict=True), start=1)
    return [Hit(rank, index.id(number), number, far, index.media(number)) for rank, (far, number) in listed]


@torch.no_grad()
def rerank(
    index: SearchIndex, queries: Queries, candidates: Sequence[Sequence[str]], k: int | None = None
) -> list[list[str]]:
    """Candidates that another system chose, in the order of their sequences' distances: ids in, order out.

    Args:
        index: holds the candidates' sequences.
        queries: Q, as for `search`.
        candidates: ids of each query's candidates, as many as there are; one that comes twice is taken once.
        k: the nearest so many of them; None: all.

    Returns:
        Of each query its candidates' ids, the nearest first, ties in the order in which the index holds them.

    Raises:
        SearchIndexError: an id that the index does not hold; not as many lists as queries.
    """
    if len(candidates) != len(queries):
        raise SearchIndexError(
            f"expected a list of candidates for each of {len(queries)} queries, got {len(candidates)} lists"
        )
    queries.check(index)
    ordered: list[list[str]] = []
    for query, ids in enumerate(candidates):
        numbers = sorted({index.number(name) for name in ids})
        if not numbers:
            ordered.append([])
            continue
        found = compare(index, queries, query, numbers)
        nearest = smallest(found[None], torch.tensor([numbers]), len(numbers) if k is None else k)[1]
        ordered.append([index.id(number) for number in nearest[0].tolist()])
    return ordered
