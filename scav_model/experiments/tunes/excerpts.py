"""Excerpts of tunes: which notes a clip has, and when each is seen and heard."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scav_model.experiments.tunes.engraving import Score

Floats = NDArray[np.float64]

DURATION = 5.0  # seconds, of every clip
NOTE = 0.2  # seconds of a tune's median note, before the clip's own tempo
TEMPO = (0.8, 1.25)  # range of the clip's own tempo, as a factor on durations
FEWEST_NOTES = 8
# Largest amplitudes of the first three harmonics of a tempo curve, in clips. The local tempo stays above half.
HARMONICS = (0.05, 0.03, 0.015)
GRID = 512  # places at which a tempo curve is kept
GRAM = 5  # notes of a fragment, by which excerpts and tunes are compared


@dataclass(frozen=True)
class Excerpt:
    """A clip's share of a tune."""

    id: str
    tune: str
    start: float  # quarter notes
    end: float  # quarter notes

    def random(self, purpose: str) -> Generator:
        """Return a generator of this excerpt's own for one purpose."""
        return np.random.default_rng([zlib.crc32(self.id.encode()), zlib.crc32(purpose.encode())])


@dataclass(frozen=True)
class TempoCurve:
    """How a clip goes through its excerpt: `progress` (GRID,) from 0 to 1, rising, at even times of the clip."""

    progress: Floats

    @classmethod
    def draw(cls, random: Generator) -> TempoCurve:
        time = np.linspace(0, 1, GRID)
        drift = sum(
            random.uniform(-most, most) * np.sin(np.pi * order * time) for order, most in enumerate(HARMONICS, start=1)
        )
        return cls(time + drift)

    def position(self, excerpt: Excerpt, seconds: Floats) -> Floats:
        """Return the places in the tune, in quarter notes, at times of the clip."""
        progress = np.interp(seconds / DURATION, np.linspace(0, 1, GRID), self.progress)
        return excerpt.start + progress * (excerpt.end - excerpt.start)

    def seconds(self, excerpt: Excerpt, position: Floats) -> Floats:
        """Return the times of the clip at which places in the tune are reached."""
        progress = (position - excerpt.start) / (excerpt.end - excerpt.start)
        return np.interp(progress, self.progress, np.linspace(0, 1, GRID)) * DURATION


@dataclass(frozen=True)
class Notes:
    """Notes to be played."""

    onsets: Floats  # (K,) quarter notes
    ends: Floats  # (K,) quarter notes
    pitches: NDArray[np.int64]  # (K,) MIDI


def cut(tune: str, score: Score) -> Iterator[Excerpt]:
    """Yield a tune's excerpts, one after the other; what is left over at its end is dropped."""
    median = float(np.median(score.ends - score.onsets))
    start, last = float(score.onsets[0]), float(score.ends.max())
    number = 0
    while True:
        name = f"{tune}-{number:02d}"
        factor = Excerpt(name, tune, start, start).random("tempo").uniform(*TEMPO)
        end = start + DURATION * median / (NOTE * factor)
        if end > last:
            return
        excerpt = Excerpt(name, tune, start, end)
        if len(notes_of(excerpt, score).pitches) >= FEWEST_NOTES:
            yield excerpt
        start, number = end, number + 1


def begins_in(excerpt: Excerpt, score: Score) -> NDArray[np.bool_]:
    """Return which notes of a tune begin in the excerpt; rounding may move its ends."""
    return (score.onsets >= excerpt.start - 1e-9) & (score.onsets < excerpt.end - 1e-9)


def notes_of(excerpt: Excerpt, score: Score) -> Notes:
    """Return the notes that begin in the excerpt."""
    inside = begins_in(excerpt, score)
    ends = np.minimum(score.ends[inside], excerpt.end)
    return Notes(score.onsets[inside], ends, score.pitches[inside])


def permute_bars(excerpt: Excerpt, score: Score) -> Notes | None:
    """Return the excerpt's notes with its bars in another order.

    None if it has fewer than three bars, or if the order of pitches is the same afterwards.
    """
    notes = notes_of(excerpt, score)
    bars = score.bars[begins_in(excerpt, score)]
    numbers, first = np.unique(bars, return_index=True)
    if len(numbers) < 3:
        return None
    starts = notes.onsets[first]
    lengths = np.diff([*starts, excerpt.end])
    order = excerpt.random("bars").permutation(len(numbers))
    if np.array_equal(order, np.arange(len(numbers))):
        order = order[::-1]
    shifted = np.empty(len(numbers))
    shifted[order] = starts[0] + np.concatenate(([0.0], np.cumsum(lengths[order])[:-1]))
    shift = (shifted - starts)[np.searchsorted(numbers, bars)]
    ends = np.minimum(notes.ends, (starts + lengths)[np.searchsorted(numbers, bars)]) + shift
    by_onset = np.argsort(notes.onsets + shift, kind="stable")
    permuted = Notes((notes.onsets + shift)[by_onset], ends[by_onset], notes.pitches[by_onset])
    return None if np.array_equal(permuted.pitches, notes.pitches) else permuted


def grams(values: NDArray[np.int64]) -> set[tuple[int, ...]]:
    """Return the runs of GRAM consecutive values."""
    return {tuple(values[place : place + GRAM].tolist()) for place in range(len(values) - GRAM + 1)}
