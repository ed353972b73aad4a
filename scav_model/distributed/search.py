"""Sharded search: actors search the parts of an index, and their results are merged into one answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scav_kernels
from scav_model.distributed.connection import ClusterError, check_resources, connect, import_ray, room
from scav_model.distributed.shard import Limits, ShardWorker
from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.queries import Queries
from scav_model.progress import Progress
from scav_model.retrieval.means import largest
from scav_model.retrieval.nearest import smallest

# Times that a worker is restarted, and what it was asked redone, before that is given up.
RESTARTS = 3


class SearchWorkers:
    """Actors that search an index together, to be handed to `search` as `workers`.

    Each has neighboring shards of the index's folder, which every machine must see under the same path, and a CPU, or
    a share of a GPU, of its own. A worker that dies is restarted and its part redone; nothing is lost, and the answer
    is the same. Ray has to be connected (`connect`).

    Args:
        index: to be searched, as it was when it was opened.
        workers: how many, at most; None: as many as the cluster has room for. None has less than one shard.
        gpus_per_worker: 0 compares on CPUs; on GPUs, the last digits of distances are theirs.

    Attributes:
        parts: shards of each worker.
        actors: of each part.
        reports: of each part, where the pairs of the last exact search went.

    Raises:
        SearchIndexError: less than one worker, or a share of a GPU below 0.
        ClusterError: the cluster has no room for so many.
    """

    def __init__(self, index: IndexReader, workers: int | None = None, *, gpus_per_worker: float = 0.0) -> None:
        if workers is not None and workers < 1:
            raise SearchIndexError(f"expected at least 1 worker, got {workers}")
        if not gpus_per_worker >= 0:
            raise SearchIndexError(f"expected gpus_per_worker to be 0 or more, got {gpus_per_worker}")
        self._ray = import_ray()
        self.parts = divide([shard.clips for shard in index.header.shards], workers or room(gpus_per_worker))
        check_resources(len(self.parts), gpus_per_worker)
        restarted = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS}
        actor = self._ray.remote(ShardWorker).options(num_cpus=1, num_gpus=gpus_per_worker, **restarted)
        device = "cuda" if gpus_per_worker else "cpu"
        folder = index.folder.resolve()
        self.actors = [
            actor.remote(folder, index.header, part, number, device) for number, part in enumerate(self.parts)
        ]
        self.limits = self._ray.remote(Limits).options(num_cpus=0, max_restarts=-1).remote()
        self.reports: list[scav_kernels.SearchReport] = []
        self._searches = 0

    def exact(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Return distances (Q, k), ascending, and numbers (Q, k) of the nearest of at least k clips; of ties, the lower
        number comes first."""
        self._searches += 1
        asked = self._ray.put(queries)
        found = self._results([actor.exact.remote(asked, k, self._searches, self.limits) for actor in self.actors])
        self.reports = [part.report for part in found]
        distances = torch.cat([part.distances for part in found], dim=1)
        return smallest(distances, torch.cat([part.numbers for part in found], dim=1), k)

    def nearest_means(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Return distances 1 − cosine (Q, k), ascending, and numbers (Q, k) of the clips with the nearest means."""
        asked = self._ray.put(queries)
        found = self._results([actor.best_scores.remote(asked, k) for actor in self.actors])
        scores, numbers = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        scores, numbers = largest(scores, numbers, k)
        return 1 - scores, numbers

    def _results(self, asked: Sequence[Any]) -> list[Any]:
        """Return the results in the order of the parts. Of several errors, raise that of the first part."""
        with Progress(total=len(asked), desc="search", unit="part", delay=2, leave=False) as bar:
            waiting = list(asked)
            while waiting:
                _, waiting = self._ray.wait(waiting)
                bar.update(len(asked) - len(waiting) - bar.n)
        try:
            return [self._ray.get(answer) for answer in asked]
        except self._ray.exceptions.RayTaskError as error:
            # What a part says of itself, not the way that it came.
            raise error.cause from None
        except self._ray.exceptions.RayActorError as error:
            raise ClusterError(
                f"a search worker died {RESTARTS + 1} times, each time in the same part of the index, out of memory or "
                "with its machine; use more workers, so that each has less, or machines with more memory"
            ) from error

    def close(self) -> None:
        for actor in (*self.actors, self.limits):
            self._ray.kill(actor)

    def __enter__(self) -> SearchWorkers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def divide(clips: Sequence[int], workers: int) -> list[range]:
    """Divide shards with these numbers of clips among at most `workers` workers: neighbors, with similar totals."""
    ends = np.cumsum(clips)
    total = int(ends[-1]) if len(ends) else 0
    # The shard in whose middle a share of the clips ends goes to whoever has the larger part of it.
    middles = ends - np.asarray(clips) / 2
    edges = np.searchsorted(middles, [total * part / workers for part in range(workers + 1)])
    edges[-1] = len(ends)
    return [range(int(low), int(high)) for low, high in pairwise(edges) if low < high]


@contextmanager
def search_workers(
    address: str | None, index: IndexReader, workers: int | None = None, gpus_per_worker: float = 0.0
) -> Iterator[SearchWorkers | None]:
    """Enter with the workers of the cluster at an address; with None if there is no address.

    Args:
        workers: Workers of the cluster, at most one for each shard of the index; null takes as many as it has room for.
        gpus_per_worker: Share of a GPU that each worker compares on; 0 compares on CPUs, one for each.

    Raises:
        SearchIndexError: settings of workers without an address.
    """
    if address is None:
        if workers is not None or gpus_per_worker:
            raise SearchIndexError(
                "expected --ray with --workers and --gpus_per_worker, got them alone; add --ray local"
            )
        yield None
        return
    # Ray tells of a worker's death on stdout, where the answer goes.
    with (
        redirect_stdout(sys.stderr),
        connect(address),
        SearchWorkers(index, workers, gpus_per_worker=gpus_per_worker) as made,
    ):
        yield made
