"""Searches and alignments of one index, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from scav_kernels.ops.registry import METRICS
from scav_model.distances import POOLED_COSINE, Distance
from scav_model.index.align import METRICS as ALIGNED
from scav_model.index.align import Alignment, align
from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.matrix import cost_matrix
from scav_model.index.queries import Queries, queries_by_id
from scav_model.index.search import Answer, search
from scav_model.serve.clip_files import ClipFiles
from scav_model.serve.errors import NotFoundError
from scav_model.serve.jobs import Spectrogram
from scav_model.serve.uploads import DEFAULT_LIMITS, Encoding, UploadLimits, Uploads
from scav_model.serve.workers import MediaWorkers

T = TypeVar("T")

MEAN = "mean"
# Cells of a matrix that an alignment is computed for.
MAX_CELLS = 4_000_000


@dataclass(frozen=True)
class MetricName:
    """A distance to search by, as the API and as people name it."""

    name: str
    label: str
    order: bool  # whether it compares sequences, and not means alone


@dataclass(frozen=True)
class Asked:
    """A query: the id of a clip of the index, or the key of an upload."""

    clip: str | None = None
    upload: str | None = None

    def check(self) -> None:
        """
        Raises:
            SearchIndexError: both or neither of clip and upload.
        """
        if (self.clip is None) == (self.upload is None):
            raise SearchIndexError("expected clip or upload, one of the two; got both or neither")


@dataclass(frozen=True)
class Compared:
    """A query against one clip: the alignment, None where the metric has none, and the costs (N, M)."""

    alignment: Alignment | None
    costs: torch.Tensor
    side: str
    metric: str


class Engine:
    """Answers for one index. Searches take turns; media files are read in worker processes.

    Args:
        index: as it was opened; clips that are added later are not seen.
        encoding: for uploads; None: there can be none, and `no_uploads` says why.
        limits: of uploads.

    Attributes:
        metric: by which the index searches unless another is named.
        uploads: the latest uploads.
        files: media files of the clips.
        workers: processes that read media files.
    """

    def __init__(
        self,
        index: IndexReader,
        encoding: Encoding | None = None,
        no_uploads: str = "",
        limits: UploadLimits = DEFAULT_LIMITS,
    ) -> None:
        self.index = index
        self.metric = index.header.metric if index.header.metric != POOLED_COSINE else MEAN
        self.workers = MediaWorkers(limits.decode_seconds)
        self.files = ClipFiles(index, self.workers)
        self.uploads = Uploads(encoding, no_uploads, limits, self.workers, self.in_turn)
        self._views: dict[str, IndexReader] = {}
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="search")

    def close(self) -> None:
        """End the worker processes and delete the files that were made."""
        self._turns.shutdown(cancel_futures=True)
        self.workers.close()
        self.files.close()

    def metrics(self) -> list[MetricName]:
        """Return the distances that the index can be searched by."""
        return [MetricName(MEAN, "Mean, without order", False)] + [
            MetricName(name, label_of(name), True) for name in METRICS
        ]

    async def in_turn(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in the one thread that computes, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._turns, function, *arguments)

    def view(self, metric: str) -> IndexReader:
        """Return the index as it is searched by a metric; its own has the options that it was built with.

        Raises:
            SearchIndexError: no such metric.
        """
        if metric not in self._views:
            if metric != MEAN and metric not in METRICS:
                known = ", ".join(entry.name for entry in self.metrics())
                raise SearchIndexError(f"expected metric to be one of {known}, got {metric!r}")
            name = POOLED_COSINE if metric == MEAN else metric
            own = self.index.header.metric
            self._views[metric] = self.index if name == own else self.index.measured_by(Distance(name))
        return self._views[metric]

    def queries(self, asked: Asked, side: str) -> Queries:
        """
        Raises:
            NotFoundError: no such clip or upload.
            SearchIndexError: the query does not have that side; both or neither of clip and upload.
        """
        asked.check()
        if asked.clip is not None:
            self.number(asked.clip)
            return queries_by_id(self.index, [asked.clip], side)
        upload = self.uploads.find(asked.upload or "")
        if side not in upload.sides:
            raise SearchIndexError(f"the {side} of {upload.name} cannot be used: {upload.missing[side]}")
        return upload.sides[side]

    def number(self, clip: str) -> int:
        """Return the number of the clip with that id."""
        if clip not in self.index.numbers:
            raise NotFoundError(f"no clip of the index has the id {clip!r}")
        return self.index.numbers[clip]

    def search(self, asked: Asked, side: str, metric: str, k: int) -> Answer:
        """Return the k clips nearest to a query by a metric; raise as `queries` and `view` do."""
        queries, view = self.queries(asked, side), self.view(metric)
        return search(view, queries, k, mode="mean" if metric == MEAN else "exact")

    @torch.no_grad()
    def compare(self, asked: Asked, side: str, metric: str, hit: str) -> Compared:
        """Return how a query and a clip align.

        Raises:
            NotFoundError, SearchIndexError: as `queries` and `view` do; sequences that are too long to draw.
        """
        queries, view, number = self.queries(asked, side), self.view(metric), self.number(hit)
        self.index.check_side(queries.target)
        query, clip = queries.steps(0), self.index.steps(queries.target, number)
        if len(query) * len(clip) > MAX_CELLS:
            raise SearchIndexError(
                f"{len(query)} steps against {len(clip)} are too many to draw; expected at most {MAX_CELLS} pairs"
            )
        rates = {name: self.index.header.features[name]["rate_hz"] for name in ("video", "audio")}
        aligned = align(view.distance, query, clip, side, rates) if view.distance.metric in ALIGNED else None
        return Compared(aligned, cost_matrix(view.distance, query, clip, side), side, metric)

    async def film(self, asked: Asked, tiles: int) -> bytes:
        """Return pictures evenly through a query, side by side, as JPEG.

        Raises:
            NotFoundError, DecodeError: there are none.
            SearchIndexError: both or neither of clip and upload.
        """
        asked.check()
        if asked.upload is None:
            return await self.files.film(self.number(asked.clip or ""), tiles)
        upload = self.uploads.find(asked.upload)
        if upload.film is None:
            raise NotFoundError(f"{upload.name} has no pictures")
        return upload.film

    async def sound(self, asked: Asked) -> Spectrogram:
        """Return the spectrogram of a query; raise as `film` does."""
        asked.check()
        if asked.upload is None:
            return await self.files.sound(self.number(asked.clip or ""))
        upload = self.uploads.find(asked.upload)
        if upload.sound is None:
            raise NotFoundError(f"{upload.name} has no sound")
        return upload.sound


WORDS = {"dtw": "DTW", "euclidean": "Euclidean", "sinkhorn": "Sinkhorn"}


def label_of(metric: str) -> str:
    """Return a metric's name as people write it: Soft-DTW."""
    words = " ".join(WORDS.get(word, word) for word in metric.split("_")).replace("soft DTW", "soft-DTW")
    return words[0].upper() + words[1:]
