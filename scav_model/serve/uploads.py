"""Uploaded queries: their limits, how they are read, and the latest of them."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scav_model.data.decode import Limits
from scav_model.index.media import QueryReader, encode_query
from scav_model.index.queries import Queries, make_queries
from scav_model.model import AudioVisualModel
from scav_model.serve.errors import BusyError, NotFoundError
from scav_model.serve.jobs import Spectrogram, read_query
from scav_model.serve.workers import MediaWorkers

# Uploads that are received or decoded at a time; others are turned away.
AT_ONCE = 4
# Uploads that are kept, as encoded steps, to search again with another metric.
KEPT_UPLOADS = 32
MAX_LIMIT = 1 << 20  # of the megabytes or seconds that an upload may be limited to
BUSY = "the server reads as many files as it can; try again in a few seconds"


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


DEFAULT_LIMITS = UploadLimits()


@dataclass(frozen=True)
class Encoding:
    """The model of the index, and how its front ends read and encode files, by side."""

    model: AudioVisualModel
    encoders: Mapping[str, Any]
    readers: Mapping[str, QueryReader]

    def encode(self, prepared: Mapping[str, Any], name: str) -> dict[str, Queries]:
        """Return the sides of a query, by side, from what a worker prepared."""
        return {
            side: make_queries(side, [name], [encode_query(self.model, self.encoders[side], steps, side, name)])
            for side, steps in prepared.items()
        }


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


class Uploads:
    """The latest uploads.

    Args:
        encoding: None: there can be no uploads, and `problem` says why.
        in_turn: runs a function in the thread that computes.
    """

    def __init__(
        self,
        encoding: Encoding | None,
        problem: str,
        limits: UploadLimits,
        workers: MediaWorkers,
        in_turn: Callable[..., Awaitable[Any]],
    ) -> None:
        self.encoding, self.problem, self.limits = encoding, problem, limits
        self._workers, self._in_turn = workers, in_turn
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._under_way = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take one of the places for files that are received or read.

        Raises:
            BusyError: all are taken.
        """
        if self._under_way >= AT_ONCE:
            raise BusyError(BUSY)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def read(self, path: Path, name: str) -> Upload:
        """Decode and encode an uploaded file, and keep what was encoded.

        Raises:
            DecodeError: the file cannot be used; the message says why.
        """
        encoding = self.encoding
        assert encoding is not None, "the caller asks for `problem` first"
        limits = Limits(max_seconds=self.limits.seconds, max_bytes=1 << 30)
        decoded = await self._workers.read(read_query, path, dict(encoding.readers), limits)
        sides = await self._in_turn(encoding.encode, decoded.prepared, name)
        key = secrets.token_urlsafe(16)
        upload = Upload(key, name, sides, decoded.missing, decoded.seconds, decoded.film, decoded.sound)
        self._kept[key] = upload
        while len(self._kept) > KEPT_UPLOADS:
            self._kept.popitem(last=False)
        return upload

    def find(self, key: str) -> Upload:
        """
        Raises:
            NotFoundError: no such upload, or it is not kept any more.
        """
        # Threads other than that of `read` ask too: a look before the leap would race with it.
        upload = self._kept.get(key)
        if upload is None:
            raise NotFoundError("the upload is not kept any more; upload the file again")
        return upload
