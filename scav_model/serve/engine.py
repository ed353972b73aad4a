"""Searches, alignments, uploads and media of one index, without HTTP."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from scav_kernels.ops.registry import METRICS
from scav_model.data.decode import DecodeError, Limits
from scav_model.data.folders import PLAYED, SOUND
from scav_model.data.workers import WorkerDied, WorkerError, WorkerPool, WorkerTimeout
from scav_model.distances import POOLED_COSINE, Distance
from scav_model.index.align import METRICS as ALIGNED
from scav_model.index.align import Alignment, align
from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.matrix import cost_matrix
from scav_model.index.media import QueryReader, encode_query
from scav_model.index.queries import Queries, make_queries, queries_by_id
from scav_model.index.search import Answer, search
from scav_model.model import AudioVisualModel
from scav_model.serve.convert import ConvertedFiles, convert
from scav_model.serve.jobs import Job, Spectrogram, do, film, poster, read_query, spectrogram

T = TypeVar("T")

MEAN = "mean"
# Uploads that are received or decoded at a time; others are turned away.
AT_ONCE = 4
# Uploads that are kept, as encoded steps, to search again with another metric.
KEPT_UPLOADS = 32
MAX_LIMIT = 1 << 20  # of the megabytes or seconds that an upload may be limited to
PICTURE_BYTES = 64 << 20
CONVERTED_BYTES = 1 << 30
CONVERTING_SECONDS = 300.0
WORKERS = 2
# Cells of a matrix that an alignment is computed for.
MAX_CELLS = 4_000_000
BUSY = "the server reads as many files as it can; try again in a few seconds"


class NotFoundError(LookupError):
    """The requested thing does not exist; the message says why."""


class BusyError(RuntimeError):
    """The server has too much to do; the message says to try again."""


@dataclass(frozen=True)
class UploadLimits:
    """Bounds on an upload.

    Attributes:
        megabytes: of the file.
        seconds: of the clip.
        decode_seconds: that decoding may take.
    """

    megabytes: int = 200
    seconds: float = 120.0
    decode_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value <= MAX_LIMIT:
                raise ValueError(f"expected {name} of an upload to be above 0, at most {MAX_LIMIT}, got {value}")


@dataclass(frozen=True)
class Encoding:
    """The model of the index, and how its front ends read and encode files, by side."""

    model: AudioVisualModel
    encoders: Mapping[str, Any]
    readers: Mapping[str, QueryReader]


@dataclass(frozen=True)
class Upload:
    """A query that was uploaded: its encoded sides; the file itself is deleted."""

    key: str
    name: str
    sides: Mapping[str, Queries]
    missing: Mapping[str, str]
    seconds: float
    film: bytes | None
    sound: Spectrogram | None


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


@dataclass(frozen=True)
class Compared:
    """A query against one clip: the alignment, None where the metric has none, and the costs (N, M)."""

    alignment: Alignment | None
    costs: torch.Tensor
    side: str
    metric: str


@dataclass
class Pictures:
    """Pictures of clips, up to a number of bytes: those asked for longest ago go first."""

    max_bytes: int = PICTURE_BYTES
    _kept: OrderedDict[Any, Any] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Any) -> Any:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def add(self, key: Any, picture: Any) -> None:
        with self._lock:
            self._kept[key] = picture
            while sum(map(size_of, self._kept.values())) > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)


def size_of(picture: bytes | Spectrogram) -> int:
    return len(picture.values if isinstance(picture, Spectrogram) else picture)


class Engine:
    """Answers for one index. Searches take turns; media files are read in worker processes.

    Args:
        index: as it was opened; clips that are added later are not seen.
        encoding: for uploads; None: there can be none, and `no_uploads` says why.
    """

    def __init__(
        self,
        index: IndexReader,
        encoding: Encoding | None = None,
        no_uploads: str = "",
        limits: UploadLimits = UploadLimits(),
    ) -> None:
        self.index, self.encoding, self.no_uploads, self.limits = index, encoding, no_uploads, limits
        self.metric = index.header.metric if index.header.metric != POOLED_COSINE else MEAN
        self.uploads: OrderedDict[str, Upload] = OrderedDict()
        self.pictures = Pictures()
        self._views: dict[str, IndexReader] = {}
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._reading: WorkerPool[Job, Any] = WorkerPool(do, WORKERS, seconds=limits.decode_seconds)
        self._converting: WorkerPool[Job, Any] = WorkerPool(do, 1, seconds=CONVERTING_SECONDS)
        self._folder = tempfile.TemporaryDirectory(prefix="scav-serve-")
        self._converted = ConvertedFiles(Path(self._folder.name), CONVERTED_BYTES)
        self._under_way: dict[int, asyncio.Task[Path]] = {}
        self._uploading = 0

    def start_worker(self) -> Future[Any]:
        """Start a process that reads files, so that the first upload need not wait for it."""
        return self._reading.submit((int, ()))

    def close(self) -> None:
        """End the worker processes and delete the files that were made."""
        self._turns.shutdown(cancel_futures=True)
        self._reading.close()
        self._converting.close()
        self._folder.cleanup()

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
        if (asked.clip is None) == (asked.upload is None):
            raise SearchIndexError("expected clip or upload, one of the two; got both or neither")
        if asked.clip is not None:
            self.number(asked.clip)
            return queries_by_id(self.index, [asked.clip], side)
        upload = self.upload(asked.upload or "")
        if side not in upload.sides:
            raise SearchIndexError(f"the {side} of {upload.name} cannot be used: {upload.missing[side]}")
        return upload.sides[side]

    def number(self, clip: str) -> int:
        """Return the number of the clip with that id."""
        if clip not in self.index.numbers:
            raise NotFoundError(f"no clip of the index has the id {clip!r}")
        return self.index.numbers[clip]

    def upload(self, key: str) -> Upload:
        if key not in self.uploads:
            raise NotFoundError("the upload is not kept any more; upload the file again")
        return self.uploads[key]

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

    async def read(self, path: Path, name: str) -> Upload:
        """Decode and encode an uploaded file, and keep what was encoded.

        Raises:
            DecodeError: the file cannot be used; the message says why.
        """
        encoding = self.encoding
        assert encoding is not None, "the caller asks `no_uploads` first"
        limits = Limits(max_seconds=self.limits.seconds, max_bytes=1 << 30)
        decoded = await self._in_worker(self._reading, read_query, path, dict(encoding.readers), limits)

        def encode() -> dict[str, Queries]:
            return {
                side: make_queries(
                    side, [name], [encode_query(encoding.model, encoding.encoders[side], prepared, side, name)]
                )
                for side, prepared in decoded.prepared.items()
            }

        sides = await self.in_turn(encode)
        upload = Upload(
            secrets.token_urlsafe(16), name, sides, decoded.missing, decoded.seconds, decoded.film, decoded.sound
        )
        self.uploads[upload.key] = upload
        while len(self.uploads) > KEPT_UPLOADS:
            self.uploads.popitem(last=False)
        return upload

    async def _in_worker(self, pool: WorkerPool[Job, Any], function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.wrap_future(pool.submit((function, arguments)))
        except WorkerTimeout as error:
            raise DecodeError(f"the file takes too long to decode: {error}") from error
        except WorkerDied as error:
            raise DecodeError(f"the file cannot be decoded: {error}") from error
        except WorkerError as error:
            raise BusyError(str(error)) from error

    def span(self, number: int) -> tuple[Path, float, float | None]:
        """Return the media file of a clip, its start there, and its seconds.

        Raises:
            NotFoundError: the index knows no file, or it is not there.
        """
        media = self.index.media(number)
        path = media.get("path")
        if not path:
            raise NotFoundError("the index names no media file of this clip; build it with --manifest")
        if not os.path.isfile(path):
            raise NotFoundError("the media file of this clip is not where the index says; put it there")
        return Path(path), float(media.get("start") or 0.0), media.get("seconds") or None

    def kind(self, number: int) -> str | None:
        """Return what the player of a clip plays, video or audio; None where no media file is known."""
        path = self.index.media(number).get("path")
        if not path:
            return None
        return "audio" if Path(path).suffix.lower() in SOUND else "video"

    def offset(self, number: int) -> float:
        """Return the second of the file that a player gets at which the clip starts: a converted file is the clip."""
        media = self.index.media(number)
        played = Path(media.get("path") or "").suffix.lower() in PLAYED
        return float(media.get("start") or 0.0) if played else 0.0

    async def playable(self, clip: str) -> tuple[Path, str]:
        """Return a file that browsers play, and its type: a clip's own, or else a conversion.

        Raises:
            NotFoundError, DecodeError: there is no file, or it cannot be converted.
        """
        number = self.number(clip)
        path, start, seconds = self.span(number)
        if kind := PLAYED.get(path.suffix.lower()):
            return path, kind
        found = self._converted.get(number)
        if found is None:
            task = self._under_way.get(number)
            if task is None:
                task = self._under_way[number] = asyncio.create_task(self._convert(number, path, start, seconds))
                task.add_done_callback(lambda _: self._under_way.pop(number, None))
            found = await asyncio.shield(task)
        return found, "video/mp4"

    async def _convert(self, number: int, path: Path, start: float, seconds: float | None) -> Path:
        made = self._converted.folder / f".{number}.part"
        try:
            await self._in_worker(self._converting, convert, path, made, start, seconds)
            return self._converted.add(number, made)
        finally:
            made.unlink(missing_ok=True)

    async def picture(self, kind: str, asked: Asked, tiles: int = 0) -> bytes | Spectrogram:
        """Return a poster, a film or a spectrogram of a clip or an upload.

        Raises:
            NotFoundError, DecodeError: there is none.
        """
        if asked.upload is not None:
            upload = self.upload(asked.upload)
            kept = upload.sound if kind == "sound" else upload.film
            if kept is None:
                raise NotFoundError(f"{upload.name} has no {'sound' if kind == 'sound' else 'pictures'}")
            return kept
        number = self.number(asked.clip or "")
        key = (kind, number, tiles)
        found = self.pictures.get(key)
        if found is None:
            path, start, seconds = self.span(number)
            if kind == "film":
                if seconds is None:
                    raise NotFoundError("the index does not know how long the clip is")
                found = await self._in_worker(self._reading, film, path, start, seconds, tiles)
            else:
                function: Callable[..., Any] = poster if kind == "poster" else spectrogram
                found = await self._in_worker(self._reading, function, path, start, seconds)
            self.pictures.add(key, found)
        return found

    def begin_upload(self) -> None:
        """
        Raises:
            BusyError: too many uploads are under way.
        """
        if self._uploading >= AT_ONCE:
            raise BusyError(BUSY)
        self._uploading += 1

    def end_upload(self) -> None:
        self._uploading -= 1


WORDS = {"dtw": "DTW", "euclidean": "Euclidean", "sinkhorn": "Sinkhorn"}


def label_of(metric: str) -> str:
    """Return a metric's name as people write it: Soft-DTW."""
    words = " ".join(WORDS.get(word, word) for word in metric.split("_")).replace("soft DTW", "soft-DTW")
    return words[0].upper() + words[1:]
