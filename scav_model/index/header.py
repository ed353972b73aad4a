"""Header, file names and errors of a search index."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load

from scav_model.config import Option
from scav_model.data.store.header import DTYPES
from scav_model.storage.committed_folder import FolderFormat
from scav_model.storage.files import write_whole
from scav_model.storage.strict_json import Fields
from scav_model.storage.tensors import load_expected
from scav_model.storage.text import shown

FORMAT = 3
# Format 2 keeps the means in other files. Both formats are read; a change makes an index one of format 3.
FORMATS = (2, FORMAT)
HEADER = "index.json"
# Names of the other files, all of which are in the folder of the index.
NAMES = re.compile(r"(shard|deleted|directions)-[0-9]+(\.[a-z]+)+")
SIDES = ("video", "audio")
SHARD_BYTES = 128 << 20


class SearchIndexError(ValueError):
    """An index, or a search in it, that is not possible as asked; the message says why and what to do."""


class DamagedIndexError(SearchIndexError):
    """A file of the index differs from what was written; the message names the file and the difference."""


class MissingFileError(DamagedIndexError):
    """A file of the index is missing; a writer may have removed it."""


AGAIN = "restore the file from a copy, or build the index again"
FOLDER = FolderFormat(
    kind="search index",
    header=HEADER,
    versions=FORMATS,
    prefixes=("shard-", "deleted-", "directions-"),
    checksum=zlib.crc32,
    mismatch="is damaged: its CRC-32",
    no_folder="make one with scav index build",
    old_version="build it again",
    restore=AGAIN,
    error=SearchIndexError,
    damaged=DamagedIndexError,
    missing=MissingFileError,
)


@dataclass(frozen=True)
class File:
    """A file of the index, written once and never changed."""

    name: str
    bytes: int
    crc32: int

    @property
    def checksum(self) -> int:
        return self.crc32


@dataclass(frozen=True)
class Shard:
    """Clips that were written together.

    Attributes:
        clips: how many, C.
        sequences: encoded steps of each side, one clip after the other. Its checksum is of what stands before them;
            each clip has one of its own in `columns`.
        begins: byte of `sequences` at which a side's steps begin, by side.
        columns: ids, lengths, checksums and media of the clips.
        means: mean steps (C, D) of each side, scaled to length 1, float32; none in a shard of format 2.
        vectors: of a shard of format 2, means (C, D) that are not scaled, and segment means (C, 4, D), float32.
        bounds: what lower bounds need (`scav_kernels.Summaries`) of each side; None where the metric has no such.
    """

    clips: int
    sequences: File
    begins: dict[str, int]
    columns: File
    means: dict[str, File]
    vectors: File | None = None
    bounds: File | None = None

    def files(self) -> list[File]:
        optional = [file for file in (self.vectors, self.bounds) if file is not None]
        return [self.sequences, self.columns, *self.means.values(), *optional]


@dataclass
class Header:
    """Contents of an index. Each change replaces the whole header; a file that is not listed is no part of the index.

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
        _check_sides(self.sides)

    @property
    def written(self) -> int:
        """Clips in the shards, deleted ones included."""
        return sum(shard.clips for shard in self.shards)

    @property
    def clips(self) -> int:
        """Clips that can be found."""
        return self.written - self.deleted_clips

    def differences(self, other: Header) -> list[str]:
        """Return the settings that differ from those of `other`, except front ends, as "field: there …, now …"."""
        names = ("model_sha256", "metric", "options", "per_step", "dim", "dtype", "sides")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return [f"{name}: there {there!r}, now {now!r}" for name, there, now in pairs if there != now]

    def files(self) -> list[File]:
        """Return all files that the header lists."""
        single = [file for file in (self.deleted, self.directions) if file is not None]
        return [file for shard in self.shards for file in shard.files()] + single

    def write(self, folder: Path) -> None:
        values = {"format": FORMAT, **asdict(self)}
        FOLDER.write_header(folder, {"crc32": FOLDER.header_checksum(values), "index": values}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Header:
        """
        Raises:
            FileNotFoundError: no index in the folder.
            DamagedIndexError: the header is not what was written.
            SearchIndexError: an index of an unknown format.
        """
        return FOLDER.read_header(folder, _unseal, _header)


def _unseal(content: Any) -> tuple[Any, dict[str, Any]]:
    fields = Fields(content, "the file")
    values = fields.mapping("index")
    if fields.integer("crc32") != FOLDER.header_checksum(values):
        raise ValueError("its CRC-32 does not fit its content")
    return values.pop("format", None), values


def _check_sides(sides: list[str]) -> None:
    if sorted(sides, key=str) not in (["audio"], ["video"], ["audio", "video"]):
        raise SearchIndexError(f"expected sides to be video, audio or both, got {shown(sides)}")


def _header(values: dict[str, Any], version: int) -> Header:
    """
    Raises:
        ValueError: a field is missing or not what it should be.
    """
    fields = Fields(values, "the header")
    fields.only(Header.__dataclass_fields__)
    sides = fields.items("sides")
    _check_sides(sides)
    options, features, steps = (fields.mapping(name) for name in ("options", "features", "common_steps"))
    if any(type(value) not in (bool, int, float, str, NoneType) for value in options.values()):
        raise ValueError(f"expected 'options' to be plain values, got {shown(options)}")
    for side in SIDES:
        _features(Fields(features, "features").mapping(side), side)
    for side in steps:
        Fields(steps, "common_steps").integer(side, at_least=1)
    header = Header(
        checkpoint=fields.text("checkpoint"),
        model_sha256=fields.text("model_sha256"),
        metric=fields.text("metric"),
        options=options,
        per_step=fields.flag("per_step"),
        dim=fields.integer("dim", at_least=1),
        dtype=fields.text("dtype"),
        sides=sides,
        features=features,
        version=fields.integer("version"),
        next_shard=fields.integer("next_shard"),
        shards=[_shard(entry, number, sides, version) for number, entry in enumerate(fields.items("shards"))],
        deleted=_optional_file(values.get("deleted"), "deleted"),
        deleted_clips=fields.integer("deleted_clips"),
        directions=_optional_file(values.get("directions"), "directions"),
        common_steps=steps,
    )
    if header.deleted is None and header.deleted_clips:
        raise ValueError(f"it counts {header.deleted_clips} deleted clips and does not list them")
    return header


def _features(values: dict[str, Any], side: str) -> None:
    fields = Fields(values, f"the features of {side}")
    fields.integer("dim", at_least=1)
    if fields.take("rate_hz", (int, float, NoneType), "a number or null") is not None:
        fields.positive("rate_hz")
    for text in ("encoder", "model"):
        if text in values:
            fields.text(text)


def _shard(values: Any, number: int, sides: list[str], version: int) -> Shard:
    if version == 2 and isinstance(values, dict):
        # Format 2 kept a FAISS index of the means, `flat`, beside the means in `vectors`.
        values = {name: value for name, value in values.items() if name != "flat"} | {"means": {}}
    fields = Fields(values, f"shard {number}")
    fields.only(Shard.__dataclass_fields__)
    begins, means = fields.mapping("begins"), fields.mapping("means")
    vectors = _optional_file(values.get("vectors"), "vectors")
    for found in (begins, means) if vectors is None else (begins,):
        if set(found) != set(sides):
            raise ValueError(f"expected shard {number} to hold {' and '.join(sides)}, got {shown(sorted(found))}")
    for side in sides:
        Fields(begins, "begins").integer(side, at_least=8)
    return Shard(
        clips=fields.integer("clips", at_least=1),
        sequences=_file(values.get("sequences"), "sequences"),
        begins=begins,
        columns=_file(values.get("columns"), "columns"),
        means={side: _file(means[side], f"means of {side}") for side in sides} if vectors is None else {},
        vectors=vectors,
        bounds=_optional_file(values.get("bounds"), "bounds"),
    )


def _file(values: Any, role: str) -> File:
    fields = Fields(values, f"the file of {role}")
    fields.only(File.__dataclass_fields__)
    name = fields.text("name")
    if not NAMES.fullmatch(name):
        raise ValueError(f"expected the name of a file of an index for {role}, got {shown(name)}")
    return File(name, fields.integer("bytes", at_least=1), fields.integer("crc32"))


def _optional_file(values: Any, role: str) -> File | None:
    return None if values is None else _file(values, role)


def write_file(folder: Path, name: str, content: bytes, checked: int | None = None) -> File:
    """Write a file of the index and return what the header says of it; the checksum is that of the first `checked`
    bytes, or of all."""
    write_whole(folder / name, content)
    return File(name, len(content), zlib.crc32(content if checked is None else content[:checked]))


def read_deleted(folder: Path, header: Header) -> NDArray[np.int64]:
    """Return the numbers of the deleted clips, ascending.

    Raises:
        DamagedIndexError: the file is damaged, or a number is of no clip of the index.
    """
    if header.deleted is None:
        return np.zeros(0, dtype=np.int64)
    content = FOLDER.read_file(folder, header.deleted)
    numbers = np.frombuffer(content, dtype=np.int64) if len(content) % 8 == 0 else np.zeros(0, dtype=np.int64)
    within = len(numbers) and numbers[0] >= 0 and numbers[-1] < header.written and (np.diff(numbers) > 0).all()
    if not within or len(numbers) != header.deleted_clips:
        raise DamagedIndexError(
            f"{folder / header.deleted.name} is damaged: expected {header.deleted_clips} numbers of clips below "
            f"{header.written}, ascending; {AGAIN}"
        )
    return numbers


def load_tensors(
    path: Path,
    content: bytes,
    expected: Mapping[str, tuple[Any, Sequence[int | None]]],
    load: Callable[[bytes], dict[str, Any]] = load,
) -> Any:
    """Return the tensors of a file whose checksum was checked.

    Args:
        load: `safetensors.torch.load`, or that of `safetensors.numpy` for arrays.

    Raises:
        DamagedIndexError: the file holds other tensors than expected, so no writer of an index made it.
    """
    try:
        return load_expected(load, content, expected)
    except ValueError as error:
        raise DamagedIndexError(f"{path} is damaged: {error}; {AGAIN}") from None
