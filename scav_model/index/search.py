"""Search an index, or reorder the candidates of another system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.parts import StoredItems
from scav_model.index.queries import Queries
from scav_model.retrieval.nearest import METHODS, Mode, nearest

# Candidates that hybrid takes from the means, and bounds from the bounds.
CANDIDATES = 200


@dataclass(frozen=True)
class Hit:
    """One clip of an answer.

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

    @property
    def file(self) -> str | None:
        """Path of the clip's media file, if it is known."""
        return self.media.get("path")

    @property
    def seconds(self) -> float | None:
        """Duration of the clip, if it is known."""
        return self.media.get("seconds")


@dataclass(frozen=True)
class Answer:
    """The clips nearest to each query.

    Attributes:
        queries: as given to `search`.
        mode: exact, hybrid, mean or bounds.
        hits: of each query, the nearest first.
        notes: remarks for the user, such as that there are fewer clips than k.
    """

    queries: Queries
    mode: str
    hits: list[list[Hit]]
    notes: list[str] = field(default_factory=list)


class Workers(Protocol):
    """Processes that each search a part of the index; together they give the answer of this process alone."""

    def exact(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Return distances (Q, k), ascending, and numbers (Q, k) of the nearest clips by sequence."""

    def nearest_means(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Return distances 1 − cosine (Q, k), ascending, and numbers (Q, k) of the clips with the nearest means."""


@torch.no_grad()
def search(
    index: IndexReader,
    queries: Queries,
    k: int = 10,
    *,
    mode: Mode = "exact",
    candidates: int = CANDIDATES,
    workers: Workers | None = None,
) -> Answer:
    """Find the k nearest clips of each query.

    Args:
        index: its other side than the queries' is searched.
        queries: Q, encoded by the index's model.
        k: Clips to return for each query; all, with a note, where there are fewer. -k is the same.
        mode: exact compares whole sequences with every clip; hybrid with the candidates whose means are nearest; mean
            ranks by the means alone; bounds compares with the candidates whose lower bounds are least in every group
            of up to 100,000 clips, for interpolated Euclidean.
        candidates: Clips that hybrid and bounds compare, at least k; more find more and take longer, and scav index
            tune measures both.
        workers: who compares, such as `scav_model.distributed.SearchWorkers`; None: this process. Not in mode bounds.

    Raises:
        SearchIndexError: queries of another size or side than the index holds, an unknown mode, one that the metric
            does not have, k or candidates below 1, workers in mode bounds.
        DamagedIndexError: what had to be read is not what was written.
    """
    if mode not in METHODS:
        raise SearchIndexError(f"expected mode to be one of {', '.join(METHODS)}, got {mode!r}")
    for name, value in (("k", k), ("candidates", candidates)):
        if value < 1:
            raise SearchIndexError(f"expected {name} to be at least 1, got {value}")
    if mode == "bounds" and workers is not None:
        raise SearchIndexError("mode bounds searches in one process; with workers, use --mode exact")
    if mode == "bounds" and not index.has_bounds:
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
    if mode in ("hybrid", "bounds"):
        if candidates < k:
            notes.append(f"candidates is {candidates}, less than k, so {k} are taken")
        candidates = min(max(candidates, k), len(index))
    distances, numbers = find(index, queries, k, mode, candidates, workers)
    rows = zip(distances.tolist(), numbers.tolist(), strict=True)
    return Answer(queries, mode, [hits(index, *row) for row in rows], notes)


def find(
    index: IndexReader, queries: Queries, k: int, mode: str, candidates: int = 0, workers: Workers | None = None
) -> tuple[Tensor, Tensor]:
    """Find the k nearest of at least k clips, as `search` does: distances (Q, k), ascending, and numbers (Q, k).

    Raises:
        SearchIndexError: means that are NaN or infinite, so that there are fewer than k others.
    """
    if workers is not None and mode == "exact":
        return workers.exact(queries, k)
    if workers is not None and mode == "mean":
        return workers.nearest_means(queries, k)
    chosen: int | Tensor = candidates
    if mode == "hybrid":
        chosen = find(index, queries, candidates, "mean", workers=workers)[1]
    items = StoredItems(index, queries.target)
    distances, numbers, _ = nearest(queries.sequences, items, queries.side, k, method=mode, candidates=chosen)
    if mode == "mean":
        check_means(index, queries.target, numbers)
    return distances, numbers


def check_means(index: IndexReader, side: str, numbers: Tensor) -> None:
    """Check that means were found for all places.

    Raises:
        SearchIndexError: some of the numbers are −1, so means of that side are NaN or infinite.
    """
    if bool((numbers < 0).any()):
        raise SearchIndexError(
            f"{index.folder}: means of some {side}s are NaN or infinite, and too few others are found; use --mode exact"
        )


def hits(index: IndexReader, distances: Sequence[float], numbers: Sequence[int]) -> list[Hit]:
    """Return one query's hits, with their ids and media."""
    listed = enumerate(zip(distances, numbers, strict=True), start=1)
    return [Hit(rank, index.id(number), number, far, index.media(number)) for rank, (far, number) in listed]


@torch.no_grad()
def rerank(
    index: IndexReader, queries: Queries, candidates: Sequence[Sequence[str]], k: int | None = None
) -> list[list[str]]:
    """Reorder candidates that another system chose by the distances of their sequences.

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
        found = nearest(
            queries.one(query),
            StoredItems(index, queries.target),
            queries.side,
            len(numbers) if k is None else k,
            method="hybrid",
            candidates=torch.tensor([numbers]),
        )
        ordered.append([index.id(number) for number in found.numbers[0].tolist()])
    return ordered
