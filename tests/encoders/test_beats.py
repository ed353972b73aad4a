"""BEATs through SpeechBrain's own code, on a tiny checkpoint in the official format."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from scav_model.encoders import EncoderError, EncoderOptions, audio_encoder, beats
from scav_model.encoders.beats import BeatsEncoder, convert, speechbrain_beats, whole_steps
from tests.encoders.checkpoints import Bomb, beats_file

TEN_SECONDS = 160_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def encode(encoder: BeatsEncoder, *sounds: np.ndarray) -> list[torch.Tensor]:
    return encoder.encode([encoder.prepare(sound) for sound in sounds])


def test_ten_seconds_are_62_steps_or_496_patches_as_the_library_has_them(beats_model: Path) -> None:
    library = speechbrain_beats().BEATs(str(beats_model))
    with torch.no_grad():
        patches = library.extract_features(torch.from_numpy(noise(TEN_SECONDS))[None], torch.ones(1))[0][0]
    kept = BeatsEncoder(beats_model, frequency="keep")
    mean = BeatsEncoder(beats_model)
    assert (kept.rate_hz, mean.rate_hz) == (50.0, 6.25)
    assert kept.dim == mean.dim == 48
    (every,), (steps,) = encode(kept, noise(TEN_SECONDS)), encode(mean, noise(TEN_SECONDS))
    assert every.shape == (496, 48)
    assert steps.shape == (62, 48)
    torch.testing.assert_close(every, patches, rtol=0, atol=1e-6)
    # Time-major: the eight patches of a step stand together.
    torch.testing.assert_close(steps[7], patches[56:64].mean(0), rtol=0, atol=1e-6)


def test_a_loud_second_is_found_at_its_time(beats_model: Path) -> None:
    quiet = noise(TEN_SECONDS) * 1e-3
    loud = quiet.copy()
    loud[80_000:96_000] = noise(16_000, seed=1)
    a, b = encode(BeatsEncoder(beats_model), quiet, loud)
    changed = (a - b).norm(dim=1)
    # Steps 31.25 to 37.5; a transformer sees everything, but most of what changes is there.
    assert 31 <= int(changed.argmax()) <= 37


@pytest.mark.parametrize(("samples", "steps"), [(16_000, 6), (400, 1), (1, 1), (2_800, 1), (5_360, 2), (44_100, 17)])
def test_short_sounds(beats_model: Path, samples: int, steps: int) -> None:
    (found,) = encode(BeatsEncoder(beats_model), noise(samples))
    assert found.shape == (steps, 48)
    assert found.isfinite().all()


def test_silence_is_finite(beats_model: Path) -> None:
    (found,) = encode(BeatsEncoder(beats_model), np.zeros(16_000, dtype=np.float32))
    assert found.isfinite().all()


def test_what_is_cut_off_the_end_the_library_does_not_look_at(beats_model: Path) -> None:
    library = speechbrain_beats().BEATs(str(beats_model))
    sound = noise(50_000)
    assert len(whole_steps(sound)) < len(sound)
    with torch.no_grad():
        whole, cut = (
            library.extract_features(torch.from_numpy(part)[None], torch.ones(1))[0]
            for part in (sound, whole_steps(sound))
        )
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-6)


def test_a_clip_does_not_depend_on_its_batch(beats_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beats, "WINDOW", 16)
    sounds = [noise(count, seed) for seed, count in enumerate((40_000, 16_000, 40_000, 30_000, 100_000))]
    together = encode(BeatsEncoder(beats_model, batch_windows=2), *sounds)
    for sound, steps in zip(sounds, together, strict=True):
        torch.testing.assert_close(encode(BeatsEncoder(beats_model), sound)[0], steps, rtol=1e-5, atol=1e-5)


def test_long_sound_goes_through_in_windows_on_one_grid(beats_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert beats.WINDOW * 0.16 > 10  # ten seconds stay whole
    monkeypatch.setattr(beats, "WINDOW", 16)
    sound = noise(100_000)
    (steps,) = encode(BeatsEncoder(beats_model), sound)
    assert len(steps) == (100_000 - 240) // 2_560
    (second,) = encode(BeatsEncoder(beats_model), sound[16 * 2_560 : 32 * 2_560 + 240])
    torch.testing.assert_close(steps[16:32], second, rtol=1e-5, atol=1e-5)


def test_a_fine_tuned_checkpoint_yields_the_same_features(tmp_path: Path) -> None:
    tuned = beats_file(tmp_path / "tuned.pt", finetuned=True)
    content = torch.load(tuned, weights_only=True)
    assert content["cfg"]["finetuned_model"]
    assert content["model"]["predictor.weight"].shape == (527, 48)
    plain = {name: value for name, value in content["model"].items() if not name.startswith("predictor")}
    torch.save({"cfg": {**content["cfg"], "finetuned_model": False}, "model": plain}, tmp_path / "plain.pt")
    for frequency, steps in (("mean", 6), ("keep", 48)):
        (found,) = encode(BeatsEncoder(tuned, frequency=frequency), noise(16_000))
        assert found.shape == (steps, 48)
        (expected,) = encode(BeatsEncoder(tmp_path / "plain.pt", frequency=frequency), noise(16_000))
        assert torch.equal(found, expected)


def test_converted_once_it_is_the_same(beats_model: Path, tmp_path: Path) -> None:
    convert(beats_model, tmp_path / "beats.safetensors")
    official, converted = BeatsEncoder(beats_model), BeatsEncoder(tmp_path / "beats.safetensors")
    assert torch.equal(encode(official, noise(30_000))[0], encode(converted, noise(30_000))[0])
    assert official.describe()["weights_sha256"] == converted.describe()["weights_sha256"]


def test_bfloat16_keeps_spectra_in_float32(beats_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    library = speechbrain_beats().BEATs
    original = library.preprocess

    def preprocess(self: torch.nn.Module, source: torch.Tensor, *statistics: float) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(self, source, *statistics)

    monkeypatch.setattr(library, "preprocess", preprocess)
    reduced = BeatsEncoder(beats_model, precision="bfloat16")
    (a,), (b,) = encode(BeatsEncoder(beats_model), noise(30_000)), encode(reduced, noise(30_000))
    assert seen == [False, False]
    assert 0 < float((a - b).abs().max()) < 0.15
    assert reduced.describe()["precision"] == "bfloat16"


def test_what_is_recorded(beats_model: Path, tmp_path: Path) -> None:
    about = json.loads(json.dumps(audio_encoder(f"beats:{beats_model}").describe()))
    assert (about["encoder"], about["model"], about["frequency"]) == ("beats", "tiny.pt", "mean")
    assert about["preprocessing"]["bands"] == 128
    assert about["untrained"] is False
    assert BeatsEncoder(beats_file(tmp_path / "fresh.pt", touched=False)).describe()["untrained"] is True


def test_a_checkpoint_that_runs_code_is_refused(beats_model: Path, tmp_path: Path) -> None:
    content = torch.load(beats_model, weights_only=True)
    path, fired = tmp_path / "evil.pt", tmp_path / "fired"
    torch.save({**content, "bomb": Bomb(fired)}, path)
    with pytest.raises(EncoderError, match=r"holds more than weights, which could run code.*was not loaded"):
        BeatsEncoder(path)
    assert not fired.exists()


def test_bad_checkpoints_and_options_say_what_would_be_right(beats_model: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no checkpoint at"):
        BeatsEncoder(tmp_path / "none.pt")
    with pytest.raises(EncoderError, match="no checkpoint at"):
        BeatsEncoder(tmp_path / "none.safetensors")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(EncoderError, match=r"not a readable checkpoint|holds more than weights"):
        BeatsEncoder(tmp_path / "text.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(EncoderError, match=r"expected .* \{'cfg', 'model'\}, got state_dict"):
        BeatsEncoder(tmp_path / "other.pt")
    content = torch.load(beats_model, weights_only=True)
    torch.save({"cfg": {**content["cfg"], "encoder_layers": 3}, "model": content["model"]}, tmp_path / "layers.pt")
    with pytest.raises(EncoderError, match="not those of the BEATs that their cfg describes"):
        BeatsEncoder(tmp_path / "layers.pt")
    (tmp_path / "damaged.pt").write_bytes(beats_model.read_bytes()[:5000])
    with pytest.raises(EncoderError, match=r"not a readable checkpoint|holds more than weights"):
        BeatsEncoder(tmp_path / "damaged.pt")
    with pytest.raises(EncoderError, match="mean, keep"):
        audio_encoder(f"beats:{beats_model}", EncoderOptions(beats_frequency="max"))
    with pytest.raises(EncoderError, match=r"log_mel, notes, beats:CHECKPOINT or pe-av:FOLDER .*got 'beats'"):
        audio_encoder("beats")


def test_a_script_archive_is_refused(tmp_path: Path) -> None:
    scripted = tmp_path / "scripted.pt"
    with zipfile.ZipFile(scripted, "w") as archive:
        archive.writestr("scripted/constants.pkl", b"")
    with pytest.raises(EncoderError, match="TorchScript archive, which carries code"):
        BeatsEncoder(scripted)


def test_nothing_is_left_that_importing_speechbrain_makes_unsafe_to_look_at() -> None:
    speechbrain_beats()
    for module in list(sys.modules.values()):
        getattr(module, "__file__", None)
