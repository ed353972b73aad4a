"""Names, header and errors of a search index."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scav_model.config import Option
from scav_model.data.store.layout import DTYPES
from scav_model.files import write_whole

FORMAT = 2
HEADER, LOCK = "index.json", ".lock"
SIDES = ("video", "audio")
# Parts that a clip is cut into for its segment means.
SEGMENTS = 4
SHARD_BYTES = 128 << 20


class SearchIndexError(ValueError):
    """An index, or a question to it, that cannot be used as asked; the message says which and what to do."""


class DamagedIndexError(SearchIndexError):
    """A file of the index is not what was written; the message names the file and what is wrong in it."""


@dataclass(frozen=True)
class File:
    """A file of the index, written once and never changed."""

    name: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Shard:
    """Clips that were written together.

    Attributes:
        clips: how many, C.
        sequences: encoded steps of each side, one clip after the other. Its checksum is of what stands before them;
            each clip has one of its own in `columns`.
        begins: byte of `sequences` at which a side's steps begin, by side.
        columns: ids, lengths, checksums and media of the clips.
        vectors: means (C, D) and segment means (C, S, D) of each side, float32.
        flat: FAISS index of each side's means, scaled to length 1, by side.
        bounds: what lower bounds need (`scav_kernels.Summaries`) of each side; None where the metric has no such.
    """

    clips: int
    sequences: File
    begins: dict[str, int]
    columns: File
    vectors: File
    flat: dict[str, File]
    bounds: File | None = None

    def files(self) -> list[File]:
        bounds = [] if self.bounds is None else [self.bounds]
        return [self.sequences, self.columns, self.vectors, *self.flat.values(), *bounds]


@dataclass
class Header:
    """What an index holds, replaced whole with every change: what it does not list is no part of the index.

    Attributes:
        checkpoint: file of the model that encoded the clips, as it was named.
        model_sha256: of the model's weights.
        metric, options, per_step: the distance, as `scav_model.distances.Distance` takes them.
        dim: D, the size of an encoded step.
        dtype: of the encoded steps on disk.
        sides: what can be searched: video, audio or both.
        features: of each side, what the model took: `dim`, `rate_hz` (steps per second, None if not known) and what
            the front end says of itself.
        version: changes since the index was made.
        next_shard: number of the next shard; numbers are never used twice.
        shards: in order; clips are numbered through them from 0.
        deleted: numbers of the clips that count no more, int64 ascending; None: none.
        deleted_clips: how many.
        directions: of each side (K, D), along which its bounds' means are kept; None where there are no bounds.
        common_steps: how many steps most clips of the first shard have, by side.
    """

    checkpoint: str
    model_sha256: str
    metric: str
    options: dict[str, Option]
    per_step: bool
    dim: int
    dtype: str
    sides: list[str]
    features: dict[str, dict[str, Any]]
    version: int = 0
    next_shard: int = 0
    shards: list[Shard] = field(default_factory=list)
    deleted: File | None = None
    deleted_clips: int = 0
    directions: File | None = None
    common_steps: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SearchIndexError(f"expected dtype to be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if not self.sides or any(side not in SIDES for side in self.sides) or len(set(self.sides)) != len(self.sides):
            raise SearchIndexError(f"expected sides to be video, audio or both, got {self.sides}")

    @property
    def written(self) -> int:
        """Clips in the shards, deleted ones included."""
        return sum(shard.clips for shard in self.shards)

    @property
    def clips(self) -> int:
        """Clips that can be found."""
        return self.written - self.deleted_clips

    def differences(self, other: Header) -> list[str]:
        """What keeps `other`'s clips out of this index, front ends excepted: one "field: there …, now …" per field."""
        names = ("model_sha256", "metric", "options", "per_step", "dim", "dtype", "sides")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [f"{name}: there {there!r}, now {now!r}" for name, there, now in pairs if there != now]

    def files(self) -> list[File]:
        """All that the header lists."""
        single = [file for file in (self.deleted, self.directions) if file is not None]
        return [file for shard in self.shards for file in shard.files()] + single

    def write(self, folder: Path) -> None:
        values = {"format": FORMAT, **asdict(self)}
        content = json.dumps({"crc32": _checksum(values), "index": values}, indent=1)
        write_whole(folder / HEADER, (content + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Header:
        path = folder / HEADER
        if not path.is_file():
            raise FileNotFoundError(f"no search index at {folder} (no {HEADER} in it); make one with scav index build")
        try:
            content = json.loads(path.read_bytes())
            crc32, values = content["crc32"], content["index"]
            sound = crc32 == _checksum(values)
            found = values.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedIndexError(
                f"{path} is damaged, or not the header of a search index ({error}); {AGAIN}"
            ) from None
        if not sound:
            raise DamagedIndexError(f"{path} is damaged: its checksum does not fit its content; {AGAIN}")
        if found != FORMAT:
            raise SearchIndexError(
                f"{folder} is a search index of format {found!r}, and this version reads {FORMAT}; build it again"
            )
        values["shards"] = [_shard(entry) for entry in values["shards"]]
        for name in ("deleted", "directions"):
            values[name] = None if values[name] is None else File(**values[name])
        return cls(**values)


AGAIN = "restore the file from a copy, or build the index again"


def _checksum(values: dict[str, Any]) -> int:
    """Of the values, however they are spelt and spaced."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _shard(entry: dict[str, Any]) -> Shard:
    named = ("sequences", "columns", "vectors", "bounds")
    files = {name: File(**entry[name]) for name in named if entry[name] is not None}
    flat = {side: File(**file) for side, file in entry["flat"].items()}
    return Shard(clips=entry["clips"], begins=entry["begins"], flat=flat, **files)


def write_file(folder: Path, name: str, content: bytes, checked: int | None = None) -> File:
    """Write a file of the index, to the disk and whole, and describe it by the checksum of its first `checked` bytes;
    None: of all."""
    write_whole(folder / name, content)
    return File(name, len(content), zlib.crc32(content if checked is None else content[:checked]))


def check_size(folder: Path, file: File) -> Path:
    """The path of a file that is there and as long as it was."""
    path = folder / file.name
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise DamagedIndexError(f"{path} is missing; {AGAIN}") from None
    if size != file.bytes:
        raise DamagedIndexError(f"{path} is damaged: it has {size} bytes, {file.bytes} were written; {AGAIN}")
    return path


def read_file(folder: Path, file: File) -> bytes:
    """The content of a file, found to be what was written."""
    path = check_size(folder, file)
    content = path.read_bytes()
    check_content(path, file, content)
    return content


def check_content(path: Path, file: File, content: bytes | memoryview) -> None:
    found = zlib.crc32(content)
    if len(content) != file.bytes or found != file.crc32:
        raise DamagedIndexError(f"{path} is damaged: its CRC-32 is {found:08x}, not {file.crc32:08x}; {AGAIN}")


def map_file(folder: Path, file: File) -> np.memmap[Any, np.dtype[np.uint8]]:
    """The bytes of a file, mapped; their content is for the caller to check."""
    path = check_size(folder, file)
    # Copy-on-write, for PyTorch has no read-only tensors: a write would reach a private page, never the file.
    return np.memmap(path, dtype=np.uint8, mode="c")
