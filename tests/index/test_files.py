"""Media files from Python: models that remember their front ends, and indexes of files."""

import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import torch

import scav_model
from scav_model import AudioVisualModel, SearchIndex
from scav_model.cli import main
from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureStore
from scav_model.data.datasets import media_clip
from scav_model.data.decode import DecodeError
from scav_model.data.extract import ExtractionConfig, ExtractionError, extract
from scav_model.encoders import EncoderError, audio_encoder, visual_encoder
from scav_model.index import SearchIndexError
from scav_model.training import train
from tests.index.test_cli_search import make_checkpoint, make_media

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
    assert names <= set(shown) == set(scav_model.__all__)
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


@pytest.fixture
def index(world: Path, tmp_path: Path) -> SearchIndex:
    model = AudioVisualModel.from_pretrained(world / "run")
    return SearchIndex.build(tmp_path / "clips.index", model, [world / f"{number}.mp4" for number in range(3)])


def test_an_index_of_files_is_that_of_the_commands(index: SearchIndex, world: Path, tmp_path: Path) -> None:
    arguments = [f"--checkpoint={world / 'run'}", f"--features={world / 'store'}"]
    assert main(["index", "build", str(tmp_path / "other"), *arguments]) == 0
    other = SearchIndex.open(tmp_path / "other")
    assert index.header.features == other.header.features
    assert index.header.differences(other.header) == []
    found = SearchIndex.open(index.folder).search(world / "1.mp4", k=3)
    expected = other.search("1", k=4)
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert {hit.id: hit.distance for hit in found} == pytest.approx(
        {hit.id: hit.distance for hit in expected if hit.id != "3"}
    )
    assert found[0].file == str(world / f"{found[0].id}.mp4")
    assert found[0].seconds == pytest.approx(1.0, abs=0.1)


def test_files_are_added_once_and_seen_at_once(index: SearchIndex, world: Path) -> None:
    assert (len(index), len(index.search("0"))) == (3, 3)
    done = index.add([world / "2.mp4", world / "3.mp4"])
    assert (done.clips, done.known) == (1, 1)
    assert (len(index), len(index.search("0"))) == (4, 4)
    assert index.add(world / "3.mp4").clips == 0
    reopened = SearchIndex.open(index.folder)
    assert [hit.id for hit in reopened.search("3", side="audio", mode="mean")] == [
        hit.id for hit in index.search(world / "3.mp4", side="audio", mode="mean")
    ]


def test_an_interrupted_index_is_resumed_by_the_same_call(index: SearchIndex, world: Path) -> None:
    model = AudioVisualModel.from_pretrained(world / "run")
    files = [world / f"{number}.mp4" for number in range(4)]
    assert len(SearchIndex.build(index.folder, model, files)) == 4
    with pytest.raises(SearchIndexError, match="was built with other settings"):
        SearchIndex.build(index.folder, model, files, metric="sinkhorn")


def test_what_cannot_be_indexed_or_asked_is_named(index: SearchIndex, world: Path, tmp_path: Path) -> None:
    model = AudioVisualModel.from_pretrained(world / "run")
    with pytest.raises(FileNotFoundError, match=r"expected a media file, found none at none\.mp4"):
        index.add(["none.mp4"])
    (tmp_path / "0.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"'0' is two clips, .*rename or drop one"):
        index.add([world / "0.mp4", tmp_path / "0.mp4"])
    with pytest.raises(SearchIndexError, match=r"there is no such file, and 'nothing\.wav' is not in"):
        index.search("nothing.wav")
    with pytest.raises(SearchIndexError, match="expected k to be at least 1"):
        index.search("0", k=0)
    with pytest.raises(SearchIndexError, match="expected a model that was loaded"):
        SearchIndex.build(tmp_path / "new", AudioVisualModel(model.config), world / "0.mp4")
    make_checkpoint(tmp_path / "old.pt", model.visual.input_dim, model.audio.input_dim)
    old = AudioVisualModel.from_pretrained(tmp_path / "old.pt")
    with pytest.raises(EncoderError, match="does not remember the video front end"):
        SearchIndex.build(tmp_path / "new", old, world / "0.mp4")


def test_files_that_cannot_be_used_are_left_out_and_named(
    index: SearchIndex, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"noise")
    done = index.add([world / "3.mp4", tmp_path / "noise.mp4"])
    assert (done.clips, done.refused) == (1, ["noise"])
    assert "skipped noise" in "".join(capsys.readouterr())
    with pytest.raises(ExtractionError, match="1 of 1 clips"):
        index.add(tmp_path / "noise.mp4")


def test_a_recording_searches_the_videos(index: SearchIndex, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "query.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 16_000, "NONE", ""))
        file.writeframes((1e4 * torch.sin(torch.arange(16_000) * 0.4)).short().numpy().tobytes())
    found = index.search(tmp_path / "query.wav", k=2)
    assert [hit.rank for hit in found] == [1, 2]
    assert found[0].distance <= found[1].distance


def test_files_of_one_stem_are_clips_of_their_own(index: SearchIndex, world: Path, tmp_path: Path) -> None:
    for number, suffix in (("0", "mp4"), ("0", "mkv"), ("5", "mp4"), ("5", "mkv")):
        shutil.copyfile(world / "3.mp4", tmp_path / f"{number}.{suffix}")
    files = [tmp_path / "5.mp4", tmp_path / "5.mkv"]
    assert index.add(files).clips == 2
    assert {"5.mp4", "5.mkv"} <= set(index.numbers)
    assert (index.add(files).known, index.add(files[0]).known, index.add(files[1]).known) == (2, 1, 1)
    # A second file of a stem that the index has: it gets its suffix, and the first is not added again.
    shutil.copyfile(world / "3.mp4", other := world / "0.mkv")
    try:
        assert index.add(other).clips == 1
        done = index.add([world / "0.mp4", other])
        assert (done.clips, done.known) == (0, 2)
    finally:
        other.unlink()
    assert "0.mkv" in index.numbers
    assert "0.mp4" not in index.numbers
    # A file of a known id elsewhere has moved.
    assert index.add(tmp_path / "0.mp4").known == 1
