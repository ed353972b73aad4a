"""One side of an index as items that `scav_model.retrieval.nearest.nearest` searches, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import torch
from torch import Tensor

import scav_kernels
from scav_model.data.store.header import DTYPES
from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.index import bounds
from scav_model.index.bounds import has_bounds
from scav_model.index.header import AGAIN, DamagedIndexError
from scav_model.index.index import IndexReader
from scav_model.index.shard import ShardReader
from scav_model.retrieval.means import BLOCK as MEANS
from scav_model.retrieval.means import Block
from scav_model.retrieval.nearest import Part

# Numbers of the block of clips that are compared at a time: 32 MiB.
BLOCK = 1 << 23
# Neighboring clips of one length from which on they are searched where they lie.
EVEN = 64
# A part shows how much bounds leave out if it has so many times the clips that it is asked for.
TELLING = 8


@dataclass(frozen=True)
class Piece:
    """Neighboring clips of one shard.

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
    """Clips of neighboring shards that can be found and are searched together: a `scav_kernels.Reader`.

    Attributes:
        numbers: (G,) of each clip in the index, ascending.
        lengths, dim, dtype: as of `scav_kernels.Reader`.
    """

    def __init__(self, index: IndexReader, side: str, shards: range) -> None:
        self._index, self._side, self._shards = index, side, shards
        first, end = index.starts[shards.start], index.starts[shards.stop]
        self._live = index.live[first:end]
        self.numbers = torch.from_numpy(first + np.flatnonzero(self._live))
        lengths = np.concatenate([index.shards[shard].lengths[side] for shard in shards])
        self.lengths = torch.from_numpy(lengths[self._live])
        self.dim, self.dtype = index.header.dim, DTYPES[index.header.dtype]
        self._scratch = bounds.Scratch(int(self.lengths.max()) if len(self.lengths) else 0, self.dim, self.dtype)

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, items: Tensor) -> Tensor:
        """Return the clips at these places, verified: (B, M, D)."""
        numbers = self.numbers[items].numpy()
        shards = np.searchsorted(self._index.starts, numbers, side="right") - 1
        places = zip(shards.tolist(), (numbers - self._index.starts[shards]).tolist(), strict=True)
        steps = [self._index.shards[shard].steps(self._side, clip) for shard, clip in places]
        return self._scratch.fill(steps)

    def is_summarized_for(self, query_lengths: Sequence[int]) -> bool:
        """Return True if the bounds kept of all its clips hold for queries of these lengths."""
        header, side = self._index.header, self._side
        kept = bounds.targets(header, side, self.lengths)
        return all(
            torch.equal(kept, bounds.resampled_to(header, side, self.lengths, steps)) for steps in set(query_lengths)
        )

    def database(self) -> scav_kernels.SearchIndex:
        """Return its clips with the summaries that the shards keep.

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


class StoredItems:
    """The clips of one side of an index that can be found, as `scav_model.retrieval.nearest.Items`."""

    ascending = True

    def __init__(self, index: IndexReader, side: str) -> None:
        self.index, self.side = index, side

    @property
    def distance(self) -> Distance:
        return self.index.distance

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.index.header.dtype]

    @property
    def floats(self) -> int:
        return self.index.header.dim * max(int(shard.lengths[self.side].max(initial=1)) for shard in self.index.shards)

    def means(self) -> Iterator[Block]:
        for start, shard in zip(self.index.starts.tolist(), self.index.shards, strict=False):
            means, live = shard.means(self.side), self.index.live[start : start + len(shard)]
            numbers = torch.arange(start, start + len(shard))
            if not live.all():
                kept = torch.from_numpy(live)
                means, numbers = means[kept], numbers[kept]
            yield from zip(numbers.split(MEANS), means.split(MEANS), strict=True)

    def gather(self, numbers: Tensor) -> Sequences:
        """Return clips in this order, padded with zeros, float32."""
        steps = [self.index.steps(self.side, number) for number in numbers.tolist()]
        lengths = torch.tensor([len(one) for one in steps], dtype=torch.int64)
        return Sequences(torch.nn.utils.rnn.pad_sequence(steps, batch_first=True), lengths)

    def parts(self, queries: Sequences, method: str, prune: str) -> Iterator[Part]:
        """Yield the clips with the bounds that the index keeps, where these serve queries of these lengths; else long
        runs of clips of one length, which are summarized once there have been queries enough, and blocks of others.
        Bounds are used only while they leave out enough to be worth their time."""
        lengths, device = queries.lengths.tolist(), queries.steps.device
        prepared = self.index.prepared
        prepared.ask(lengths)
        useful = device.type == "cpu" and not prepared.useless
        if method == "bounds" or (useful and has_bounds(self.index.header)):
            groups = [(group, group.is_summarized_for(lengths)) for group in self.groups() if len(group)]
            if method == "bounds" or all(summarized for _, summarized in groups):
                for group, summarized in groups:
                    yield self._bounded(group, summarized)
                return
        for piece in self._pieces():
            if piece.even and self.distance.metric != POOLED_COSINE:
                yield from self._even(piece, device)
            else:
                yield from self._blocks(piece, device)

    def _bounded(self, group: Group, summarized: bool) -> Part:
        """Return a group as a part that is searched by its bounds; `summarized`: they serve these queries."""
        database = self.index.prepared.get((self.side, int(group.numbers[0]), summarized), group.database)
        return Part(database, group.numbers, "auto", learn=self._learn(len(group)))

    def _even(self, piece: Piece, device: torch.device) -> Iterator[Part]:
        """Yield an even piece as one part, as it lies on the disk."""
        live = torch.from_numpy(self.index.live[piece.start : piece.start + piece.count])
        if not live.any():
            return
        prepared = self.index.prepared

        def database() -> scav_kernels.SearchIndex:
            rows = self.index.shards[piece.shard].steps(self.side, piece.first, piece.count)
            return scav_kernels.SearchIndex(rows.view(piece.count, -1, self.index.header.dim).to(device))

        made = prepared.get((self.side, piece.start, False), database)
        numbers = torch.arange(piece.start, piece.start + piece.count)
        if prepared.worth:
            yield Part(made, numbers, "auto", live, self._learn(piece.count))
        else:
            yield Part(made, numbers, "none", live)

    def _blocks(self, piece: Piece, device: torch.device) -> Iterator[Part]:
        """Yield the clips of a piece that can be found, some at a time, padded with zeros, float32."""
        shard = self.index.shards[piece.shard]
        longest = int(shard.lengths[self.side][piece.first : piece.first + piece.count].max())
        size = max(1, BLOCK // (longest * self.index.header.dim))
        for offset in range(0, piece.count, size):
            count = min(size, piece.count - offset)
            kept = torch.from_numpy(np.flatnonzero(self.index.live[piece.start + offset :][:count]))
            if len(kept):
                block = _padded(shard, self.side, piece.first + offset, count)
                if len(kept) < count:
                    block = Sequences(block.steps[kept], block.lengths[kept])
                yield Part(Sequences(*(part.to(device) for part in block)), piece.start + offset + kept)

    def _learn(self, clips: int) -> Callable[[scav_kernels.SearchReport, int], None]:
        def learn(report: scav_kernels.SearchReport, k: int) -> None:
            if clips >= TELLING * k:
                self.index.prepared.learn(report)

        return learn

    def groups(self) -> Iterator[Group]:
        """Yield all clips that can be found, in order, as many together as may have their summaries in memory."""
        first, clips = 0, 0
        for number, shard in enumerate(self.index.shards):
            if clips and clips + len(shard) > bounds.KEPT:
                yield Group(self.index, self.side, range(first, number))
                first, clips = number, 0
            clips += len(shard)
        if clips:
            yield Group(self.index, self.side, range(first, len(self.index.shards)))

    def _pieces(self) -> Iterator[Piece]:
        """Yield all clips in order, deleted ones included: long runs of clips of one length, and what is between."""
        for number, (start, shard) in enumerate(zip(self.index.starts.tolist(), self.index.shards, strict=False)):
            lengths = shard.lengths[self.side]
            edges = np.flatnonzero(np.diff(lengths)) + 1
            runs = [(int(a), int(b)) for a, b in pairwise([0, *edges, len(lengths)])]
            for even, joined in groupby(runs, key=lambda run: run[1] - run[0] >= EVEN):
                listed = list(joined)
                for first, end in listed if even else [(listed[0][0], listed[-1][1])]:
                    yield Piece(number, start + first, first, end - first, even)


def _padded(shard: ShardReader, side: str, first: int, count: int) -> Sequences:
    """Return neighboring clips of a shard; their rows lie side by side, so that they are copied once."""
    # Widened here, for distances of float32 are quicker than those of bfloat16 and the same.
    rows = shard.steps(side, first, count).float()  # (ΣT, D)
    lengths = torch.from_numpy(shard.lengths[side][first : first + count].copy())
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return Sequences(rows.view(count, longest, -1), lengths)
    padded = torch.zeros(count, longest, rows.shape[1])
    padded[torch.arange(longest) < lengths[:, None]] = rows
    return Sequences(padded, lengths)
