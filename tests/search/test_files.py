"""Media files from Python: models that remember their front ends, and indexes of files."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import scav_model
from scav_model import AudioVisualModel
from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureStore
from scav_model.data.datasets import media_clip
from scav_model.data.decode import DecodeError
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.encoders import EncoderError, audio_encoder, visual_encoder
from scav_model.training import train
from tests.search.test_cli_search import make_checkpoint, make_media

PITCHES = (200, 500, 1200, 2400)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four media files, their features, and a run that was trained on these."""
    folder = tmp_path_factory.mktemp("world")
    clips = []
    for number, pitch in enumerate(PITCHES):
        make_media(folder / f"{number}.mp4", pitch)
        clips.append(media_clip(folder / f"{number}.mp4"))
    extract(clips, folder / "store", visual_encoder("patches"), audio_encoder("log_mel"), ExtractionConfig(workers=0))
    model = ModelConfig(dim=8, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4)
    config = Config(
        model=model,
        loss=LossConfig("dtw"),
        optim=OptimConfig(epochs=1, batch_size=4),
        retrieval=RetrievalConfig(every=0),
    )
    train(config, FeatureStore.open(folder / "store"), out=folder / "run", progress=False)
    return folder


def test_the_package_shows_what_it_exports() -> None:
    program = "import sys, scav_model; print(*dir(scav_model)); assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    names = {"AudioVisualModel", "Media", "SearchIndex", "read_clip"}
    assert names <= set(shown) & set(scav_model.__all__)
    assert all(getattr(scav_model, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'Modle'"):
        _ = scav_model.Modle


def test_a_file_is_encoded_as_its_stored_features_are(world: Path) -> None:
    model = AudioVisualModel.from_pretrained(world / "run")
    store = FeatureStore.open(world / "store")
    for number in range(2):
        video, audio = model.encode_file(world / f"{number}.mp4")
        with torch.no_grad():
            expected = model(*(side[None] for side in store.clip(number)))
        assert video.shape == (5, 8)
        torch.testing.assert_close(video, expected[0][0])
        torch.testing.assert_close(audio, expected[1][0])
    assert len(model.encode_file(str(world / "0.mp4"), start=0.4)[0]) < 5
    with pytest.raises(FileNotFoundError, match=r"expected a media file, found none at none\.mp4"):
        model.encode_file("none.mp4")
    (world / "noise.mp4").write_bytes(b"noise")
    with pytest.raises(DecodeError, match=r"noise\.mp4 cannot be used"):
        model.encode_file(world / "noise.mp4")


def test_every_form_of_a_model_remembers_its_front_ends(world: Path, tmp_path: Path) -> None:
    loaded = AudioVisualModel.from_pretrained(world / "run" / "checkpoint.pt")
    loaded.save_pretrained(tmp_path / "saved")
    saved = AudioVisualModel.from_pretrained(tmp_path / "saved")
    assert saved.config == loaded.config
    assert saved.config.visual_front_end is not None
    assert saved.config.visual_front_end["encoder"] == "patches"
    assert saved.loaded_from is not None
    assert saved.loaded_from.config.loss.metric == "dtw"
    assert torch.equal(saved.encode_file(world / "0.mp4")[1], loaded.encode_file(world / "0.mp4")[1])


def test_an_older_checkpoint_says_how_to_name_the_front_ends(world: Path, tmp_path: Path) -> None:
    dims = visual_encoder("patches").dim, audio_encoder("log_mel").dim
    make_checkpoint(tmp_path / "old.pt", *dims)
    model = AudioVisualModel.from_pretrained(tmp_path / "old.pt")
    with pytest.raises(EncoderError, match=r"does not remember the video front end .*model\.use_front_ends\("):
        model.encode_file(world / "0.mp4")
    with pytest.raises(ValueError, match="expected frame_rate"):
        model.use_front_ends("patches", "log_mel")
    with pytest.raises(EncoderError, match="expected a visual encoder"):
        model.use_front_ends("clap", frame_rate=5.0)
    model.use_front_ends("patches", "log_mel", frame_rate=5.0)
    video, _ = model.encode_file(world / "0.mp4")
    assert video.shape == (5, 8)
    model.save_pretrained(tmp_path / "new")
    assert torch.equal(AudioVisualModel.from_pretrained(tmp_path / "new").encode_file(world / "0.mp4")[0], video)


def test_a_front_end_of_another_size_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "other.pt", 6, 5)
    model = AudioVisualModel.from_pretrained(tmp_path / "other.pt")
    with pytest.raises(EncoderError, match="the model takes video steps of 6 features, and this front end has"):
        model.use_front_ends("patches", frame_rate=5.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.pt", r"no checkpoint at none\.pt: tried a file and a folder of that name"),
        ("owner/none", "no model owner/none: tried a file and a folder of that name, then the Hub"),
    ],
)
def test_what_was_tried_is_listed(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        AudioVisualModel.from_pretrained(name, local_files_only=True, cache_dir=tmp_path)
