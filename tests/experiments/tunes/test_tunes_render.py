"""Engraved tunes, and clips of them that show and sound what the score says, at the right time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scav_model.data.decode import Media, decode
from scav_model.data.pictures import WholeFrame
from scav_model.experiments.tunes import engraving as module
from scav_model.experiments.tunes.engraving import FAILED, HEIGHT, WIDTH, Engraving, engrave_all
from scav_model.experiments.tunes.excerpts import DURATION, Excerpt, TempoCurve, cut, notes_of
from scav_model.experiments.tunes.render import FRAME_RATE, SAMPLE_RATE, ClipTask, draw, play, render_clip
from tests.experiments.tunes.scores import score, walk

Engraved = tuple[Path, dict[str, Engraving]]
EVEN = TempoCurve(np.linspace(0, 1, 512))


def test_a_score_has_its_notes(engraved: Engraved) -> None:
    engraving = engraved[1]["SwallowTailJig"]
    # E/F/ | GEE BEE | in E minor: F is sharp.
    assert engraving.pitches[:8].tolist() == [64, 66, 67, 64, 64, 71, 64, 64]
    assert engraving.onsets[:5].tolist() == [0, 0.25, 0.5, 1.0, 1.5]
    assert engraving.bars[:9].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 2]
    assert np.all(np.diff(engraving.places) > 0)
    # Heads of notes are black, and lie where the score says: the first G is on the second line from below.
    head = engraving.strip[:, round(engraving.places[2])]
    assert head[HEIGHT // 2 + 11] < 64
    assert engraving.strip.shape[0] == HEIGHT


def test_clef_key_and_meter_are_not_shown(engraved: Engraved) -> None:
    for engraving in engraved[1].values():
        assert (engraving.strip[:, : round(engraving.places[0]) - 10] == 255).all()


def test_a_tune_that_cannot_be_engraved_is_left_out_and_not_tried_again(
    engraved: Engraved, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = engraved
    assert list(found) == ["SwallowTailJig", "WindUpReel"]
    assert (folder / f"empty{FAILED}").read_text()
    monkeypatch.setattr(module, "engrave", None)
    assert list(engrave_all(dict.fromkeys([*found, "empty"], ""), folder, 1, "engraving")) == [*found]


def test_a_crash_is_an_error_of_the_tune_and_a_kill_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    monkeypatch.setattr(module, "PROGRAM", program)
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(module.EngravingError, match="ended with code -11"):
        module.engrave("X:1\n")
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(RuntimeError, match="something killed the process"):
        module.engrave("X:1\n")


def test_the_window_follows_the_notes() -> None:
    engraving = score(walk(40, seed=0))
    excerpt = Excerpt("tune-00", "tune", 2.0, 14.0)
    frames = draw(excerpt, engraving, EVEN)
    assert frames.shape == (DURATION * FRAME_RATE, HEIGHT, WIDTH)
    # The strip's brightness is its column's number: notes are 27 px apart from 100 on, an eighth each.
    centers = 100 + 27 * (2.0 + 12 * np.arange(len(frames)) / len(frames)) / 0.5
    assert np.abs(frames[:, 0, WIDTH // 2].astype(float) - np.round(centers) % 251).max() <= 1


def test_notes_sound_in_time_and_in_tune(engraved: Engraved) -> None:
    engraving = engraved[1]["WindUpReel"]
    excerpt = next(cut("WindUpReel", engraving))
    notes = notes_of(excerpt, engraving)
    curve = TempoCurve.draw(np.random.default_rng(5))
    sound = play(excerpt, notes, curve)
    assert len(sound) == DURATION * SAMPLE_RATE
    assert np.array_equal(sound, play(excerpt, notes, curve))
    starts = curve.seconds(excerpt, notes.onsets)
    ends = curve.seconds(excerpt, notes.ends)
    found = 0
    for start, end, pitch in zip(starts, ends, notes.pitches, strict=True):
        part = sound[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
        power = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 15))
        # The note's frequency or one of its harmonics is the loudest.
        harmonic = power.argmax() * SAMPLE_RATE / (1 << 15) / (440 * 2 ** ((pitch - 69) / 12))
        found += abs(harmonic - round(harmonic)) < 0.03 * harmonic and round(harmonic) >= 1
    assert found >= 0.9 * len(notes.pitches)


@pytest.fixture(scope="module")
def clips(engraved: Engraved, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Media]:
    """One excerpt as a clip of each set, decoded."""
    folder = tmp_path_factory.mktemp("clips")
    excerpt = next(cut("WindUpReel", engraved[1]["WindUpReel"]))
    task = ClipTask(excerpt, engraved[0] / "WindUpReel.npz", folder / "async.mp4")
    kinds = {"async": task, "again": task} | {name: replace(task, **{name: True}) for name in ("sync", "noise", "bars")}
    found = {}
    for name, kind in kinds.items():
        render_clip(replace(kind, out=folder / f"{name}.mp4"))
        found[name] = decode(
            folder / f"{name}.mp4", frame_rate=FRAME_RATE, picture=WholeFrame(), sample_rate=SAMPLE_RATE
        )
    assert (folder / "async.mp4").read_bytes() == (folder / "again.mp4").read_bytes()
    return found


def test_clips_are_of_one_length_and_size(clips: dict[str, Media]) -> None:
    for media in clips.values():
        assert media.frames.shape == (DURATION * FRAME_RATE, HEIGHT, WIDTH, 3)
        assert len(media.audio) == DURATION * SAMPLE_RATE


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Return the RMS of the difference, as a share of the first one's deviation."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    return float(np.sqrt(np.mean(np.square(first - second))) / first.std())


def test_sets_differ_in_what_they_say(clips: dict[str, Media]) -> None:
    plain = clips["async"]
    # In sync: the same picture, another time for the sound.
    assert difference(plain.frames, clips["sync"].frames) < 0.01
    assert difference(plain.audio, clips["sync"].audio) > 0.5
    assert difference(plain.frames, clips["bars"].frames) < 0.01
    assert difference(plain.audio, clips["bars"].audio) > 0.5
    # Noise as loud as the sound, and of 64 gray levels where paper clips half of it.
    assert 0.8 < difference(plain.audio, clips["noise"].audio) < 1.2
    assert difference(plain.frames, clips["noise"].frames) > 0.4
