"""One shard of an index: written once, mapped when read, each clip checked before its first use."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.torch import load, save
from torch import Tensor

from scav_model.data.store.layout import DTYPES
from scav_model.search import flat
from scav_model.search.layout import (
    AGAIN,
    SEGMENTS,
    DamagedIndexError,
    File,
    Header,
    Shard,
    check_size,
    map_file,
    read_file,
    write_file,
)


@dataclass(frozen=True)
class Encoded:
    """A clip as the model leaves it.

    Attributes:
        id: unique among the clips that can be found.
        steps: (T, D) of each side, in the index's dtype.
        media: what is known of it beside: path, start, seconds, label, split.
    """

    id: str
    steps: dict[str, Tensor]
    media: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(steps.nbytes for steps in self.steps.values())


# Clips whose means are taken together.
TOGETHER = 64


def mean_vectors(steps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Means (C, D) and segment means (C, S, D), float32, of C sequences (T, D).

    A sequence has S segments, as even as they can be; where T < S a step is in several.
    """
    found = []
    for length, group in groupby(steps, key=len):
        alike, shares = list(group), _shares(length)
        for first in range(0, len(alike), TOGETHER):
            # One product reads the steps once, where a mean for each part would read them twice and more slowly.
            found.append(shares @ torch.stack(alike[first : first + TOGETHER]).float())
    vectors = torch.cat(found)  # (C, 1 + S, D)
    return vectors[:, 0].contiguous(), vectors[:, 1:].contiguous()


@cache
def _shares(length: int) -> Tensor:
    """(1 + S, T): what each step adds to the mean of all, and to that of each segment."""
    shares = torch.zeros(1 + SEGMENTS, length)
    shares[0] = 1 / length
    for part in range(SEGMENTS):
        low, high = (length * edge // SEGMENTS for edge in (part, part + 1))
        high = max(high, low + 1)
        shares[1 + part, low:high] = 1 / (high - low)
    return shares


def write_shard(
    folder: Path, number: int, clips: Sequence[Encoded], sides: Sequence[str], bounds: dict[str, Tensor] | None
) -> Shard:
    """Write the files of a shard; nothing counts them yet. `bounds` are those of `scav_model.search.bounds`, if any."""
    stem = f"shard-{number:06d}"
    sequences = save({side: torch.cat([clip.steps[side] for clip in clips]) for side in sides})
    begins = _begins(sequences, sides)
    columns: dict[str, NDArray[Any]] = {
        "ids": _text([clip.id for clip in clips]),
        "media": _text([orjson.dumps(clip.media).decode() for clip in clips]),
    }
    vectors: dict[str, Tensor] = {}
    indices: dict[str, File] = {}
    for side in sides:
        steps = [clip.steps[side] for clip in clips]
        columns[f"{side}_lengths"] = np.array([len(one) for one in steps], dtype=np.int64)
        columns[f"{side}_crc32"] = np.array([zlib.crc32(_bytes(one)) for one in steps], dtype=np.uint32)
        # Of what is stored, not of what was rounded to it, for they bound distances between what is stored.
        means, vectors[f"{side}_segments"] = mean_vectors(steps)
        vectors[f"{side}_means"] = means
        indices[side] = write_file(folder, f"{stem}.{side}.faiss", flat.make(F.normalize(means, dim=1)))
    return Shard(
        clips=len(clips),
        sequences=write_file(folder, f"{stem}.sequences.safetensors", sequences, checked=min(begins.values())),
        begins=begins,
        columns=write_file(
            folder, f"{stem}.clips.safetensors", save({k: torch.from_numpy(v) for k, v in columns.items()})
        ),
        vectors=write_file(folder, f"{stem}.vectors.safetensors", save(vectors)),
        flat=indices,
        bounds=None if bounds is None else write_file(folder, f"{stem}.bounds.safetensors", save(bounds)),
    )


def _text(lines: Sequence[str]) -> NDArray[np.uint8]:
    """Lines as an array of bytes; a line has no line break in it."""
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8).copy()


def _bytes(steps: Tensor) -> memoryview:
    return steps.contiguous().view(torch.uint8).numpy().reshape(-1).data


def _begins(content: bytes, sides: Sequence[str]) -> dict[str, int]:
    length = int.from_bytes(content[:8], "little")
    described = json.loads(content[8 : 8 + length])
    return {side: 8 + length + int(described[side]["data_offsets"][0]) for side in sides}


class ShardReader:
    """The clips of one shard, numbered from 0.

    Columns are read, and checked, at once. Steps lie on the disk's pages; a clip's are checked when they are first
    asked for, against a checksum of its own, so that no search reads more of the index than it uses.
    """

    def __init__(self, folder: Path, shard: Shard, header: Header) -> None:
        self.folder, self.shard = folder, shard
        self._dtype, self._dim = DTYPES[header.dtype], header.dim
        self._columns = load_arrays(read_file(folder, shard.columns))
        self.lengths = {side: self._columns[f"{side}_lengths"] for side in header.sides}
        # Lists, for numbers of NumPy's are slow one by one: where each clip begins, and the last one ends.
        self._ends = {side: [0, *np.cumsum(lengths).tolist()] for side, lengths in self.lengths.items()}
        self._sound = {side: bytearray(shard.clips) for side in header.sides}
        self._rows: dict[str, Tensor] = {}
        self._ids: list[str] | None = None
        self._media: list[str] | None = None
        self._flats: dict[str, Any] = {}
        for file in shard.files():
            check_size(folder, file)

    def __len__(self) -> int:
        return self.shard.clips

    @property
    def ids(self) -> list[str]:
        if self._ids is None:
            self._ids = self._lines("ids")
        return self._ids

    def media(self, clip: int) -> dict[str, Any]:
        if self._media is None:
            self._media = self._lines("media")
        found: dict[str, Any] = orjson.loads(self._media[clip])
        return found

    def _lines(self, name: str) -> list[str]:
        return self._columns[name].tobytes().decode().split("\n")

    def steps(self, side: str, first: int, count: int = 1) -> Tensor:
        """(ΣT, D) of `count` clips from `first` on, as they are stored, on the disk's pages, and found to be sound.

        Raises:
            DamagedIndexError: naming the clip whose steps are not those that were written.
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
        """(ΣT, D) of all clips, on the disk's pages, unchecked."""
        if side not in self._rows:
            width, begin = self._dim * self._dtype.itemsize, self.shard.begins[side]
            mapped = np.asarray(map_file(self.folder, self.shard.sequences))
            steps = mapped[begin : begin + self._ends[side][-1] * width].reshape(-1, width)
            self._rows[side] = torch.from_numpy(steps).view(self._dtype)
        return self._rows[side]

    def vectors(self) -> dict[str, Tensor]:
        """Means (C, D) and segment means (C, S, D) of each side, float32: `video_means`, `video_segments` and so on."""
        return load(read_file(self.folder, self.shard.vectors))

    def bounds(self) -> dict[str, Tensor]:
        """What lower bounds need, as `scav_model.search.bounds` wrote it."""
        if self.shard.bounds is None:
            raise ValueError(f"shard {self.shard.columns.name} has no bounds")
        return load(read_file(self.folder, self.shard.bounds))

    def flat(self, side: str) -> Any:
        """The FAISS index of one side's means, on the disk's pages."""
        if side not in self._flats:
            self._flats[side] = flat.open_checked(self.folder, self.shard.flat[side], self.shard.clips, self._dim)
        return self._flats[side]

    def problems(self) -> list[str]:
        """Everything in the shard that is not what was written."""
        found = []
        for file in (self.shard.vectors, *self.shard.flat.values(), self.shard.bounds):
            try:
                if file is not None:
                    read_file(self.folder, file)
            except DamagedIndexError as error:
                found.append(str(error))
        path, head = check_size(self.folder, self.shard.sequences), min(self.shard.begins.values())
        with path.open("rb") as content:
            # What no search reads, but other readers of the file do.
            if zlib.crc32(content.read(head)) != self.shard.sequences.crc32:
                found.append(f"{path} is damaged: its head does not fit its checksum; {AGAIN}")
        for side in self.lengths:
            for clip in range(len(self)):
                try:
                    self.steps(side, clip)
                except DamagedIndexError as error:
                    found.append(str(error))
        return found
