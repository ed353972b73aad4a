"""Decoded clips show and sound what was rendered, at the right time."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scav_model.data.decode import Media, decode
from scav_model.data.pictures import Square
from scav_model.experiments.demo.render import FRAME_RATE, SAMPLE_RATE, SIZE, draw, render, synthesise
from scav_model.experiments.demo.scene import KINDS, Kind, Scene, SceneConfig, SceneObject, make_scene

STRIKES = np.array([0.31, 0.87, 1.462, 2.2])
FRAME = 1 / FRAME_RATE


def one_object(kind: Kind, velocity: tuple[float, float] = (0.2, -0.1)) -> Scene:
    """A scene in which nothing else is seen or heard."""
    item = SceneObject(kind, 0.1, (0.4, 0.6), velocity, STRIKES, pitch=1.0, loudness=0.5)
    return Scene(3.0, (item,), (), hum=0.0, noise=0.0005, background=(0.05, 0.05, 0.05), texture_seed=3)


def decoded(scene: Scene, folder: Path) -> Media:
    render(scene, folder / "clip.mp4")
    return decode(folder / "clip.mp4", frame_rate=FRAME_RATE, picture=Square(SIZE), sample_rate=SAMPLE_RATE)


def rises(level: NDArray[np.float64], rate: float, least: float) -> NDArray[np.float64]:
    """Seconds at which `level` starts to rise by `least` or more within a frame's time, once per rise."""
    span = max(1, round(FRAME * rate))
    jumps = level[span:] - level[:-span] >= least
    starts = np.flatnonzero(jumps & ~np.concatenate(([False], jumps[:-1])))
    return (starts + span) / rate


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.timbre)
def test_flashes_and_sounds_are_decoded_at_the_strikes_within_a_frame(kind: Kind, tmp_path: Path) -> None:
    media = decoded(one_object(kind), tmp_path)
    brightness = media.frames.astype(np.float64).max(axis=3).mean(axis=(1, 2))
    seen = rises(brightness, FRAME_RATE, least=1.0)
    # The envelope: the loudest of every 5 ms, in dB.
    blocks = np.abs(media.audio[: len(media.audio) // 80 * 80].reshape(-1, 80)).max(axis=1).astype(np.float64)
    heard = rises(20 * np.log10(blocks + 1e-3), SAMPLE_RATE / 80, least=6.0)
    assert len(seen) == len(heard) == len(STRIKES)
    assert np.abs(seen - STRIKES).max() <= FRAME
    assert np.abs(heard - STRIKES).max() <= FRAME
    assert np.abs(seen - heard).max() <= FRAME


def test_the_file_shows_what_was_drawn_and_sounds_as_synthesised(tmp_path: Path) -> None:
    scene = make_scene(0, "train", 0)
    media = decoded(scene, tmp_path)
    frames, sound = draw(scene), synthesise(scene)
    assert media.frames.shape == frames.shape
    assert media.audio.shape == sound.shape
    # Lossy, so alike, not equal.
    assert np.abs(media.frames.astype(int) - frames.astype(int)).mean() < 6
    assert np.corrcoef(media.audio, sound)[0, 1] > 0.95


def test_one_seed_one_file(tmp_path: Path) -> None:
    for name in ("first", "second"):
        render(make_scene(5, "test", 7), tmp_path / f"{name}.mp4")
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.mp4", "second.mp4"]


def test_every_seed_split_and_index_is_another_clip() -> None:
    scenes = [make_scene(seed, split, index) for seed in (0, 1) for split in ("train", "test") for index in range(100)]
    onsets = {tuple(time for time, _ in scene.onsets()) for scene in scenes}
    assert len(onsets) == len(scenes)


def test_the_same_sets_of_objects_come_again_and_again() -> None:
    config = SceneConfig()
    scenes = [make_scene(0, "test", index, config) for index in range(512)]
    sets = [frozenset(kind.timbre for _, kind in scene.onsets()) for scene in scenes]
    assert all(len(kinds) == config.objects for kinds in sets)
    assert len(set(sets)) == 20
    assert len(sets) / len(set(sets)) > 25


def test_strikes_are_irregular_apart_and_within_the_clip() -> None:
    config = SceneConfig()
    scenes = [make_scene(0, "train", index, config) for index in range(300)]
    for scene in scenes:
        for item in scene.objects:
            assert item.strikes.min() >= 0.1
            assert item.strikes.max() <= scene.duration - 0.25
            assert (np.diff(item.strikes) >= config.gap - 1e-9).all()
    spacings = np.concatenate([np.diff(item.strikes) for scene in scenes for item in scene.objects])
    assert spacings.std() > 0.2


def test_some_clips_are_shorter() -> None:
    config = SceneConfig()
    durations = np.array([make_scene(0, "train", index, config).duration for index in range(400)])
    assert durations.max() == config.duration
    assert durations.min() >= config.shortest
    assert 0.15 < (durations < config.duration).mean() < 0.35


def test_distractors_are_there() -> None:
    scene = make_scene(0, "train", 1)
    assert sum(item.kind.timbre is None for item in scene.objects) == 2
    assert len(scene.off_screen) > 0
    assert all(len(item.strikes) for item in scene.objects)


def test_strikes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"strikes at least 1\.0 s apart do not fit"):
        make_scene(0, "train", 0, SceneConfig(gap=1.0))
