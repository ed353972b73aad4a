"""Read a feature store: the columns when it is opened, each clip when it is used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.feature_set import FeatureSet
from scav_model.data.source import Features
from scav_model.data.store.columns import Columns
from scav_model.data.store.header import (
    AGAIN,
    DTYPES,
    FOLDER,
    INDEX,
    ITEM_BYTES,
    Skipped,
    StoreError,
    StoreHeader,
    ValidLines,
)
from scav_model.storage.committed_folder import MappedFiles, as_rows, read_ahead
from scav_model.storage.files import open_inside, sha256_of_bytes
from scav_model.storage.tensors import read_head
from scav_model.storage.text import shown

# As safetensors names them.
TYPE_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def open_features(path: Path | str, split: str | None = None) -> Features:
    """Open features of either kind: a feature file (`.safetensors`) or the folder of a store.

    Args:
        path: the file or folder. `FOLDER:SPLIT` is the folder with that split.
        split: the clips of one split of a store; None takes all of them. In a folder of feature files, the file
            `<split>.safetensors`.
    """
    path = Path(path)
    if split is None and not path.exists():
        folder, separator, name = str(path).rpartition(":")
        if separator and name and Path(folder).is_dir():
            path, split = Path(folder), name
    if path.is_dir():
        if split is not None and (file := path / f"{split}.safetensors").is_file():
            return FeatureSet.load(file)
        store = FeatureStore.open(path)
        return store if split is None else store.select(split)
    if split is not None:
        raise StoreError(f"{path} is one feature file and has no splits, so no {split!r}; name the file alone")
    return FeatureSet.load(path)


class Shards:
    """Shards of a store. Each is mapped into memory when it is first read; the rows are not kept."""

    def __init__(self, folder: Path, header: StoreHeader) -> None:
        self.folder, self.header = folder, header
        self._files = MappedFiles(folder, FOLDER)
        self._sides: dict[int, dict[str, Tensor]] = {}

    def rows(self, shard: int, side: str, first: int, count: int) -> Tensor:
        """Return rows (count, D) of a shard's `video` or `audio`, in the dtype of the store, mapped from the disk."""
        if shard not in self._sides:
            self._sides[shard] = self._map(shard)
        steps = self._sides[shard][side]
        if first + count > len(steps):
            name = self.folder / self.header.shards[shard].name
            raise StoreError(f"{name} has {len(steps)} steps of {side}, and its clips need more; {AGAIN}")
        rows = steps[first : first + count]
        read_ahead(rows)
        return rows

    def _map(self, number: int) -> dict[str, Tensor]:
        """Return each side (ΣT, D) of a shard, mapped from the disk, after checking the layout of the shard."""
        listed = self.header.shards[number]
        content = self._files.content(listed)
        dtype = DTYPES[self.header.dtype]
        dims = {"video": self.header.video["dim"], "audio": self.header.audio["dim"]}
        try:
            places = self._places(content, dims)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.folder / listed.name} is damaged: {error}; {AGAIN}") from error
        return {side: as_rows(content, *places[side], dim, dtype) for side, dim in dims.items()}

    def _places(self, content: NDArray[np.uint8], dims: dict[str, int]) -> dict[str, tuple[int, int]]:
        """Return the first byte and the rows of each side, in a shard that holds the two sides and nothing else."""
        described, begin = read_head(content)
        places, spans = {}, []
        for side, dim in dims.items():
            shape, span = described[side]["shape"], described[side]["data_offsets"]
            first, end = (int(offset) for offset in span)
            rows, rest = divmod(end - first, dim * ITEM_BYTES[self.header.dtype])
            if described[side]["dtype"] != TYPE_NAMES[self.header.dtype] or shape != [rows, dim] or rest:
                raise ValueError(f"expected {side} of (steps, {dim}) {self.header.dtype}, got {shown(described[side])}")
            places[side] = (begin + first, rows)
            spans.append((first, end))
        (start, middle), (again, end) = sorted(spans)
        if set(described) != {"video", "audio"} or (start, middle, end) != (0, again, len(content) - begin):
            raise ValueError(f"expected its video and audio to fill it, got {shown(described)}")
        return places

    def __getstate__(self) -> dict[str, Any]:
        # The workers of a data loader map the files again; a pickled map would be a copy.
        return {**self.__dict__, "_sides": {}}


class FeatureStore:
    """G clips of a store, in the manifest's order; satisfies `Features`.

    Clips are read from their shards in any order: `clip` reads the pages of two runs of rows.

    Attributes:
        columns: the manifest, in columns.
    """

    def __init__(self, shards: Shards, columns: Columns) -> None:
        self._shards, self.columns = shards, columns

    @classmethod
    def open(cls, folder: Path | str) -> FeatureStore:
        """Open the store in a folder, finished or not.

        Raises:
            FileNotFoundError: the folder has no store.
            StoreError: the store is damaged or of another format.
        """
        folder = Path(folder)
        header = StoreHeader.read(folder)
        return cls(Shards(folder, header), read_columns(folder, header))

    @property
    def header(self) -> StoreHeader:
        return self._shards.header

    @property
    def folder(self) -> Path:
        return self._shards.folder

    @property
    def ids(self) -> list[str]:
        """One name per clip, unique."""
        return self.columns.ids

    @property
    def labels(self) -> list[str | None]:
        """One label per clip; None where the manifest had none."""
        names: list[str | None] = [*self.columns.label_names, None]
        return [names[number] for number in self.columns.label.tolist()]

    @property
    def splits(self) -> list[str]:
        """One split per clip."""
        return [self.columns.split_names[number] for number in self.columns.split.tolist()]

    @property
    def shard_numbers(self) -> list[int]:
        """One shard per clip, counted from 0."""
        numbers: list[int] = self.columns.shard.tolist()
        return numbers

    @property
    def seconds(self) -> Tensor:
        """(G,) float64, the time that each clip covers."""
        return torch.from_numpy(self.columns.seconds)

    @property
    def paths(self) -> list[Path | None]:
        """Media file of each clip; None if the store does not know it.

        The store may come from a stranger: check a path before you open or show the file.
        """
        beside = self.folder.resolve().parent
        return [beside / path if path else None for path in self.columns.paths]

    @property
    def starts(self) -> Tensor:
        """(G,) float64, the second of its media file at which each clip begins."""
        return torch.from_numpy(self.columns.start)

    @property
    def video_lengths(self) -> Tensor:
        """(G,) int64, steps of each video."""
        return torch.from_numpy(self.columns.video_lengths)

    @property
    def audio_lengths(self) -> Tensor:
        """(G,) int64, steps of each audio."""
        return torch.from_numpy(self.columns.audio_lengths)

    @property
    def video_dim(self) -> int:
        """Dv, the size of a video step."""
        return int(self.header.video["dim"])

    @property
    def audio_dim(self) -> int:
        """Da, the size of an audio step."""
        return int(self.header.audio["dim"])

    @property
    def video_rate_hz(self) -> float:
        """Video steps per second."""
        return float(self.header.video["rate_hz"])

    @property
    def audio_rate_hz(self) -> float:
        """Audio steps per second."""
        return float(self.header.audio["rate_hz"])

    def __len__(self) -> int:
        return len(self.columns.ids)

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        """Return video (N, Dv) and audio (M, Da) of one clip, float32; do not write to them."""
        at, shard = self.columns, int(self.columns.shard[index])
        video = self._shards.rows(shard, "video", int(at.video_row[index]), int(at.video_lengths[index]))
        audio = self._shards.rows(shard, "audio", int(at.audio_row[index]), int(at.audio_lengths[index]))
        return video.float(), audio.float()

    def subset(self, indices: Sequence[int]) -> FeatureStore:
        """Return the clips at `indices`, in that order; only their names and lengths are copied."""
        return FeatureStore(self._shards, self.columns.take(indices))

    def select(self, split: str) -> FeatureStore:
        """Return the clips of one split, in the order of the manifest."""
        if split not in self.columns.split_names:
            known = ", ".join(self.columns.split_names) or "none, for it is empty"
            raise StoreError(f"{self.folder} has no split {split!r}; its splits are {known}")
        return self.subset(np.flatnonzero(self.columns.split == self.columns.split_names.index(split)).tolist())


def read_columns(folder: Path, header: StoreHeader) -> Columns:
    """Return the columns of the manifest, from the index if there is one of this very manifest."""
    manifest = read_list(folder, header.manifest)
    # The index has the checksum of the manifest, so that an index that fits the header has checked the manifest too.
    columns = _read_index(folder, header, manifest)
    if columns is None:
        columns = manifest_columns(folder, header, manifest)
    try:
        columns.check(header)
    except StoreError as error:
        raise StoreError(f"{folder}: {error}; {AGAIN}") from error
    return columns


def manifest_columns(folder: Path, header: StoreHeader, manifest: bytes) -> Columns:
    """Return the columns, from the manifest itself.

    Raises:
        StoreError: the manifest is damaged; the message names the line, if it is known.
    """
    columns = Columns.of_lines(manifest.splitlines(), [shard.name for shard in header.shards])
    FOLDER.check_content(folder, header.manifest, manifest)
    return columns


def _read_index(folder: Path, header: StoreHeader, manifest: bytes) -> Columns | None:
    if header.index_sha256 is None:
        return None
    try:
        with open_inside(folder, INDEX) as file:
            # A clip takes less room here than in the manifest, but for letters that JSON has to escape.
            if os.fstat(file.fileno()).st_size > 8 * len(manifest) + (1 << 20):
                return None
            content = file.read()
    except (OSError, ValueError):
        return None
    return Columns.of_index(content, manifest) if sha256_of_bytes(content) == header.index_sha256 else None


def read_skipped(folder: Path) -> list[Skipped]:
    """Return the clips of a store that could not be used.

    Raises:
        FileNotFoundError: no store there.
        StoreError: the list is damaged.
    """
    header = StoreHeader.read(folder)
    while True:
        try:
            content = read_list(folder, header.skipped)
            FOLDER.check_content(folder, header.skipped, content)
            return [_skipped(line) for line in content.splitlines()]
        except StoreError:
            # A writer may have emptied the list after the header was read.
            found = StoreHeader.read(folder)
            if found == header:
                raise
            header = found


def _skipped(line: bytes) -> Skipped:
    try:
        clip = Skipped(**orjson.loads(line))
    except (TypeError, ValueError) as error:
        raise StoreError(f"the store's list of skipped clips is damaged: {error}") from error
    if any(type(value) is not str for value in vars(clip).values()):
        raise StoreError(f"the store's list of skipped clips is damaged: expected text, got {shown(vars(clip))}")
    return clip


def read_list(folder: Path, lines: ValidLines) -> bytes:
    """Return the valid bytes of a list, without checking their checksum."""
    path, size = FOLDER.locate(folder, lines.name)
    # Checked first, because memory for that many bytes is reserved before they are read.
    if size < lines.bytes:
        raise StoreError(f"expected {path} to have {lines.bytes} bytes, found {size}; copy it again")
    with os.fdopen(FOLDER.open(path), "rb") as file:
        return file.read(lines.bytes)
