"""A shard of an index: it is written once and mapped when read; each clip is checked before its first use."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.torch import save
from torch import Tensor

from scav_model.data.ids import are_names
from scav_model.data.store.header import DTYPES
from scav_model.index.header import (
    AGAIN,
    FOLDER,
    DamagedIndexError,
    File,
    Header,
    Shard,
    load_tensors,
    write_file,
)
from scav_model.storage.committed_folder import MappedFiles, as_rows
from scav_model.storage.tensors import read_head
from scav_model.storage.text import shown


@dataclass(frozen=True)
class Encoded:
    """A clip that the model has encoded.

    Attributes:
        id: unique among the clips that can be found.
        steps: (T, D) of each side, in the index's dtype.
        media: path, start, seconds, label and split, as far as they are known.
    """

    id: str
    steps: dict[str, Tensor]
    media: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(steps.nbytes for steps in self.steps.values())


# Clips whose means are taken together.
TOGETHER = 64


def unit_means(steps: Sequence[Tensor]) -> Tensor:
    """Return the mean steps (C, D) of C sequences (T, D), float32, scaled to length 1."""
    found = []
    for length, group in groupby(steps, key=len):
        alike, shares = list(group), torch.full((length,), 1 / length)
        for first in range(0, len(alike), TOGETHER):
            found.append(shares @ torch.stack(alike[first : first + TOGETHER]).float())
    return F.normalize(torch.cat(found), dim=1)


def write_shard(
    folder: Path, number: int, clips: Sequence[Encoded], sides: Sequence[str], bounds: dict[str, Tensor] | None
) -> Shard:
    """Write the files of a shard, which no header lists yet, with the bounds of `scav_model.index.bounds`, if any."""
    stem = f"shard-{number:06d}"
    sequences = save({side: torch.cat([clip.steps[side] for clip in clips]) for side in sides})
    begins = _begins(sequences, sides)
    columns: dict[str, NDArray[Any]] = {
        "ids": _text([clip.id for clip in clips]),
        "media": _text([orjson.dumps(clip.media).decode() for clip in clips]),
    }
    means: dict[str, File] = {}
    for side in sides:
        steps = [clip.steps[side] for clip in clips]
        columns[f"{side}_lengths"] = np.array([len(one) for one in steps], dtype=np.int64)
        columns[f"{side}_crc32"] = np.array([zlib.crc32(_bytes(one)) for one in steps], dtype=np.uint32)
        means[side] = write_file(folder, f"{stem}.{side}.means.bin", unit_means(steps).numpy().tobytes())
    return Shard(
        clips=len(clips),
        sequences=write_file(folder, f"{stem}.sequences.safetensors", sequences, checked=min(begins.values())),
        begins=begins,
        columns=write_file(
            folder, f"{stem}.clips.safetensors", save({k: torch.from_numpy(v) for k, v in columns.items()})
        ),
        means=means,
        bounds=None if bounds is None else write_file(folder, f"{stem}.bounds.safetensors", save(bounds)),
    )


def _text(lines: Sequence[str]) -> NDArray[np.uint8]:
    """Return lines as an array of bytes; no line has a line break in it."""
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8).copy()


def _bytes(steps: Tensor) -> memoryview:
    return steps.contiguous().view(torch.uint8).numpy().reshape(-1).data


def _begins(content: bytes, sides: Sequence[str]) -> dict[str, int]:
    described, start = read_head(content)
    return {side: start + int(described[side]["data_offsets"][0]) for side in sides}


def check_media(media: Any) -> None:
    """
    Raises:
        ValueError: a field of a clip's media has another type or value than its readers expect.
    """
    if not isinstance(media, dict):
        raise ValueError(f"expected an object, got {shown(media)}")
    path = media.get("path")
    if path is not None and (not isinstance(path, str) or not path or "\0" in path):
        raise ValueError(f"expected path to be a file's, got {shown(path)}")
    for name in ("start", "seconds"):
        value = media.get(name)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
            raise ValueError(f"expected {name} to be 0 or more, got {shown(value)}")
    for name in ("label", "split"):
        if isinstance(media.get(name), dict | list):
            raise ValueError(f"expected {name} to be text, got {shown(media[name])}")


class ShardReader:
    """The clips of one shard, numbered from 0.

    Columns are read and checked at once. Steps are mapped from the disk. Each clip has a checksum of its own, which is
    checked when its steps are first read, so that no search reads more of the index than it uses.
    """

    def __init__(self, folder: Path, shard: Shard, header: Header) -> None:
        self.folder, self.shard = folder, shard
        self._dtype, self._dim = DTYPES[header.dtype], header.dim
        self._files = MappedFiles(folder, FOLDER)
        self._files.open(file for file in shard.files() if file is not shard.columns)
        sizes: dict[str, tuple[Any, list[int | None]]] = {name: (np.uint8, [None]) for name in ("ids", "media")}
        for side in header.sides:
            sizes |= {f"{side}_lengths": (np.int64, [shard.clips]), f"{side}_crc32": (np.uint32, [shard.clips])}
        content = FOLDER.read_file(folder, shard.columns)
        self._columns = load_tensors(folder / shard.columns.name, content, sizes, load_arrays)
        self.lengths = {side: self._columns[f"{side}_lengths"] for side in header.sides}
        self._check_lengths()
        for file in shard.means.values():
            if file.bytes != 4 * shard.clips * self._dim:
                raise DamagedIndexError(
                    f"{folder / file.name} is damaged: expected {shard.clips} means of {self._dim} numbers, "
                    f"{4 * shard.clips * self._dim} bytes, got {file.bytes} bytes; {AGAIN}"
                )
        # The first row of each clip, and the end of the last one. Lists, because NumPy is slow one number at a time.
        self._ends = {side: [0, *np.cumsum(lengths).tolist()] for side, lengths in self.lengths.items()}
        self._sound = {side: bytearray(shard.clips) for side in header.sides}
        self._rows: dict[str, Tensor] = {}
        self._ids: list[str] | None = None
        self._media: list[str] | None = None
        self._means: dict[str, Tensor] = {}

    def _check_lengths(self) -> None:
        """
        Raises:
            DamagedIndexError: the clips' steps do not fill the file of sequences.
        """
        width, file = self._dim * self._dtype.itemsize, self.shard.sequences
        sides = sorted(self.lengths, key=self.shard.begins.__getitem__)
        at = self.shard.begins[sides[0]]
        for side in sides:
            lengths = self.lengths[side]
            # The longest first, so that the sum does not overflow.
            fits = lengths.min() >= 1 and lengths.max() <= file.bytes // width and at == self.shard.begins[side]
            if not fits or at % self._dtype.itemsize:
                break
            at += int(lengths.sum()) * width
        else:
            if at == file.bytes:
                return
        raise DamagedIndexError(
            f"{self.folder / self.shard.columns.name} is damaged: its clips' steps do not fill {file.name}; {AGAIN}"
        )

    def __len__(self) -> int:
        return self.shard.clips

    @property
    def ids(self) -> list[str]:
        if self._ids is None:
            found = self._lines("ids")
            if not are_names(found):
                raise self._damaged("expected ids of printable characters")
            self._ids = found
        return self._ids

    def media(self, clip: int) -> dict[str, Any]:
        if self._media is None:
            self._media = self._lines("media")
        try:
            found: dict[str, Any] = orjson.loads(self._media[clip])
            check_media(found)
        except ValueError as error:
            raise self._damaged(f"media of {self.ids[clip]!r}: {error}") from None
        return found

    def _lines(self, name: str) -> list[str]:
        try:
            found = self._columns[name].tobytes().decode().split("\n")
        except UnicodeDecodeError as error:
            raise self._damaged(f"{name}: {error}") from None
        if len(found) != len(self):
            raise self._damaged(f"it has {name} of {len(found)} clips, expected {len(self)}")
        return found

    def _damaged(self, reason: str) -> DamagedIndexError:
        return DamagedIndexError(f"{self.folder / self.shard.columns.name} is damaged: {reason}; {AGAIN}")

    def steps(self, side: str, first: int, count: int = 1) -> Tensor:
        """Return the steps (ΣT, D) of `count` clips from `first` on, in the stored dtype, mapped, after checking them.

        Raises:
            DamagedIndexError: the steps of a clip, which the message names, differ from what was written.
        """
        rows, ends, sound = self._all_rows(side), self._ends[side], self._sound[side]
        for clip in range(first, first + count):
            if not sound[clip]:
                if zlib.crc32(_bytes(rows[ends[clip] : ends[clip + 1]])) != self._columns[f"{side}_crc32"][clip]:
                    raise DamagedIndexError(
                        f"{self.folder / self.shard.sequences.name} is damaged: the {side} of clip "
                        f"{self.ids[clip]!r} does not fit its checksum; {AGAIN}"
                    )
                sound[clip] = True
        return rows[ends[first] : ends[first + count]]

    def _all_rows(self, side: str) -> Tensor:
        """Return the steps (ΣT, D) of all clips, mapped from the disk, unchecked."""
        if side not in self._rows:
            content = self._files.content(self.shard.sequences)
            begin, rows = self.shard.begins[side], self._ends[side][-1]
            self._rows[side] = as_rows(content, begin, rows, self._dim, self._dtype)
        return self._rows[side]

    def means(self, side: str) -> Tensor:
        """Return the mean steps (C, D) of one side, float32, scaled to length 1: mapped, or in memory for a shard of
        format 2.

        Raises:
            DamagedIndexError: the means differ from what was written.
        """
        if side not in self._means:
            self._means[side] = self._read_means(side) if self.shard.vectors is None else self._scaled_means(side)
        return self._means[side]

    def _read_means(self, side: str) -> Tensor:
        return as_rows(self._files.checked(self.shard.means[side]), 0, len(self), self._dim, torch.float32)

    def _scaled_means(self, side: str) -> Tensor:
        assert self.shard.vectors is not None
        sizes: dict[str, tuple[Any, list[int | None]]] = {}
        for name in self.lengths:
            sizes[f"{name}_means"] = (torch.float32, [len(self), self._dim])
            sizes[f"{name}_segments"] = (torch.float32, [len(self), 4, self._dim])
        return F.normalize(self._tensors(self.shard.vectors, sizes)[f"{side}_means"], dim=1)

    def bounds(self) -> dict[str, Tensor]:
        """Return the tensors of the lower bounds, as `scav_model.index.bounds` made them."""
        if self.shard.bounds is None:
            raise self._damaged("its shard has no bounds")
        sizes: dict[str, tuple[Any, list[int | None]]] = {}
        for side in self.lengths:
            sizes[f"{side}_norms"] = (torch.float32, [len(self)])
            sizes[f"{side}_targets"] = (torch.int64, [len(self)])
            sizes[f"{side}_means"] = (torch.float32, [len(self), None])
        return self._tensors(self.shard.bounds, sizes)

    def _tensors(self, file: File, sizes: dict[str, tuple[Any, list[int | None]]]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = load_tensors(self.folder / file.name, self._files.checked(file).tobytes(), sizes)
        return found

    def problems(self) -> list[str]:
        """Return a line for each part of the shard that differs from what was written."""
        found = []
        # Read again, because bytes may have changed since they were checked.
        read = self._read_means if self.shard.vectors is None else self._scaled_means
        calls: list[Callable[[], object]] = [partial(read, side) for side in self.lengths]
        if self.shard.bounds is not None:
            calls.append(self.bounds)
        for call in (*calls, lambda: [self.media(clip) for clip in range(len(self))]):
            try:
                call()
            except DamagedIndexError as error:
                found.append(str(error))
        file, head = self.shard.sequences, min(self.shard.begins.values())
        # No search reads the head of the file, but other readers of safetensors do.
        if zlib.crc32(self._files.content(file)[:head].data) != file.crc32:
            found.append(f"{self.folder / file.name} is damaged: its head does not fit its checksum; {AGAIN}")
        for side in self.lengths:
            for clip in range(len(self)):
                try:
                    self.steps(side, clip)
                except DamagedIndexError as error:
                    found.append(str(error))
        return found
