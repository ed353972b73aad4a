"""Encoded clips of one side, read block by block: from memory, or from a temporary file if there may be many."""

from __future__ import annotations

import errno
import tempfile
import weakref
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

import scav_kernels
from scav_model.distances import POOLED_COSINE, Distance, Sequences, has_stored_bounds
from scav_model.retrieval.means import BLOCK, Block, mean_steps
from scav_model.retrieval.nearest import FLOATS, Part

# Clips of one length from which on they are searched apart from others.
MANY = 64


class Gallery(Protocol):
    """G encoded sequences of `dim` numbers a step."""

    @property
    def lengths(self) -> Tensor:
        """(G,) int64 valid steps, on the CPU."""

    @property
    def dim(self) -> int:
        """Numbers per step."""

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the steps."""

    @property
    def longest(self) -> int:
        """T, the steps of the longest clip. Clips are padded to it when they are read."""

    @property
    def device(self) -> torch.device:
        """Device that clips are read to."""

    def __len__(self) -> int:
        """Return G."""

    def block(self, first: int, end: int) -> Sequences:
        """Return clips [first, end): (end − first, T, dim), padded with zeros."""

    def gather(self, numbers: Tensor) -> Sequences:
        """Return the clips with these numbers (B,), which may repeat: (B, T, dim)."""


class InMemory:
    """A gallery of sequences in memory."""

    def __init__(self, clips: Sequences) -> None:
        self.clips = clips
        self.lengths = clips.lengths.cpu()
        self.longest, self.dim = clips.steps.shape[1:]
        self.device, self.dtype = clips.steps.device, clips.steps.dtype

    def __len__(self) -> int:
        return len(self.clips.steps)

    def block(self, first: int, end: int) -> Sequences:
        return Sequences(self.clips.steps[first:end], self.clips.lengths[first:end])

    def gather(self, numbers: Tensor) -> Sequences:
        numbers = numbers.to(self.device)
        return Sequences(self.clips.steps[numbers], self.clips.lengths[numbers])


class OnDisk:
    """A gallery in a temporary file: append clips in order, then read them. 16 bytes per clip are in memory.

    The file has no name, so nothing is left of it however this process ends. It takes 4·dim bytes per step, in the
    folder that `tempfile` chooses (TMPDIR).

    Args:
        lengths: (G,) int64 steps of the clips to come.
        dim: numbers of a step.
        device: that clips are read to.
    """

    def __init__(self, lengths: Tensor, dim: int, device: str | torch.device = "cpu") -> None:
        self.lengths = lengths.cpu()
        self.dim, self.dtype = dim, torch.float32
        self.device = torch.device(device)
        self.longest = int(self.lengths.max()) if len(self.lengths) else 0
        self._starts = torch.cat((torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)))  # (G + 1,) steps
        self._written = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with this object)
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self.lengths)

    def append(self, steps: Tensor, lengths: Tensor) -> None:
        """Append the next clips: steps (B, T, dim), of which the first `lengths` (B,) are kept.

        Raises:
            OSError: the disk is full; the message says how much room is needed, and where.
        """
        valid = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
        kept = steps[valid].float().cpu().contiguous()  # (steps of these clips, dim)
        try:
            self._file.write(kept.numpy().data)
            self._file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            needed = 4 * self.dim * int(self._starts[-1])
            raise OSError(
                errno.ENOSPC,
                f"encoded clips need {needed / 1e9:.1f} GB in {tempfile.gettempdir()}, which is full; "
                "name a roomier folder by the environment variable TMPDIR",
            ) from error
        self._written += len(lengths)

    def block(self, first: int, end: int) -> Sequences:
        steps = torch.zeros(end - first, self.longest, self.dim)
        flat = self._read(first, end)
        lengths = self.lengths[first:end]
        steps[torch.arange(self.longest) < lengths[:, None]] = flat
        return Sequences(steps.to(self.device), lengths.to(self.device))

    def gather(self, numbers: Tensor) -> Sequences:
        numbers = numbers.cpu()
        steps = torch.zeros(len(numbers), self.longest, self.dim)
        for row, number in enumerate(numbers.tolist()):
            steps[row, : int(self.lengths[number])] = self._read(number, number + 1)
        return Sequences(steps.to(self.device), self.lengths[numbers].to(self.device))

    def _read(self, first: int, end: int) -> Tensor:
        """Return all steps of clips [first, end), joined."""
        if end > self._written:
            raise ValueError(f"expected clips below {self._written}, as many as were appended, got {end - 1}")
        begin, stop = int(self._starts[first]), int(self._starts[end])
        flat = torch.empty(stop - begin, self.dim)
        self._file.seek(4 * self.dim * begin)
        # Read, not mapped: pages of a map would count as this process's memory.
        self._file.readinto(flat.numpy().data)
        return flat


class GalleryItems:
    """A gallery as `scav_model.retrieval.nearest.Items`. The databases of exact search are made once and kept.

    Args:
        gallery: of one side.
        distance: between videos and audios.
        means: mean steps of the clips, scaled to length 1, as sequences of one step; None: they are made when they are
            needed, and held in memory.
    """

    ascending = False

    def __init__(self, gallery: Gallery, distance: Distance, means: Gallery | None = None) -> None:
        self.gallery, self.distance, self._means = gallery, distance, means
        self.dtype, self.floats = gallery.dtype, gallery.longest * gallery.dim

    def __len__(self) -> int:
        return len(self.gallery)

    @cached_property
    def is_divided(self) -> bool:
        """True if a pair's distance is divided by its steps, which changes the order of items of several lengths."""
        return self.distance.per_step and len(self.gallery.lengths.unique()) > 1

    @property
    def has_candidates(self) -> bool:
        """True if method bounds has bounds of all pairs that are quick enough to choose candidates by."""
        return has_stored_bounds(self.distance.metric) and not self.is_divided

    def means(self) -> Iterator[Block]:
        if self._means is None:
            vectors = mean_steps(self.gallery.block(0, len(self)))
            self._means = InMemory(Sequences(vectors[:, None], torch.ones_like(self.gallery.lengths)))
        for numbers in torch.arange(len(self), device=self.gallery.device).split(BLOCK):
            first = int(numbers[0])
            yield numbers, self._means.block(first, first + len(numbers)).steps[:, 0]

    def gather(self, numbers: Tensor) -> Sequences:
        return self.gallery.gather(numbers)

    def parts(self, queries: Sequences, method: str, prune: str) -> Iterator[Part]:
        # Without bounds nothing is gained by searching lengths apart.
        whole = self.distance.metric == POOLED_COSINE or (prune == "none" and self.is_divided)
        rest = torch.ones(len(self), dtype=torch.bool)
        for database, numbers in () if whole else self._databases:
            rest[numbers] = False
            yield Part(database, numbers, prune)
        left = rest.nonzero()[:, 0]
        for numbers in left.split(max(1, FLOATS // self.floats)) if len(left) else ():
            yield Part(self.gather(numbers), numbers)

    @cached_property
    def _databases(self) -> list[tuple[scav_kernels.SearchIndex, Tensor]]:
        """Databases and their items' numbers: one of all items; or, if distances are divided by steps, one for each
        length that at least `MANY` items have."""
        if not self.is_divided:
            return [(scav_kernels.SearchIndex(*self.gallery.block(0, len(self))), torch.arange(len(self)))]
        made = []
        for length in self.gallery.lengths.unique().tolist():
            numbers = (self.gallery.lengths == length).nonzero()[:, 0]
            if len(numbers) >= MANY:
                steps, lengths = self.gather(numbers)
                made.append((scav_kernels.SearchIndex(steps[:, :length], lengths), numbers))
        return made
