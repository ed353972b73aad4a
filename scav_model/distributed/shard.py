"""Actors of a search: each has a part of the index, and all share the k-th distance that they know."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import scav_kernels
from scav_model.distances import Sequences
from scav_model.distributed.connection import import_ray
from scav_model.index.header import Header, read_deleted
from scav_model.index.index import IndexReader
from scav_model.index.parts import StoredItems
from scav_model.index.queries import Queries
from scav_model.index.search import check_means
from scav_model.retrieval.means import mean_scores
from scav_model.retrieval.nearest import Found, nearest

# Seconds that a part waits, before it begins, for what others know already; afterwards it never waits.
PATIENCE = 1.0


def open_part(folder: Path, header: Header, shards: range) -> tuple[IndexReader, int]:
    """Open neighboring shards as an index of their own. Return it, and the number of its clip 0 in the whole index."""
    first = sum(shard.clips for shard in header.shards[: shards.start])
    own = replace(header, shards=header.shards[shards.start : shards.stop], deleted=None, deleted_clips=0)
    index = IndexReader(folder, own)
    deleted = read_deleted(folder, header) - first
    deleted = deleted[(deleted >= 0) & (deleted < own.written)]
    index.live[deleted] = False
    own.deleted_clips = len(deleted)
    return index, first


class Limits:
    """The k-th distance of each query that is known so far.

    Each part's distances are kept apart, so that one that is redone, and tells the same again, is not counted twice.
    If this actor dies, the one that takes its place knows nothing: parts prune less until they have told it more.
    """

    def __init__(self) -> None:
        self._search = -1
        self._told: dict[int, Tensor] = {}

    def offer(self, search: int, part: int, distances: Tensor) -> Tensor:
        """Take the k smallest distances (Q, k) of a part, inf where it has fewer; (Q,) the k-th of all parts, inf for a
        search before the last one."""
        if search < self._search:
            return torch.full((len(distances),), torch.inf)
        if search > self._search:
            self._search, self._told = search, {}
        self._told[part] = torch.minimum(self._told.get(part, distances), distances)
        told = torch.cat(list(self._told.values()), dim=1)
        return told.kthvalue(distances.shape[1], dim=1).values


class Shared:
    """`Limits` as a part sees them: it tells, and takes notice of what has come back, without waiting."""

    def __init__(self, limits: Any, search: int, part: int, queries: int, k: int) -> None:
        self._limits, self._search, self._part, self._k = limits, search, part, k
        self._known = torch.full((queries,), torch.inf)
        self._asked: list[Any] = []

    def __call__(self, found: Tensor) -> Tensor:
        ray = import_ray()
        begins = not self._asked and found.shape[1] == 0
        padded = F.pad(found.cpu(), (0, self._k - found.shape[1]), value=torch.inf)
        self._asked.append(self._limits.offer.remote(self._search, self._part, padded))
        ready, self._asked = ray.wait(
            self._asked, num_returns=len(self._asked), timeout=PATIENCE if begins else 0, fetch_local=True
        )
        for answer in ready:
            # It may be being restarted. What is not known does not prune, and changes no answer.
            with suppress(ray.exceptions.RayActorError):
                self._known = torch.minimum(self._known, ray.get(answer))
        return self._known


class ShardWorker:
    """The actor of one part. The first question opens the part, also after a restart of the actor, so that an error of
    opening it is returned as an answer."""

    def __init__(self, folder: Path, header: Header, shards: range, part: int, device: str) -> None:
        self._place, self._part, self._device = (folder, header, shards), part, device
        self._opened: tuple[IndexReader, int] | None = None
        # It has one CPU of its own; threads would compete with the other actors' for theirs.
        torch.set_num_threads(1)

    def _open(self) -> tuple[IndexReader, int]:
        if self._opened is None:
            self._opened = open_part(*self._place)
        return self._opened

    @torch.no_grad()
    def exact(self, queries: Queries, k: int, search: int, limits: Any) -> Found:
        """Find the nearest of this part's clips: distances (Q, at most k), and numbers in the whole index."""
        index, first = self._open()
        kept = min(k, len(index))
        if not kept:
            return Found(*_nothing(queries), scav_kernels.SearchReport())
        shared = Shared(limits, search, self._part, len(queries), k)
        asked = Sequences(*(part.to(self._device) for part in queries.sequences))
        found = nearest(asked, StoredItems(index, queries.target), queries.side, kept, limits=shared)
        return Found(found.distances.cpu(), found.numbers.cpu() + first, found.report)

    def best_scores(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Return cosines (Q, at most k), descending, and numbers in the whole index."""
        index, first = self._open()
        kept = min(k, len(index))
        if not kept:
            return _nothing(queries)
        scores, numbers = mean_scores(queries.sequences, StoredItems(index, queries.target).means, kept)
        check_means(index, queries.target, numbers)
        return scores, numbers + first


def _nothing(queries: Queries) -> tuple[Tensor, Tensor]:
    return torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)
