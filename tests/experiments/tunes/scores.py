"""Scores for tests, without an engraver."""

from collections.abc import Sequence

import numpy as np

from scav_model.experiments.tunes.engraving import HEIGHT, Engraving

BAR = 8  # notes


def score(pitches: Sequence[int], duration: float = 0.5) -> Engraving:
    """Return a score of notes of `duration` quarters, 27 px apart, on a strip that says where it is."""
    count = len(pitches)
    onsets = duration * np.arange(count, dtype=np.float64)
    places = 100 + 27.0 * np.arange(count)
    strip = np.tile((np.arange(round(places[-1]) + 100) % 251).astype(np.uint8), (HEIGHT, 1))
    return Engraving(onsets, onsets + duration, np.array(pitches), places, np.arange(count) // BAR, strip)


def walk(count: int, seed: int) -> list[int]:
    """Return a random walk of pitches."""
    steps = np.random.default_rng(seed).choice([-3, -2, -1, 1, 2, 3], size=count)
    return [int(pitch) for pitch in 70 + np.cumsum(steps) % 12]
