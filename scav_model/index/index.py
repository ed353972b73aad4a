"""Read a search index: clips by number or id."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.distances import Distance
from scav_model.index.bounds import Prepared, has_bounds
from scav_model.index.header import (
    AGAIN,
    FOLDER,
    DamagedIndexError,
    Header,
    SearchIndexError,
    load_tensors,
    read_deleted,
)
from scav_model.index.shard import ShardReader
from scav_model.storage.committed_folder import MappedFiles

if TYPE_CHECKING:
    from typing import Self


class IndexReader:
    """One version of an index, as it was when it was opened; what is added later is seen by opening it again.

    Clips are numbered from 0 in the order in which they were added; a deleted clip keeps its number until `compact`.

    Attributes:
        folder: of the index.
        header: what it holds.
        live: (written,) bool, False for deleted clips.
        distance: between videos and audios.
        has_bounds: whether the index stores lower bounds of that distance.
        prepared: what exact search keeps between searches.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.folder = folder
        self._read(header)

    def _read(self, header: Header) -> None:
        folder, self.header = self.folder, header
        self.shards = [ShardReader(folder, shard, header) for shard in header.shards]
        self.starts = np.cumsum([0, *(len(shard) for shard in self.shards)])  # first number of each shard, and the end
        self.live = np.ones(header.written, dtype=bool)
        self.live[read_deleted(folder, header)] = False
        try:
            self.distance = Distance(header.metric, header.options, header.per_step)
        except (ValueError, TypeError, RuntimeError) as error:
            raise SearchIndexError(f"{folder} has a metric that cannot be used: {error}") from None
        self._files = MappedFiles(folder, FOLDER)
        if header.directions is not None:
            self._files.open([header.directions])
        self.has_bounds = has_bounds(header)
        self.prepared = Prepared()
        self._directions: dict[str, Tensor] | None = None
        self._numbers: dict[str, int] | None = None

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open the index in a folder.

        Raises:
            FileNotFoundError: no index there.
            DamagedIndexError: its header or its lists of clips are damaged, or a file is missing or of another size.
                Steps and means are checked when they are first read.
            SearchIndexError: an index of another format, or of a metric that is not there.
        """
        folder = Path(folder)
        header = Header.read(folder)
        while True:
            try:
                return cls(folder, header)
            except DamagedIndexError:
                # A writer may have taken files away between the reading of the header and theirs.
                found = Header.read(folder)
                if found.version == header.version:
                    raise
                header = found

    def measured_by(self, distance: Distance) -> Self:
        """Return the same clips, to be searched by another distance."""
        view = copy.copy(self)
        view.distance, view.prepared = distance, Prepared()
        view.header = replace(self.header, metric=distance.metric, options=distance.options, per_step=distance.per_step)
        # What the index stores are bounds of its metric with its options.
        view.has_bounds = self.has_bounds and view.header == self.header
        return view

    def __len__(self) -> int:
        """Return the number of clips that can be found."""
        return self.header.clips

    def check_side(self, side: str) -> None:
        if side not in self.header.sides:
            raise SearchIndexError(
                f"{self.folder} holds {' and '.join(self.header.sides)} alone, and this search needs {side}; "
                "build an index with both sides"
            )

    def at(self, number: int) -> tuple[ShardReader, int]:
        """Return the shard of a clip, and the clip's number there."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.shards[shard], number - int(self.starts[shard])

    def id(self, number: int) -> str:
        shard, clip = self.at(number)
        return shard.ids[clip]

    def media(self, number: int) -> dict[str, Any]:
        """Return the path, start, seconds, label and split of a clip, as far as they are known."""
        shard, clip = self.at(number)
        return shard.media(clip)

    @property
    def numbers(self) -> dict[str, int]:
        """Number of each clip that can be found, by id."""
        if self._numbers is None:
            ids = [name for shard in self.shards for name in shard.ids]
            self._numbers = {ids[number]: number for number in np.flatnonzero(self.live).tolist()}
        return self._numbers

    def number(self, name: str) -> int:
        """Return the number of the clip with an id.

        Raises:
            SearchIndexError: there is none; the message tells a deleted one.
        """
        if name in self.numbers:
            return self.numbers[name]
        deleted = any(name in shard.ids for shard in self.shards)
        reason = "it was deleted" if deleted else "no clip has that id"
        raise SearchIndexError(f"{name!r} is not in {self.folder}: {reason}")

    def steps(self, side: str, number: int) -> Tensor:
        """Return the steps (T, D) of one clip, float32."""
        shard, clip = self.at(number)
        return shard.steps(side, clip).float()

    def lengths(self, side: str) -> NDArray[np.int64]:
        """Return the steps of each clip (written,), deleted ones included."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(shard.lengths[side] for shard in self.shards)])

    @property
    def directions(self) -> dict[str, Tensor]:
        """The directions (K, D) of each side along which means are stored for bounds."""
        if self._directions is None:
            kept = self.header.directions
            if kept is None:
                raise DamagedIndexError(f"{self.folder} has no directions, which its bounds need; {AGAIN}")
            sizes = {side: (torch.float32, [None, self.header.dim]) for side in self.header.sides}
            found = load_tensors(self.folder / kept.name, self._files.checked(kept).tobytes(), sizes)
            self._directions = found
        return self._directions

    def problems(self) -> Iterator[list[str]]:
        """Read the whole index, and yield the damage in each shard, then in other files."""
        for shard in self.shards:
            yield shard.problems()
        if self.header.directions is not None:
            try:
                self._files.checked(self.header.directions)
            except DamagedIndexError as error:
                yield [str(error)]
