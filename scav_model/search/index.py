"""Reading a search index: clips by number or id, blocks of sequences, mean steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import scav_kernels
from scav_model.committed_folder import MappedFiles
from scav_model.data.store.header import DTYPES
from scav_model.distances import Distance, Sequences
from scav_model.search import bounds
from scav_model.search.bounds import Prepared
from scav_model.search.header import (
    AGAIN,
    FOLDER,
    DamagedIndexError,
    Header,
    SearchIndexError,
    load_tensors,
    read_deleted,
)
from scav_model.search.shard import ShardReader

# Numbers of the block of clips that exact search compares at a time: 32 MiB.
BLOCK = 1 << 23


# Neighbouring clips of one length from which on they are searched where they lie.
EVEN = 64


@dataclass(frozen=True)
class Piece:
    """Neighbouring clips of one shard.

    Attributes:
        shard: number of the shard.
        start: number of the first clip in the index.
        first: number of the first clip in the shard.
        count: clips.
        even: whether all have one length.
    """

    shard: int
    start: int
    first: int
    count: int
    even: bool


class Group:
    """Clips of neighbouring shards that can be found and are searched together: a `scav_kernels.Reader`.

    Attributes:
        numbers: (G,) of each clip in the index, ascending.
        lengths, dim, dtype: as of `scav_kernels.Reader`.
    """

    def __init__(self, index: SearchIndex, side: str, shards: range) -> None:
        self._index, self._side, self._shards = index, side, shards
        first, end = index.starts[shards.start], index.starts[shards.stop]
        self._live = index.live[first:end]
        self.numbers = torch.from_numpy(first + np.flatnonzero(self._live))
        lengths = np.concatenate([index.shards[shard].lengths[side] for shard in shards])
        self.lengths = torch.from_numpy(lengths[self._live])
        self.dim, self.dtype = index.header.dim, DTYPES[index.header.dtype]
        self._room = bounds.Room(int(self.lengths.max()) if len(self.lengths) else 0, self.dim, self.dtype)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, items: Tensor) -> Tensor:
        """(B, M, D), each clip found to be sound."""
        numbers = self.numbers[items].numpy()
        shards = np.searchsorted(self._index.starts, numbers, side="right") - 1
        places = zip(shards.tolist(), (numbers - self._index.starts[shards]).tolist(), strict=True)
        steps = [self._index.shards[shard].steps(self._side, clip) for shard, clip in places]
        return self._room.fill(steps)

    def is_summarised_for(self, query_lengths: Sequence[int]) -> bool:
        """Whether what is kept of all its clips bounds distances from queries of these lengths."""
        header, side = self._index.header, self._side
        kept = bounds.targets(header, side, self.lengths)
        return all(
            torch.equal(kept, bounds.resampled_to(header, side, self.lengths, steps)) for steps in set(query_lengths)
        )

    def database(self) -> scav_kernels.SearchIndex:
        """Of its clips, with the summaries that the shards keep.

        Raises:
            DamagedIndexError: the summaries are not what was written, or not of these clips.
        """
        try:
            return self._database()
        except DamagedIndexError:
            raise
        except (ValueError, RuntimeError) as error:
            raise DamagedIndexError(f"the bounds of {self._index.folder} are damaged: {error}; {AGAIN}") from error

    def _database(self) -> scav_kernels.SearchIndex:
        live = torch.from_numpy(self._live).split([len(self._index.shards[shard]) for shard in self._shards])
        columns: dict[str, Tensor] = {}
        begin = 0
        # Into place, shard by shard: joined, they would be held twice.
        for shard, kept in zip(self._shards, live, strict=True):
            part = self._index.shards[shard].bounds()
            end = begin + int(kept.sum())
            for name in ("norms", "targets", "means"):
                rows = part[f"{self._side}_{name}"]
                if name not in columns:
                    columns[name] = rows.new_empty(len(self), *rows.shape[1:])
                columns[name][begin:end] = rows[kept]
            begin = end
        squared = bool(self._index.header.options.get("squared", False))
        directions = self._index.directions[self._side]
        return scav_kernels.SearchIndex(
            self, summaries=scav_kernels.Summaries(directions=directions, squared=squared, **columns)
        )


class SearchIndex:
    """One version of an index, as it was when it was opened; what is added later is seen by opening it again.

    Clips are numbered from 0 in the order in which they were added; a deleted clip keeps its number until `compact`.

    Attributes:
        folder: of the index.
        header: what it holds.
        live: (written,) bool, False for deleted clips.
        distance: between videos and audios.
        prepared: what exact search keeps between searches.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self.folder, self.header = folder, header
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
        self.prepared = Prepared()
        self._directions: dict[str, Tensor] | None = None
        self._numbers: dict[str, int] | None = None

    @classmethod
    def open(cls, folder: Path | str) -> SearchIndex:
        """The index in a folder.

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

    def __len__(self) -> int:
        """Clips that can be found."""
        return self.header.clips

    def check_side(self, side: str) -> None:
        if side not in self.header.sides:
            raise SearchIndexError(
                f"{self.folder} holds {' and '.join(self.header.sides)} alone, and this search needs {side}; "
                "build an index with both sides"
            )

    def at(self, number: int) -> tuple[ShardReader, int]:
        """The shard of a clip, and its number there."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.shards[shard], number - int(self.starts[shard])

    def id(self, number: int) -> str:
        shard, clip = self.at(number)
        return shard.ids[clip]

    def media(self, number: int) -> dict[str, Any]:
        """What is known of a clip beside its steps: path, start, seconds, label, split, where they were given."""
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
        """Number of the clip with an id.

        Raises:
            SearchIndexError: there is none; the message tells a deleted one.
        """
        if name in self.numbers:
            return self.numbers[name]
        deleted = any(name in shard.ids for shard in self.shards)
        reason = "it was deleted" if deleted else "no clip has that id"
        raise SearchIndexError(f"{name!r} is not in {self.folder}: {reason}")

    def steps(self, side: str, number: int) -> Tensor:
        """(T, D) of one clip, float32."""
        shard, clip = self.at(number)
        return shard.steps(side, clip).float()

    def lengths(self, side: str) -> NDArray[np.int64]:
        """(written,) steps of each clip, deleted ones included."""
        return np.concatenate([np.zeros(0, dtype=np.int64), *(shard.lengths[side] for shard in self.shards)])

    def gather(self, side: str, numbers: Sequence[int]) -> Sequences:
        """Any clips, in that order, padded with zeros, float32."""
        steps = [self.steps(side, number) for number in numbers]
        lengths = torch.tensor([len(one) for one in steps], dtype=torch.int64)
        return Sequences(torch.nn.utils.rnn.pad_sequence(steps, batch_first=True), lengths)

    def pieces(self, side: str) -> Iterator[Piece]:
        """All clips in order, deleted ones included: long runs of clips of one length, and what is between them."""
        for number, (start, shard) in enumerate(zip(self.starts.tolist(), self.shards, strict=False)):
            lengths = shard.lengths[side]
            edges = np.flatnonzero(np.diff(lengths)) + 1
            runs = [(int(a), int(b)) for a, b in pairwise([0, *edges, len(lengths)])]
            for even, group in groupby(runs, key=lambda run: run[1] - run[0] >= EVEN):
                joined = list(group)
                for first, end in joined if even else [(joined[0][0], joined[-1][1])]:
                    yield Piece(number, start + first, first, end - first, even)

    def even(self, side: str, piece: Piece) -> Tensor:
        """(B, T, D) of an even piece, as it is stored, on the disk's pages."""
        rows = self.shards[piece.shard].steps(side, piece.first, piece.count)
        return rows.view(piece.count, -1, self.header.dim)

    @property
    def directions(self) -> dict[str, Tensor]:
        """Of each side (K, D), along which its bounds' means are kept."""
        if self._directions is None:
            kept = self.header.directions
            if kept is None:
                raise DamagedIndexError(f"{self.folder} has no directions, which its bounds need; {AGAIN}")
            sizes = {side: (torch.float32, [None, self.header.dim]) for side in self.header.sides}
            found = load_tensors(self.folder / kept.name, self._files.checked(kept).tobytes(), sizes)
            self._directions = found
        return self._directions

    def groups(self, side: str) -> Iterator[Group]:
        """All clips that can be found, in order, as many together as may have their summaries in memory."""
        first, clips = 0, 0
        for number, shard in enumerate(self.shards):
            if clips and clips + len(shard) > bounds.KEPT:
                yield Group(self, side, range(first, number))
                first, clips = number, 0
            clips += len(shard)
        if clips:
            yield Group(self, side, range(first, len(self.shards)))

    def blocks(self, side: str, piece: Piece) -> Iterator[tuple[NDArray[np.int64], Sequences]]:
        """Clips of a piece that can be found, some at a time: their numbers (B,) and steps (B, T, D), padded with
        zeros, float32."""
        shard = self.shards[piece.shard]
        longest = int(shard.lengths[side][piece.first : piece.first + piece.count].max())
        size = max(1, BLOCK // (longest * self.header.dim))
        for offset in range(0, piece.count, size):
            count = min(size, piece.count - offset)
            kept = np.flatnonzero(self.live[piece.start + offset : piece.start + offset + count])
            if len(kept):
                block = _padded(shard, side, piece.first + offset, count)
                chosen = torch.from_numpy(kept)
                if len(kept) < count:
                    block = Sequences(block.steps[chosen], block.lengths[chosen])
                yield piece.start + offset + kept, block

    def problems(self) -> Iterator[list[str]]:
        """What is damaged in each shard, and beside them, by reading all of it."""
        for shard in self.shards:
            yield shard.problems()
        if self.header.directions is not None:
            try:
                self._files.checked(self.header.directions)
            except DamagedIndexError as error:
                yield [str(error)]


def _padded(shard: ShardReader, side: str, first: int, count: int) -> Sequences:
    """Neighbouring clips of a shard; their rows lie side by side, so that they are copied once."""
    # Widened here, for distances of float32 are quicker than those of bfloat16 and the same.
    rows = shard.steps(side, first, count).float()  # (ΣT, D)
    lengths = torch.from_numpy(shard.lengths[side][first : first + count].copy())
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return Sequences(rows.view(count, longest, -1), lengths)
    padded = torch.zeros(count, longest, rows.shape[1])
    padded[torch.arange(longest) < lengths[:, None]] = rows
    return Sequences(padded, lengths)
