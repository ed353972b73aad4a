"""Write a feature store, so that a crash at any moment loses at most the clips of one shard."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import torch
from safetensors.torch import save
from torch import Tensor

from scav_model.data.ids import name_problem
from scav_model.data.store.header import (
    DTYPES,
    EMPTY_SHA256,
    FOLDER,
    HEADER,
    INDEX,
    MANIFEST,
    SKIPPED,
    Entry,
    Skipped,
    StoreError,
    StoreHeader,
    StoreShard,
    shard_name,
)
from scav_model.data.store.reader import manifest_columns, read_columns, read_list, read_skipped
from scav_model.storage.committed_folder import FolderWriter
from scav_model.storage.files import (
    LOCK,
    is_partial,
    make_folder,
    remove_partial,
    sha256_of_bytes,
    write_whole,
    writing,
)
from scav_model.storage.strict_json import is_writable

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

SHARD_BYTES = 256 << 20


class StoreWriter(FolderWriter):
    """Add clips to a new store, or to an unfinished store with the same settings.

    Args:
        folder: folder of the store; made if need be.
        header: describes the features; the store fills in its lists.
        shard_bytes: bytes of a shard, from which on it is written.

    Attributes:
        done: ids of the clips in the store.
        skipped: ids of the clips that could not be used.
    """

    def __init__(self, folder: Path | str, header: StoreHeader, *, shard_bytes: int = SHARD_BYTES) -> None:
        if header.dtype not in DTYPES:
            raise StoreError(f"expected the store's dtype to be one of {', '.join(DTYPES)}, got {header.dtype!r}")
        if shard_bytes < 1:
            raise StoreError(f"expected shard_bytes to be at least 1, got {shard_bytes}")
        self.shard_bytes = shard_bytes
        self._dtype = DTYPES[header.dtype]
        make_folder(Path(folder))
        self.done: set[str] = set()
        self.skipped: set[str] = set()
        super().__init__(Path(folder), FOLDER)
        try:
            self.header = self._open(header)
            # Hashes of the valid part of each list.
            self._hashes = {
                lines.name: hashlib.sha256(read_list(self.folder, lines))
                for lines in (self.header.manifest, self.header.skipped)
            }
        except BaseException:
            self.close()
            raise
        self._beside = self.folder.resolve().parent
        self._entries: list[Entry] = []
        self._video: list[Tensor] = []
        self._audio: list[Tensor] = []
        self._bytes = 0
        self._skipped: list[Skipped] = []

    def _open(self, header: StoreHeader) -> StoreHeader:
        if not os.path.lexists(self.folder / HEADER):
            if others := [path.name for path in self.folder.iterdir() if not _is_beginning(path)]:
                raise StoreError(f"{self.folder} is no feature store and holds {others[0]}; choose another folder")
            remove_partial(self.folder)
            for name in (MANIFEST, SKIPPED):
                with writing(self.folder / name):
                    (self.folder / name).write_bytes(b"")
            header.write(self.folder)
            return header
        found = StoreHeader.read(self.folder)
        if differing := found.differences(header):
            raise StoreError(
                f"{self.folder} was begun with other settings ({'; '.join(differing)}); "
                "repeat those, or extract into another folder"
            )
        # Checked before anything is changed, because the store may come from a stranger.
        self.done = set(read_columns(self.folder, found).ids)
        self.skipped = {clip.id for clip in read_skipped(self.folder)}
        self._clear(found)
        return found

    def _clear(self, header: StoreHeader) -> None:
        """Remove what a killed process left and the header does not list."""
        FOLDER.remove_unlisted(self.folder, {shard.name for shard in header.shards})
        for lines in (header.manifest, header.skipped):
            path = self.folder / lines.name
            if path.stat().st_size > lines.bytes:
                with writing(path):
                    os.truncate(path, lines.bytes)

    def add(self, entry: Entry, video: Tensor, audio: Tensor) -> str | None:
        """Add a clip's video (N, Dv) and audio (M, Da), float32. Return the reason if it was not added, else None."""
        if entry.id in self.done:
            raise StoreError(f"{entry.id!r} is in the store already; ids must be unique")
        if problem := name_problem("id", entry.id):
            raise StoreError(problem)
        stored = []
        for side, steps, dim in (
            ("video", video, self.header.video["dim"]),
            ("audio", audio, self.header.audio["dim"]),
        ):
            if steps.ndim != 2 or steps.shape[1] != dim or not len(steps):
                raise StoreError(f"{side} of {entry.id!r}: expected (steps, {dim}), got {tuple(steps.shape)}")
            stored.append(steps.to(self._dtype).contiguous())
            if not bool(stored[-1].isfinite().all()):
                return f"{side} features are not finite in {self.header.dtype}"
        self.done.add(entry.id)
        self._entries.append(entry)
        self._video.append(stored[0])
        self._audio.append(stored[1])
        self._bytes += sum(steps.nbytes for steps in stored)
        if self._bytes >= self.shard_bytes:
            self.commit()
        return None

    def skip(self, skipped: Skipped) -> None:
        """List a clip as one that could not be used."""
        self._skipped.append(skipped)
        self.skipped.add(skipped.id)

    def forget_skipped(self) -> None:
        """Empty the list of clips that could not be used, so that they are tried again."""
        self.skipped.clear()
        self._hashes[SKIPPED] = hashlib.sha256()
        self.header.skipped_bytes, self.header.skipped_sha256 = 0, EMPTY_SHA256
        self.header.write(self.folder)
        with writing(self.folder / SKIPPED):
            os.truncate(self.folder / SKIPPED, 0)

    def commit(self) -> None:
        """Write the added clips to the disk: shard, lists and last the header, which makes them part of the store.

        After an exception, such as Ctrl-C, the call may be repeated.
        """
        if not self._entries and not self._skipped:
            return
        header = replace(self.header, shards=list(self.header.shards), finished=False)
        lines = self._write_shard(header) if self._entries else []
        reasons = [
            orjson.dumps({name: _encodable(value) for name, value in asdict(clip).items()}) for clip in self._skipped
        ]
        hashes = {
            MANIFEST: self._append(MANIFEST, header.manifest_bytes, lines),
            SKIPPED: self._append(SKIPPED, header.skipped_bytes, reasons),
        }
        header.manifest_bytes += sum(len(line) + 1 for line in lines)
        header.skipped_bytes += sum(len(line) + 1 for line in reasons)
        if lines:
            header.index_sha256 = None
        self._count(header, hashes)
        self._entries, self._video, self._audio, self._skipped = [], [], [], []
        self._bytes = 0

    def _write_shard(self, header: StoreHeader) -> list[bytes]:
        """Write the added clips as a shard, list it in `header`, and return their lines of the manifest."""
        name = shard_name(len(header.shards))
        content = save({"video": torch.cat(self._video), "audio": torch.cat(self._audio)})
        write_whole(self.folder / name, content)
        digest = sha256_of_bytes(content)
        header.shards.append(StoreShard(name, len(self._entries), len(content), digest))
        return [
            self._line(entry, name, len(video), len(audio))
            for entry, video, audio in zip(self._entries, self._video, self._audio, strict=True)
        ]

    def _line(self, entry: Entry, shard: str, video_length: int, audio_length: int) -> bytes:
        """Return the line of a clip in the manifest."""
        line = {
            "id": entry.id,
            "shard": shard,
            "video_length": video_length,
            "audio_length": audio_length,
            "video_rate_hz": self.header.video["rate_hz"],
            "audio_rate_hz": self.header.audio["rate_hz"],
            "seconds": round(entry.seconds, 6),
            "label": entry.label,
            "split": entry.split,
        }
        # If JSON cannot hold the path, the clip is kept without its media.
        if entry.path is not None and is_writable(str(path := Path(entry.path).resolve())):
            line["path"] = str(path.relative_to(self._beside) if path.is_relative_to(self._beside) else path)
            line["start"] = entry.start
        return orjson.dumps(line)

    def _append(self, name: str, valid: int, lines: list[bytes]) -> Hash:
        """Write lines after the first `valid` bytes of a list, and return the hash of all that is valid then."""
        content = b"".join(line + b"\n" for line in lines)
        path = self.folder / name
        with writing(path), path.open("r+b") as file:
            file.truncate(valid)
            file.seek(valid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hashed = self._hashes[name].copy()
        hashed.update(content)
        return hashed

    def _count(self, header: StoreHeader, hashes: dict[str, Hash]) -> None:
        """Replace the header, with these hashes of the lists."""
        header.manifest_sha256, header.skipped_sha256 = hashes[MANIFEST].hexdigest(), hashes[SKIPPED].hexdigest()
        header.write(self.folder)
        self.header, self._hashes = header, hashes

    def finish(self) -> None:
        """Commit, and mark the store as finished: every clip of the manifest has been tried."""
        self.commit()
        manifest = read_list(self.folder, self.header.manifest)
        index = manifest_columns(self.folder, self.header, manifest).to_index(manifest)
        write_whole(self.folder / INDEX, index)
        header = replace(self.header, finished=True, index_sha256=sha256_of_bytes(index))
        self._count(header, self._hashes)


def _encodable(text: str) -> str:
    """Return text that can be written as UTF-8, which names of files need not be."""
    return text.encode(errors="backslashreplace").decode()


def _is_beginning(path: Path) -> bool:
    """Return True if a process that was killed before it wrote the first header may have left the file."""
    if path.name in (MANIFEST, SKIPPED):
        return path.stat().st_size == 0
    return path.name == LOCK or is_partial(path)
