"""Count ranks in galleries of any size.

The rank of the right answer is one more than the number of nearer items. So distances are computed block by block,
counted and dropped. Clip i of one side is the right answer to clip i of the other. Ties share the mean of the ranks
they span; NaN counts as infinitely far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from scav_kernels.search.nearest import no_nan
from scav_model.distances import Distance, Sequences
from scav_model.progress import Progress
from scav_model.retrieval.gallery import Gallery, GalleryItems, OnDisk
from scav_model.retrieval.means import mean_steps
from scav_model.retrieval.nearest import nearest

DIRECTIONS = ("v2a", "a2v")
# Videos whose distances to a block of audios are computed in one call.
ROWS = 256
# Clips of a block at most, and floats that it may take: 64 MiB.
BLOCK = 2048
FLOATS = 1 << 24

# Of the videos of one block from the audios of another: (V, A).
BlockDistances = Callable[[Sequences, Sequences], Tensor]


def rivals(distances: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """Count the items of each row of distances (Q, G) that are closer than own (Q,), and as close: (Q,) each."""
    return (distances < own[:, None]).sum(1), (distances == own[:, None]).sum(1)


def ranks(distances: Tensor, truth: Tensor) -> Tensor:
    """Return the rank (Q,) of item truth[q] in each row of distances (Q, G), from 1; ties make half ranks."""
    distances = no_nan(distances)
    closer, tied = rivals(distances, distances.gather(1, truth[:, None])[:, 0])
    return 1 + closer + (tied - 1).double() / 2


class Counts:
    """Counts for each query of one direction (G,): items nearer than its own, others as near, and the seconds used."""

    def __init__(self, clips: int) -> None:
        self.closer = torch.zeros(clips, dtype=torch.int64)
        self.tied = torch.full((clips,), -1, dtype=torch.int64)
        self.seconds = 0.0

    def add(self, start: int, distances: Tensor, own: Tensor) -> None:
        """Count a block of distances (Q, B), of the queries from `start` on; own (Q,) are those of their own items."""
        closer, tied = rivals(distances, own)
        self.closer[start : start + len(own)] += closer.cpu()
        self.tied[start : start + len(own)] += tied.cpu()

    @property
    def ranks(self) -> Tensor:
        return 1 + self.closer + self.tied.double() / 2


class Comparison:
    """G videos and their G audios, compared block by block: memory holds two blocks and some numbers a clip."""

    def __init__(self, video: Gallery, audio: Gallery, progress: bool = False) -> None:
        self.video, self.audio, self.progress = video, audio, progress
        self.clips = len(video)
        floats = max(gallery.longest * gallery.dim for gallery in (video, audio))
        self.size = max(1, min(BLOCK, FLOATS // floats))

    def blocks(self) -> Iterator[slice]:
        for start in range(0, self.clips, self.size):
            yield slice(start, min(start + self.size, self.clips))

    def bar(self, what: str) -> Any:
        return Progress(total=self.clips**2, desc=what, unit="pair", unit_scale=True, disable=not self.progress)

    def count(self, distances: BlockDistances, what: str) -> dict[str, Counts]:
        """Return the counts of each direction. A block of distances serves both directions."""
        counts = {direction: Counts(self.clips) for direction in DIRECTIONS}
        own = torch.empty(self.clips, device=self.video.device)

        def add(rows: slice, columns: slice, videos: Sequences, audios: Sequences) -> None:
            started = time.perf_counter()
            found = no_nan(distances(videos, audios))
            if rows == columns:
                own[rows] = found.diagonal()
            both = time.perf_counter() - started
            for direction, queries, seen in (("v2a", rows, found), ("a2v", columns, found.T)):
                started = time.perf_counter()
                counts[direction].add(queries.start, seen, own[queries])
                counts[direction].seconds += both + time.perf_counter() - started
            bar.update(found.numel())

        with self.bar(what) as bar:
            # First each clip's distance from its own, which the others are counted against.
            for block in self.blocks():
                add(block, block, read(self.video, block), read(self.audio, block))
            for rows in self.blocks():
                videos = read(self.video, rows)
                for columns in self.blocks():
                    if rows != columns:
                        add(rows, columns, videos, read(self.audio, columns))
        return counts

    def means(self) -> Comparison:
        """Return a comparison of the clips' mean steps, scaled to length 1, as sequences of one step."""
        one = torch.ones(self.clips, dtype=torch.int64)
        made: list[Gallery] = []
        for gallery in (self.video, self.audio):
            means = OnDisk(one, gallery.dim, gallery.device)
            for block in self.blocks():
                vectors = mean_steps(read(gallery, block))
                means.append(vectors[:, None], one[: len(vectors)].to(vectors.device))
            made.append(means)
        return Comparison(made[0], made[1], self.progress)

    def hybrid(self, distance: Distance, means: Comparison, by_mean: Counts, k: int, direction: str) -> Tensor:
        """Return the rank (G,) of each query's own item; `by_mean` are the counts of `means`, the clips' mean steps."""
        k = min(k, self.clips)
        found = torch.empty(self.clips, dtype=torch.float64)
        if direction == "v2a":
            queries, items, side = self.video, GalleryItems(self.audio, distance, means.audio), "video"
        else:
            queries, items, side = self.audio, GalleryItems(self.video, distance, means.video), "audio"
        with self.bar(f"hybrid {direction}") as bar:
            for block in self.blocks():
                distances, numbers, _ = nearest(read(queries, block), items, side, k, method="hybrid", candidates=k)
                truth = torch.arange(block.start, block.stop, device=numbers.device)
                is_own = numbers == truth[:, None]  # (Q, k), at most one True in a row
                # Where the k nearest end among ties with the right answer, those of them that got in are ahead.
                closer, tied = by_mean.closer[block], by_mean.tied[block]
                outside = 1 + closer + (tied + (k - closer).clamp(min=0)).double() / 2
                inside = ranks(distances, is_own.int().argmax(1)).cpu()
                found[block] = torch.where(is_own.any(1).cpu(), inside, outside)
                bar.update(len(truth) * self.clips)
        return found


def read(gallery: Gallery, block: slice) -> Sequences:
    return gallery.block(block.start, block.stop)


def cosine(videos: Sequences, audios: Sequences) -> Tensor:
    """Return 1 − cosine (V, A) of mean steps that have length 1."""
    return 1 - videos.steps[:, 0] @ audios.steps[:, 0].T


def by_sequence(distance: Distance) -> BlockDistances:
    """Return a function that compares whole sequences, `ROWS` videos at a time."""

    def distances(videos: Sequences, audios: Sequences) -> Tensor:
        starts = range(0, len(videos.steps), ROWS)
        some = [Sequences(videos.steps[start : start + ROWS], videos.lengths[start : start + ROWS]) for start in starts]
        return torch.cat([distance.all_pairs(rows, audios) for rows in some])

    return distances
