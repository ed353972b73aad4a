"""Lower bounds of exact search: the summaries that an index stores, and those that an open index has in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import scav_kernels
from scav_model.distances import has_stored_bounds
from scav_model.index.header import Header

# Queries that an index has to be asked before bounds are tried that it does not keep: to make the summaries takes as
# long as to compare all clips with about as many.
WARM = 32
# Above this share of pairs that bounds leave, comparing all of them at once is quicker than looking for which.
WORTH = 0.5
# Clips that are searched together, and clips whose summaries stay in memory between searches, of 3 KB each: 0.3 GB, and
# as much again while they are read.
KEPT = 100_000


def has_bounds(header: Header) -> bool:
    """Return True if an index stores summaries. Distances divided by steps have another order than bounds."""
    return has_stored_bounds(header.metric) and not header.per_step


class Clips:
    """Sequences (T, D) as `scav_kernels.Reader`."""

    def __init__(self, steps: Sequence[Tensor]) -> None:
        self._steps = steps
        self.lengths = torch.tensor([len(one) for one in steps], dtype=torch.int64)
        self.dim, self.dtype = steps[0].shape[1], steps[0].dtype
        self._scratch = Scratch(int(self.lengths.max()), self.dim, self.dtype)

    def read(self, items: Tensor) -> Tensor:
        return self._scratch.fill([self._steps[item] for item in items.tolist()])


class Scratch(threading.local):
    """Memory that a thread reuses for batches of sequences (T, D): to allocate it takes longer than to fill it."""

    def __init__(self, longest: int, dim: int, dtype: torch.dtype) -> None:
        self._held = torch.empty(0, longest, dim, dtype=dtype)

    def fill(self, steps: Sequence[Tensor]) -> Tensor:
        """Return sequences as (B, longest, D); steps beyond their lengths hold anything."""
        if len(steps) > len(self._held):
            self._held = self._held.new_zeros(len(steps), *self._held.shape[1:])
        out = self._held[: len(steps)]
        for row, one in zip(out, steps, strict=True):
            row[: len(one)] = one
        return out


def principal_directions(steps: Sequence[Tensor]) -> Tensor:
    """Return the directions (K, D) in which the steps of sequences (T, D) vary most."""
    # Each step an item: a few clips have many.
    return scav_kernels.SearchIndex(torch.cat(list(steps))[:, None]).directions


def make_bounds(header: Header, side: str, steps: Sequence[Tensor], directions: Tensor) -> dict[str, Tensor]:
    """Return a shard's summaries of sequences (T, D): `{side}_norms`, `{side}_targets` and `{side}_means`."""
    clips = Clips(steps)
    made = scav_kernels.summarize(
        clips,
        targets=targets(header, side, clips.lengths),
        squared=bool(header.options.get("squared", False)),
        directions=directions,
    )
    return {f"{side}_norms": made.norms, f"{side}_targets": made.targets, f"{side}_means": made.means}


def targets(header: Header, side: str, lengths: Tensor) -> Tensor:
    """Return the steps that clips of these lengths are resampled to before means are taken: those of most queries."""
    other = header.common_steps.get("audio" if side == "video" else "video")
    return lengths if other is None else resampled_to(header, side, lengths, other)


def resampled_to(header: Header, side: str, lengths: Tensor, query_steps: int) -> Tensor:
    """Return the steps to which clips of one side are resampled for a query of the other side."""
    resample = header.options.get("resample", "x")
    if resample == "shorter":
        return lengths.clamp(min=query_steps)
    stretched = "video" if resample == "x" else "audio"
    return torch.full_like(lengths, query_steps) if side == stretched else lengths


class Prepared:
    """Databases with their summaries, kept between searches. Beyond `KEPT` clips they are made anew for each search.

    Attributes:
        asked: queries so far, this search's included.
        useless: whether bounds have been found to leave out too little.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.useless = False
        self._made: dict[tuple[str, int, bool], scav_kernels.SearchIndex] = {}
        self._clips = 0
        self._lengths: tuple[int, ...] = ()

    @property
    def worth(self) -> bool:
        """True if bounds are worth a try although their summaries have to be made first."""
        return self.asked >= WARM and not self.useless

    def ask(self, lengths: list[int]) -> None:
        """Count queries, and drop the summaries made for queries of other lengths: clips that are resampled onto
        queries have summaries for each length. Summaries that the index stores stay."""
        self.asked += len(lengths)
        distinct = tuple(sorted(set(lengths)))
        if distinct != self._lengths:
            self._made = {key: made for key, made in self._made.items() if key[2]}
            self._clips = sum(map(len, self._made.values()))
            self._lengths = distinct

    def learn(self, report: scav_kernels.SearchReport) -> None:
        """Give bounds up, and drop all databases, if bounds leave out too little."""
        if report.scored > WORTH * report.pairs:
            self.useless, self._made, self._clips = True, {}, 0

    def get(self, key: tuple[str, int, bool], make: Callable[[], scav_kernels.SearchIndex]) -> scav_kernels.SearchIndex:
        """Return the database at `key`: the side, the number of the first clip, and True if stored summaries serve all
        queries. Make it if there is none."""
        if key in self._made:
            return self._made[key]
        made = make()
        if not self.useless and self._clips + len(made) <= KEPT:
            self._made[key] = made
            self._clips += len(made)
        return made
