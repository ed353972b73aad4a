"""The front end of notes hears which key sounds, and when."""

import numpy as np
import pytest

from scav_model.encoders import audio_encoder
from scav_model.encoders.described import described_encoder
from scav_model.encoders.notes import KEYS, SAMPLE_RATE, STEP_RATE, NotesEncoder

for package in ("onnxruntime", "basic_pitch"):
    if package == "basic_pitch":
        # Importing it imports what it names, which need not be there.
        from importlib.util import find_spec

        if find_spec(package) is None:
            pytest.skip("needs basic-pitch", allow_module_level=True)
    else:
        pytest.importorskip(package)
A4 = 48  # keys above A0


def tone(seconds: float, start: float, end: float) -> np.ndarray:
    """Return A4 with harmonics from `start` to `end`."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = sum(np.sin(2 * np.pi * 440 * order * time) / order for order in range(1, 6))
    return (0.3 * sound * ((time >= start) & (time < end))).astype(np.float32)


# Starts in the first window of the network and in a later one.
@pytest.mark.parametrize("start", [0.8, 3.6])
def test_a_tone_is_heard_in_its_steps(start: float) -> None:
    encoder = audio_encoder("notes")
    (steps,) = encoder.encode([encoder.prepare(tone(5.0, start, start + 0.8))])
    assert steps.shape == (int(5 * STEP_RATE), encoder.dim)
    sounds, starts = steps[:, :KEYS], steps[:, KEYS:]
    heard = (sounds[:, A4] > 0.5).nonzero().flatten() / STEP_RATE
    assert heard.min() == pytest.approx(start, abs=0.16)
    assert heard.max() == pytest.approx(start + 0.8, abs=0.24)
    assert sounds[heard.numel() and int((start + 0.4) * STEP_RATE)].argmax() == A4
    assert starts[:, A4].argmax() / STEP_RATE == pytest.approx(start, abs=0.16)


@pytest.mark.parametrize(("seconds", "steps"), [(0.01, 1), (0.1, 1), (1.99, 24), (10.0, 125)])
def test_a_sound_has_the_steps_of_its_length(seconds: float, steps: int) -> None:
    found = NotesEncoder().prepare(np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32))
    assert found.shape == (steps, 2 * KEYS)
    assert found.max() < 0.5


def test_a_store_says_which_network_made_it() -> None:
    encoder = NotesEncoder()
    description = {"dim": encoder.dim, "rate_hz": encoder.rate_hz, **encoder.describe()}
    assert description["model"].startswith("basic-pitch ")
    assert isinstance(described_encoder(description, "audio", owner="store"), NotesEncoder)
    with pytest.raises(ValueError, match=r"expected audio of shape \(samples,\)"):
        encoder.prepare(np.zeros((2, 100), dtype=np.float32))
