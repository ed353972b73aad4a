"""Header, file names and entries of a feature store."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias

import torch

from scav_model.storage.committed_folder import FolderFormat
from scav_model.storage.files import sha256_of_bytes
from scav_model.storage.strict_json import MAX_BYTES, Fields
from scav_model.storage.text import shown

FORMAT = 3
# Stores of format 2 have checksums of their shards alone.
READABLE = (2, FORMAT)
HEADER, MANIFEST, SKIPPED, INDEX = (
    "header.json",
    "manifest.jsonl",
    "skipped.jsonl",
    "index.safetensors",
)
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ITEM_BYTES = {name: dtype.itemsize for name, dtype in DTYPES.items()}

FIELDS_OF_FORMAT_2 = (
    "video",
    "audio",
    "dtype",
    "versions",
    "finished",
    "shards",
    "manifest_bytes",
    "skipped_bytes",
)
# Bytes of a clip's line in the manifest, on average.
MAX_LINE = 1 << 16
EMPTY_SHA256 = sha256_of_bytes(b"")


class StoreError(ValueError):
    """A feature store that cannot be used as asked; the message says why and what to do."""


AGAIN = "copy the store again, or extract into a new folder"
FOLDER = FolderFormat(
    kind="feature store",
    header=HEADER,
    versions=READABLE,
    prefixes=("shard-",),
    checksum=sha256_of_bytes,
    mismatch="was changed: its SHA-256",
    no_folder="extract the features first",
    old_version="extract again",
    restore=AGAIN,
    error=StoreError,
    damaged=StoreError,
    missing=StoreError,
)


@dataclass(frozen=True)
class Entry:
    """A clip of the manifest, without the shard and the lengths, which the store adds.

    Attributes:
        seconds: duration of the media that the features cover.
        path: media file; None if unknown. If the file is below the parent of the store's folder, the store keeps the
            path relative to that parent, so that both can be moved together.
        start: second of the file at which the clip begins.
    """

    id: str
    split: str
    seconds: float
    label: str | None = None
    path: Path | None = None
    start: float = 0.0


@dataclass(frozen=True)
class Skipped:
    """A clip that could not be used."""

    id: str
    path: str
    reason: str


@dataclass(frozen=True)
class StoreShard:
    """A shard of the store."""

    name: str
    clips: int
    bytes: int
    sha256: str

    @property
    def checksum(self) -> str:
        return self.sha256


@dataclass(frozen=True)
class ValidLines:
    """The first `bytes` bytes of a list, which are valid, and their checksum; None in a store of format 2."""

    name: str
    bytes: int
    checksum: str | None


@dataclass
class StoreHeader:
    """Contents of a store.

    Attributes:
        video, audio: `dim`, `rate_hz` (steps per second) and what the encoder says of itself.
        dtype: dtype of the numbers on disk: float32, bfloat16 or float16.
        versions: versions of the libraries that began the store.
        finished: True if every clip of the given manifest has been tried.
        shards: the shards, in order.
        manifest_bytes, skipped_bytes: valid bytes of the two lists; a killed process may have written more.
        manifest_sha256, skipped_sha256: SHA-256 of these bytes; None in a store of format 2.
        index_sha256: SHA-256 of the index; None if there is no index of this very manifest.
    """

    video: dict[str, Any]
    audio: dict[str, Any]
    dtype: str = "float32"
    versions: dict[str, str] = field(default_factory=dict)
    finished: bool = False
    shards: list[StoreShard] = field(default_factory=list)
    manifest_bytes: int = 0
    skipped_bytes: int = 0
    manifest_sha256: str | None = EMPTY_SHA256
    skipped_sha256: str | None = EMPTY_SHA256
    index_sha256: str | None = None

    @property
    def manifest(self) -> ValidLines:
        return ValidLines(MANIFEST, self.manifest_bytes, self.manifest_sha256)

    @property
    def skipped(self) -> ValidLines:
        return ValidLines(SKIPPED, self.skipped_bytes, self.skipped_sha256)

    @property
    def clips(self) -> int:
        return sum(shard.clips for shard in self.shards)

    def write(self, folder: Path) -> None:
        # As JSON gives them back: lists for tuples.
        values = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        FOLDER.write_header(folder, {"sha256": FOLDER.header_checksum(values), **values}, indent=2)

    @classmethod
    def read(cls, folder: Path) -> StoreHeader:
        """
        Raises:
            FileNotFoundError: no store in the folder.
            StoreError: a damaged header, or a store of an unknown format.
        """
        return FOLDER.read_header(folder, _unseal, cls._parse)

    @classmethod
    def _parse(cls, values: dict[str, Any], version: int) -> StoreHeader:
        fields = Fields(values, "the header")
        names = [*FIELDS_OF_FORMAT_2]
        if version == FORMAT:
            names += ["manifest_sha256", "skipped_sha256", "index_sha256"]
        fields.only(("format", *names))
        dtype = fields.text("dtype")
        if dtype not in DTYPES:
            raise ValueError(f"expected the dtype to be one of {', '.join(DTYPES)}, got {shown(dtype)}")
        versions = fields.mapping("versions")
        if any(type(number) is not str for number in versions.values()):
            raise ValueError(f"expected 'versions' to be text, got {shown(versions)}")

        def checksum(name: str) -> str | None:
            return None if version < FORMAT else fields.text(name)

        header = cls(
            video=_side(fields.mapping("video"), "video"),
            audio=_side(fields.mapping("audio"), "audio"),
            dtype=dtype,
            versions=versions,
            finished=fields.flag("finished"),
            shards=[_shard(entry, number) for number, entry in enumerate(fields.items("shards"))],
            manifest_bytes=fields.integer("manifest_bytes"),
            skipped_bytes=fields.integer("skipped_bytes"),
            manifest_sha256=checksum("manifest_sha256"),
            skipped_sha256=checksum("skipped_sha256"),
            index_sha256=None if version < FORMAT else fields.take("index_sha256", (str, NoneType), "text or null"),
        )
        # A file of zeros takes no space on the disk, and all of it in memory.
        for name, there, most in (
            ("manifest_bytes", header.manifest_bytes, header.clips * MAX_LINE),
            ("skipped_bytes", header.skipped_bytes, MAX_BYTES),
        ):
            if there > most:
                raise ValueError(f"expected {name!r} to be at most {most}, got {there}")
        return header

    def differences(self, other: StoreHeader) -> list[str]:
        """Return the settings that differ from those of `other`, as "field: there …, now …"."""
        return [
            *_differences("video", self.video, other.video),
            *_differences("audio", self.audio, other.audio),
            *_differences("dtype", self.dtype, other.dtype),
        ]


def _unseal(content: Any) -> tuple[int, dict[str, Any]]:
    version: int = Fields(content, "the header").take("format", int, "an integer")
    if version == FORMAT and content.pop("sha256", None) != FOLDER.header_checksum(content):
        raise ValueError("its SHA-256 does not fit its content")
    return version, content


def _side(values: dict[str, Any], name: str) -> dict[str, Any]:
    fields = Fields(values, name)
    fields.integer("dim", at_least=1)
    fields.positive("rate_hz")
    for text in ("encoder", "model"):
        if text in values:
            fields.text(text)
    if "patches_per_step" in values:
        fields.integer("patches_per_step", at_least=1)
    return values


def _shard(values: Any, number: int) -> StoreShard:
    fields = Fields(values, f"shard {number}")
    fields.only(StoreShard.__dataclass_fields__)
    name = fields.text("name")
    if name != shard_name(number):
        raise ValueError(f"expected shard {number} to be named {shard_name(number)}, got {shown(name)}")
    clips, size = fields.integer("clips", at_least=1), fields.integer("bytes", at_least=1)
    return StoreShard(name, clips, size, fields.text("sha256"))


def _differences(name: str, there: Any, now: Any) -> list[str]:
    if isinstance(there, dict) and isinstance(now, dict):
        # Versions are recorded, not held to: a patch release in the middle of a week's run must not end it.
        keys = [key for key in {**there, **now} if key != "versions"]
        return [line for key in keys for line in _differences(f"{name}.{key}", there.get(key), now.get(key))]
    # Tuples come back from the disk as lists.
    same = json.dumps(there, sort_keys=True) == json.dumps(now, sort_keys=True)
    return [] if same else [f"{name}: there {there!r}, now {now!r}"]


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"
