"""PE-AV through transformers' own code, on a tiny checkpoint in the official format."""

import json
import pickle
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from scav_model.data import FeatureStore
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip
from scav_model.data.store.verify import verify
from scav_model.encoders import EncoderError, audio_encoder, pe_av, visual_encoder
from scav_model.encoders.pe_av import PeAudioEncoder, PeVideoEncoder
from scav_model.experiments.demo.render import render
from scav_model.experiments.demo.scene import SceneConfig, make_scene
from tests.encoders.checkpoints import pe_av_folder


@pytest.fixture(scope="module")
def library(pe_av_model: Path):
    """The whole model and its processors, as transformers has them."""
    from transformers import PeAudioFeatureExtractor, PeAudioVideoModel, PeVideoVideoProcessor

    model = PeAudioVideoModel.from_pretrained(pe_av_model, dtype=torch.float32).eval()
    return (
        model,
        PeVideoVideoProcessor.from_pretrained(pe_av_model),
        PeAudioFeatureExtractor.from_pretrained(pe_av_model),
    )


@pytest.fixture(scope="module")
def video(pe_av_model: Path) -> PeVideoEncoder:
    return PeVideoEncoder(pe_av_model)


@pytest.fixture(scope="module")
def audio(pe_av_model: Path) -> PeAudioEncoder:
    return PeAudioEncoder(pe_av_model)


def frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def encode(encoder, *clips):
    return encoder.encode([encoder.prepare(clip) for clip in clips])


def test_video_steps_are_those_of_the_library(library, video: PeVideoEncoder) -> None:
    model, processor, _ = library
    clip = frames(7, 48, 80)
    inputs = processor(videos=[torch.from_numpy(clip).permute(0, 3, 1, 2)], return_tensors="pt")
    with torch.no_grad():
        expected = model.video_model.video_encoder(**inputs).last_hidden_state[0]
    picture = pickle.loads(pickle.dumps(video.picture))
    scaled = np.stack([picture(av.VideoFrame.from_ndarray(frame, format="rgb24")) for frame in clip])
    assert scaled.shape == (7, 32, 32, 3)
    (steps,) = encode(video, scaled)
    assert (video.dim, steps.shape, steps.dtype) == (32, (7, 32), torch.float32)
    torch.testing.assert_close(steps, expected, rtol=1e-4, atol=1e-5)


def test_audio_steps_are_those_of_the_library_25_a_second(library, audio: PeAudioEncoder) -> None:
    model, _, processor = library
    sound = noise(9_600 - 500)
    inputs = processor(sound, sampling_rate=48_000, return_tensors="pt")
    with torch.no_grad():
        expected = model.audio_model.audio_encoder(input_values=inputs["input_values"]).last_hidden_state[0]
    (steps,) = encode(audio, sound)
    assert (audio.sample_rate, audio.rate_hz, audio.dim) == (48_000, 25.0, 32)
    assert steps.shape == (5, 32)
    torch.testing.assert_close(steps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("samples", "steps"), [(0, 1), (1, 1), (700, 1), (1920, 1), (1921, 2), (3840, 2)])
def test_short_sounds(audio: PeAudioEncoder, samples: int, steps: int) -> None:
    (found,) = encode(audio, noise(samples))
    assert found.shape == (steps, 32)
    assert found.isfinite().all()


def test_a_clip_does_not_depend_on_its_batch_and_long_ones_go_in_windows(
    audio: PeAudioEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pe_av, "WINDOW", 2)
    monkeypatch.setattr(pe_av, "BATCH", 2)
    sounds = [noise(1920 * steps, seed) for seed, steps in enumerate((2, 1, 2, 5))]
    together = encode(audio, *sounds)
    assert [len(steps) for steps in together] == [2, 1, 2, 5]
    for sound, steps in zip(sounds[1:3], together[1:3], strict=True):
        torch.testing.assert_close(encode(audio, sound)[0], steps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(encode(audio, sounds[3][2 * 1920 : 4 * 1920])[0], together[3][2:4], rtol=1e-4, atol=1e-5)


def test_frames_go_through_the_image_model_in_pieces(video: PeVideoEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = frames(5, 32, 32)
    (whole,) = encode(video, clip)
    image_model = video._encoder.model.embedder.vision_model
    seen: list[int] = []
    image_model.model.register_forward_pre_hook(lambda module, arguments: seen.append(len(arguments[0])))
    monkeypatch.setattr(image_model, "count", 2)
    torch.testing.assert_close(encode(video, clip)[0], whole, rtol=1e-4, atol=1e-5)
    assert seen == [2, 2, 1]


def test_what_is_recorded(pe_av_model: Path, video: PeVideoEncoder, audio: PeAudioEncoder, tmp_path: Path) -> None:
    found = json.loads(json.dumps([video.describe(), audio.describe()]))
    for about in found:
        assert (about["encoder"], about["model"], about["features"]) == ("pe-av", "tiny", "last_hidden_state")
        assert about["untrained"] is False
        assert set(about["versions"]) == {"transformers", "timm"}
    assert found[0]["weights_sha256"] != found[1]["weights_sha256"]
    assert found[0]["preprocessing"]["size"] == [32, 32]
    assert found[0]["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert found[1]["preprocessing"] == {"sample_rate": 48_000, "hop": 1920, "padding": "reflect", "window_steps": 750}
    fresh = pe_av_folder(tmp_path / "fresh", touched=False)
    assert visual_encoder(f"pe-av:{fresh}").describe()["untrained"] is True
    assert audio_encoder(f"pe-av:{fresh}").describe()["untrained"] is True


def test_extraction_keeps_rates_and_lengths(video: PeVideoEncoder, audio: PeAudioEncoder, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    render(make_scene(0, "train", 0, SceneConfig(duration=1.2, shortest=1.0, strikes=(1, 2))), path)
    extract(
        [Clip("a", str(path), "train")], tmp_path / "store", video, audio, ExtractionConfig(workers=0, frame_rate=10.0)
    )
    store = FeatureStore.open(tmp_path / "store")
    assert (store.video_rate_hz, store.audio_rate_hz, store.video_dim, store.audio_dim) == (10.0, 25.0, 32, 32)
    assert verify(tmp_path / "store").problems == []


def test_nothing_but_the_checkpoint_is_read(pe_av_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pe_av_model, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    vision = config["audio_video_config"]["video_config"]["vision_config"]
    for change in (
        {"architecture": "hf-hub:someone/else"},
        {"model_args": {**vision["model_args"], "checkpoint_path": "/tmp/pickle.pt"}},
    ):
        changed = json.loads(json.dumps(config))
        changed["audio_video_config"]["video_config"]["vision_config"].update(change)
        (copy / "config.json").write_text(json.dumps(changed))
        with pytest.raises(EncoderError, match="expected an image model that timm has, and no other files"):
            PeVideoEncoder(copy)
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "model.safetensors").rename(copy / "weights")
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match="could not be loaded as a checkpoint of PE-AV"):
        PeAudioEncoder(copy)


def test_bad_checkpoints_say_what_would_be_right(pe_av_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    with pytest.raises(EncoderError, match=r"expected a folder with config\.json; download one with hf download"):
        visual_encoder(f"pe-av:{tmp_path}")
    with pytest.raises(EncoderError, match=r"expected an audio encoder, .* pe-av:FOLDER"):
        audio_encoder("pe-av:")
    copy = Path(shutil.copytree(pe_av_model, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    removed = next(name for name in weights if name.startswith("audio_model.audio_encoder.layers"))
    save_file(
        {name: value for name, value in weights.items() if name != removed},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(EncoderError, match="lacks weights of its audio encoder"):
        PeAudioEncoder(copy)
    (copy / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 48_000, "hop_length": 960}))
    shutil.copy(pe_av_model / "model.safetensors", copy)
    with pytest.raises(EncoderError, match="says 960 samples a step, and the encoder has 1920"):
        PeAudioEncoder(copy)
    (copy / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(EncoderError, match="to be a checkpoint of pe_audio_video, got clip"):
        PeAudioEncoder(copy)
    with pytest.raises(EncoderError, match="expected batch_frames to be at least 1"):
        PeVideoEncoder(pe_av_model, batch_frames=0)
