"""What each transformation does to a picture and a sound."""

import numpy as np
import pytest

from scav_model.data.decode import read_clip
from scav_model.data.manifest import Clip
from scav_model.experiments.downstream.transformations import (
    FRAME_RATE,
    KEPT,
    PITCH,
    SAMPLE_RATE,
    SPEED,
    STRETCH,
    TRANSFORMATIONS,
    transform,
)
from scav_model.experiments.mp4 import write_mp4

SECONDS, TONE = 2.0, 1000.0  # of the clip; Hz


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    """A clip with a tone, and a picture that brightens with time and has a bright frame, by transformation."""
    folder = tmp_path_factory.mktemp("transformed")
    times = np.arange(round(SECONDS * FRAME_RATE)) / FRAME_RATE
    frames = np.full((len(times), 32, 40, 3), 60, dtype=np.uint8)
    frames += (50 * times / SECONDS).astype(np.uint8)[:, None, None, None]
    frames[:, [0, 1, -2, -1]] = 250
    frames[:, :, [0, 1, -2, -1]] = 250
    sound = 0.5 * np.sin(2 * np.pi * TONE * np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE)
    write_mp4(folder / "clip.mp4", frames, sound, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE)
    clip = Clip("clip", folder / "clip.mp4", "test")
    found = {"clip": read_clip(clip.path)}
    for name in TRANSFORMATIONS:
        transform(clip, name, folder / f"{name}.mp4")
        found[name] = read_clip(folder / f"{name}.mp4")
    return found


def frequency(sound):
    """Return the strongest frequency in the middle of a sound, in Hz."""
    middle = sound[4000:-4000]
    return np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * SAMPLE_RATE / len(middle)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds", "tone"),
    [
        ("reencode", SECONDS, TONE),
        ("crop", SECONDS, TONE),
        ("cut", KEPT * SECONDS, TONE),
        ("noise", SECONDS, TONE),
        ("speed", SECONDS / SPEED, TONE * SPEED),
        ("pitch", SECONDS, TONE * PITCH),
        ("stretch", SECONDS / STRETCH, TONE),
    ],
)
def test_time_and_pitch(transformed, name, seconds, tone):
    media = transformed[name]
    assert len(media.frames) / FRAME_RATE == pytest.approx(seconds, abs=0.1)
    assert len(media.audio) / SAMPLE_RATE == pytest.approx(seconds, abs=0.1)
    assert frequency(media.audio) == pytest.approx(tone, rel=0.01)
    assert media.frames.shape[1:] == (32, 40, 3)


def test_pictures(transformed):
    def edge(name):
        return transformed[name].frames[:, 0].astype(float).mean()

    def brightness(name):
        return transformed[name].frames[:, 8:-8, 8:-8].astype(float).mean((1, 2, 3))

    assert edge("crop") < 130 < edge("clip")
    assert transformed["noise"].frames[5, 8:-8, 8:-8].std() > 3 + transformed["clip"].frames[5, 8:-8, 8:-8].std()
    # As bright at the ends, in another time; cut ends are missing.
    for name in ("speed", "stretch"):
        assert brightness(name)[[0, -1]] == pytest.approx(brightness("clip")[[0, -1]], abs=4)
    assert brightness("cut")[0] > brightness("clip")[0] + 3


def test_sides_that_change():
    sides = {name: found.sides for name, found in TRANSFORMATIONS.items()}
    assert sides["pitch"] == ("audio",)
    assert sides["crop"] == ("video",)
    assert {found for name, found in sides.items() if name not in ("pitch", "crop")} == {("video", "audio")}


def test_odd_sizes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even height and width, got 3 × 4"):
        write_mp4(tmp_path / "x.mp4", np.zeros((1, 3, 4, 3), np.uint8), np.zeros(10), frame_rate=25, sample_rate=16000)
