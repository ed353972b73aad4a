"""What a clip has of a tune, and when."""

import itertools

import numpy as np
import pytest

from scav_model.experiments.tunes.excerpts import (
    DURATION,
    TEMPO,
    Excerpt,
    TempoCurve,
    cut,
    grams,
    notes_of,
    permute_bars,
)
from tests.experiments.tunes.scores import score, walk


def test_excerpts_follow_one_another_at_tempos_of_their_own() -> None:
    engraving = score(walk(160, seed=0))
    excerpts = [*cut("tune", engraving)]
    assert [excerpt.id for excerpt in excerpts] == [f"tune-{number:02d}" for number in range(len(excerpts))]
    assert len(excerpts) >= 5
    for before, after in itertools.pairwise(excerpts):
        assert before.end == after.start
    # Seconds of a half-quarter note, of which the median is one.
    seconds = [0.5 * DURATION / (excerpt.end - excerpt.start) for excerpt in excerpts]
    assert all(0.2 * TEMPO[0] <= note <= 0.2 * TEMPO[1] for note in seconds)
    assert len(set(np.round(seconds, 4))) == len(seconds)
    assert excerpts == [*cut("tune", engraving)]


@pytest.mark.parametrize("seed", range(20))
def test_a_tempo_curve_rises_from_end_to_end_and_can_be_undone(seed: int) -> None:
    excerpt = Excerpt("tune-00", "tune", 3.0, 16.0)
    curve = TempoCurve.draw(np.random.default_rng(seed))
    times = np.linspace(0, DURATION, 200)
    position = curve.position(excerpt, times)
    assert position[0] == pytest.approx(3.0)
    assert position[-1] == pytest.approx(16.0)
    speed = np.diff(position) / np.diff(times) / (13 / DURATION)
    assert 0.5 < speed.min() < speed.max() < 1.5
    assert curve.seconds(excerpt, position) == pytest.approx(times, abs=1e-2)


def test_tempo_curves_drift_by_tenths_of_a_second() -> None:
    curves = [TempoCurve.draw(np.random.default_rng(seed)) for seed in range(100)]
    apart = [np.abs(one.progress - other.progress).max() * DURATION for one, other in itertools.pairwise(curves)]
    assert 0.15 < np.median(apart) < 0.5
    assert max(apart) < 1.0


def test_purposes_draw_on_their_own() -> None:
    excerpt = Excerpt("tune-00", "tune", 0.0, 13.0)
    draws = [excerpt.random(purpose).random() for purpose in ("picture", "sound", "picture")]
    assert draws[0] == draws[2] != draws[1]
    assert Excerpt("tune-01", "tune", 0.0, 13.0).random("picture").random() != draws[0]


def test_permuted_bars_have_the_same_notes_in_another_order() -> None:
    engraving = score(walk(64, seed=1))
    excerpt = Excerpt("tune-00", "tune", 1.0, 15.0)
    before, after = notes_of(excerpt, engraving), permute_bars(excerpt, engraving)
    assert after is not None
    assert len(before.pitches) == 28
    assert sorted(after.pitches) == sorted(before.pitches)
    assert not np.array_equal(after.pitches, before.pitches)
    assert after.onsets == pytest.approx(before.onsets)
    assert after.ends - after.onsets == pytest.approx(np.full(28, 0.5))
    # Within a whole bar, the order is kept.
    bar = engraving.pitches[8:16].tolist()
    assert any(after.pitches[place : place + 8].tolist() == bar for place in range(21))


def test_two_bars_and_equal_bars_are_not_permuted() -> None:
    assert permute_bars(Excerpt("tune-00", "tune", 0.0, 16.0), score(walk(8, seed=1) * 8)) is None
    assert permute_bars(Excerpt("tune-00", "tune", 0.0, 8.0), score(walk(64, seed=1))) is None


def test_fragments_are_runs_of_five() -> None:
    assert grams(np.array([1, 2, 3, 4, 5, 6])) == {(1, 2, 3, 4, 5), (2, 3, 4, 5, 6)}
    assert grams(np.array([1, 2, 3])) == set()
