"""CLIP through open_clip's own code, on a tiny checkpoint in its format."""

import builtins
import json
import pickle
import sys
from pathlib import Path

import av
import numpy as np
import open_clip
import pytest
import torch

from scav_model.encoders import EncoderError, EncoderOptions, visual_encoder
from scav_model.encoders.clip import ClipEncoder
from tests.encoders.checkpoints import CLIP_CONFIG, PREPROCESSING, Bomb, clip_folder


def frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 3), dtype=np.uint8)


@pytest.fixture
def tiny_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model that open_clip knows by name, as it does ViT-L-14."""
    (tmp_path / "tiny-14.json").write_text(json.dumps(CLIP_CONFIG))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(tmp_path / "tiny-14.json")
    return "tiny-14"


def test_pooled_features_are_open_clips_from_picture_to_step(clip_model: Path) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_model}")
    encoder = ClipEncoder(str(clip_model), features="pooled")
    pictures = [np.random.default_rng(seed).integers(0, 256, (45, 60, 3), dtype=np.uint8) for seed in range(3)]
    decoded = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(frame.to_image()) for frame in decoded]))
    made = np.stack([encoder.picture(frame) for frame in decoded])
    assert made.shape == (3, 28, 28, 3)
    assert made.dtype == np.uint8
    (steps,) = encoder.encode([encoder.prepare(made)])
    assert steps.shape == (3, encoder.dim) == (3, CLIP_CONFIG["embed_dim"])
    torch.testing.assert_close(steps, expected, rtol=1e-5, atol=1e-5)


def test_cls_and_patches_are_the_normed_class_token_beside_the_mean_patch(clip_model: Path) -> None:
    encoder = visual_encoder(f"clip:{clip_model}")
    assert encoder.dim == 32 + 32
    (steps,) = encoder.encode([frames(4)])
    tower = open_clip.create_model(f"local-dir:{clip_model}").visual.eval()
    tower.output_tokens = True
    mean, std = (torch.tensor(PREPROCESSING[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = (torch.from_numpy(frames(4)).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        pooled, tokens = tower(pixels)
    assert tokens.shape == (4, 4, 32)
    torch.testing.assert_close(steps[:, 32:], tokens.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(steps[:, :32] @ tower.proj, pooled, rtol=1e-4, atol=1e-5)


def test_the_size_of_vit_l_14_is_the_papers_2048() -> None:
    width = open_clip.get_model_config("ViT-L-14")["vision_cfg"]["width"]
    assert 2 * width == 2048


def test_batches_and_their_cuts_change_nothing(clip_model: Path) -> None:
    whole = ClipEncoder(str(clip_model), batch_frames=100)
    cut = ClipEncoder(str(clip_model), batch_frames=3)
    clips = [frames(5, 1), frames(1, 2), frames(4, 3)]
    for together, apart, clip in zip(whole.encode(clips), cut.encode(clips), clips, strict=True):
        assert len(together) == len(clip)
        torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together, whole.encode([clip])[0], rtol=1e-5, atol=1e-6)


def test_bfloat16_is_near_and_recorded(clip_model: Path) -> None:
    exact, reduced = ClipEncoder(str(clip_model)), ClipEncoder(str(clip_model), precision="bfloat16")
    (a,), (b,) = exact.encode([frames(3)]), reduced.encode([frames(3)])
    assert b.dtype == torch.float32
    assert 0 < float((a - b).abs().max()) < 0.15
    assert [encoder.describe()["precision"] for encoder in (exact, reduced)] == ["float32", "bfloat16"]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_named_model_takes_weights_from_a_file(tmp_path: Path, tiny_name: str, suffix: str) -> None:
    folder = clip_folder(tmp_path / "model", suffix=suffix)
    file = next(path for path in folder.iterdir() if path.suffix == suffix)
    encoder = ClipEncoder(f"{tiny_name}:{file}")
    about = encoder.describe()
    assert about["model"] == f"{tiny_name}:{file.name}"
    assert len(about["weights_file_sha256"]) == 64
    # open_clip's own constants stand in where a bare file has no preprocessing of its own.
    assert about["preprocessing"]["size"] == (28, 28)
    assert about["weights_sha256"] == ClipEncoder(str(folder)).describe()["weights_sha256"]


def test_a_tag_brings_its_own_activation(tmp_path: Path, tiny_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights by the tag `openai` want QuickGELU, under any name of the model."""
    file = clip_folder(tmp_path / "model") / "open_clip_model.safetensors"
    about = {"file": str(file), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, tiny_name, {"ours": about})
    quick, exact = ClipEncoder(f"{tiny_name}:ours"), ClipEncoder(f"{tiny_name}:{file}")
    assert [encoder.describe()["activation"] for encoder in (quick, exact)] == ["QuickGELU", "GELU"]
    assert quick.describe()["preprocessing"]["mean"] == (0.1, 0.2, 0.3)
    assert quick.describe()["weights_sha256"] == exact.describe()["weights_sha256"]
    assert not torch.equal(quick.encode([frames(2)])[0], exact.encode([frames(2)])[0])


def test_what_is_recorded(clip_model: Path) -> None:
    about = json.loads(json.dumps(ClipEncoder(str(clip_model)).describe()))
    assert about["encoder"] == "clip"
    assert about["model"] == "tiny"
    assert about["features"] == "cls+patches"
    assert about["untrained"] is False
    assert about["activation"] == "GELU"
    assert about["preprocessing"]["mean"] == PREPROCESSING["mean"]
    assert about["versions"]["open_clip"] == open_clip.__version__


def test_other_weights_have_another_hash_and_untrained_ones_are_told(clip_model: Path, tmp_path: Path) -> None:
    known = ClipEncoder(str(clip_model)).describe()
    other = ClipEncoder(str(clip_folder(tmp_path / "other", seed=1))).describe()
    fresh = ClipEncoder(str(clip_folder(tmp_path / "fresh", touched=False))).describe()
    assert len({about["weights_sha256"] for about in (known, other, fresh)}) == 3
    assert [about["untrained"] for about in (known, other, fresh)] == [False, False, True]


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, tiny_name: str, place: str) -> None:
    fired = tmp_path / "fired"
    folder = clip_folder(tmp_path / "model", suffix=".bin")
    file = folder / "open_clip_pytorch_model.bin"
    state = torch.load(file, weights_only=True)
    torch.save({**state, "bomb": Bomb(fired)}, file)
    with pytest.raises(EncoderError, match=r"holds more than weights, which could run code.*was not loaded"):
        ClipEncoder(f"{tiny_name}:{file}" if place == "file" else str(folder))
    file.write_bytes(pickle.dumps({"bomb": Bomb(fired)}, protocol=2))
    with pytest.raises(EncoderError, match="holds more than weights"):
        ClipEncoder(str(folder))
    assert not fired.exists()


def test_bad_specs_say_what_would_be_right(clip_model: Path, tmp_path: Path, tiny_name: str) -> None:
    with pytest.raises(
        EncoderError,
        match="expected a visual encoder, patches, gray, gray:WIDTHxHEIGHT, efficientnet-lite0, clip",
    ):
        visual_encoder("resnet")
    with pytest.raises(EncoderError, match=r"expected clip:MODEL:WEIGHTS .* got 'clip:ViT-L-14'"):
        visual_encoder("clip:ViT-L-14")
    with pytest.raises(EncoderError, match="no model 'ViT-Z-3'"):
        visual_encoder("clip:ViT-Z-3:openai")
    with pytest.raises(EncoderError, match=r"no such file, and its tags are .*openai"):
        visual_encoder("clip:ViT-L-14:/none.safetensors")
    with pytest.raises(EncoderError, match=r"cls\+patches, got 'best'"):
        visual_encoder(f"clip:{clip_model}", EncoderOptions(clip_features="best"))
    with pytest.raises(EncoderError, match="auto, float32 or bfloat16, got 'int8'"):
        visual_encoder(f"clip:{clip_model}", EncoderOptions(precision="int8"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EncoderError, match="could not be loaded"):
        visual_encoder(f"clip:{tmp_path / 'empty'}")
    other = clip_folder(tmp_path / "other")
    config = json.loads((other / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] = 48
    (other / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(EncoderError, match="could not be loaded"):
        visual_encoder(f"clip:{other}")


def test_a_tower_without_a_class_token_has_pooled_features_only(tmp_path: Path) -> None:
    folder = tmp_path / "resnet"
    config = {**CLIP_CONFIG, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**config)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"no class token .* ask for pooled"):
        ClipEncoder(str(folder))
    assert ClipEncoder(str(folder), features="pooled").dim == 24


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: object, **options: object) -> object:
        if name.split(".")[0] == "open_clip":
            raise ImportError("No module named 'open_clip'")
        return real(name, *arguments, **options)  # type: ignore[arg-type]

    for name in [name for name in sys.modules if name.split(".")[0] == "open_clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"scav-kernels\[encoders\].*--visual patches"):
        ClipEncoder("ViT-L-14:openai")
