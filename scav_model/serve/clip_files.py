"""Media files of the clips of an index, as browsers play them, and pictures of them."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scav_model.data.folders import PLAYED, SOUND
from scav_model.index.index import IndexReader
from scav_model.serve.convert import ConvertedFiles, convert
from scav_model.serve.errors import NotFoundError
from scav_model.serve.jobs import Spectrogram, film, poster, spectrogram
from scav_model.serve.workers import MediaWorkers

PICTURE_BYTES = 64 << 20
CONVERTED_BYTES = 1 << 30


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


class ClipFiles:
    """Media files of an index, by the number of their clip."""

    def __init__(self, index: IndexReader, workers: MediaWorkers) -> None:
        self.index, self._workers = index, workers
        self._pictures = Pictures()
        self._folder = tempfile.TemporaryDirectory(prefix="scav-serve-")
        self.converted = ConvertedFiles(Path(self._folder.name), CONVERTED_BYTES)
        self._under_way: dict[int, asyncio.Task[Path]] = {}

    def close(self) -> None:
        """Delete the files that were made."""
        self._folder.cleanup()

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

    async def playable(self, number: int) -> tuple[Path, str]:
        """Return a file that browsers play, and its type: a clip's own, or else a conversion.

        Raises:
            NotFoundError, DecodeError: there is no file, or it cannot be converted.
        """
        path, start, seconds = self.span(number)
        if kind := PLAYED.get(path.suffix.lower()):
            return path, kind
        found = self.converted.get(number)
        if found is None:
            task = self._under_way.get(number)
            if task is None:
                task = self._under_way[number] = asyncio.create_task(self._convert(number, path, start, seconds))
                task.add_done_callback(lambda _: self._under_way.pop(number, None))
            found = await asyncio.shield(task)
        return found, "video/mp4"

    async def _convert(self, number: int, path: Path, start: float, seconds: float | None) -> Path:
        made = self.converted.folder / f".{number}.part"
        try:
            await self._workers.convert(convert, path, made, start, seconds)
            return self.converted.add(number, made)
        finally:
            made.unlink(missing_ok=True)

    async def poster(self, number: int) -> bytes:
        """Return a picture from the middle of a clip, as JPEG; raise as `film` does."""
        found: bytes = await self._picture(poster, number, *self.span(number))
        return found

    async def film(self, number: int, tiles: int) -> bytes:
        """Return pictures evenly through a clip, side by side, as JPEG.

        Raises:
            NotFoundError, DecodeError: there is no file, or it cannot be read.
        """
        path, start, seconds = self.span(number)
        if seconds is None:
            raise NotFoundError("the index does not know how long the clip is")
        found: bytes = await self._picture(film, number, path, start, seconds, tiles)
        return found

    async def sound(self, number: int) -> Spectrogram:
        """Return the spectrogram of a clip; raise as `film` does."""
        found: Spectrogram = await self._picture(spectrogram, number, *self.span(number))
        return found

    async def _picture(self, job: Callable[..., Any], number: int, *arguments: Any) -> Any:
        key = (job.__name__, number, arguments)
        found = self._pictures.get(key)
        if found is None:
            found = await self._workers.read(job, *arguments)
            self._pictures.add(key, found)
        return found
