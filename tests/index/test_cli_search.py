import json
import math
import os
import shutil
import subprocess
import sys
import wave

import av
import numpy as np
import pytest
import torch

from scav_model.checkpoint import save
from scav_model.cli import main
from scav_model.config import Config, LossConfig, ModelConfig, to_dict
from scav_model.data import FeatureSet, FeatureStore
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip, write_manifest
from scav_model.encoders import audio_encoder, visual_encoder
from scav_model.index import SearchIndex
from scav_model.index.build import media_of
from scav_model.model import AudioVisualModel


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def make_checkpoint(path, video_dim, audio_dim, seed=0):
    torch.manual_seed(seed)
    model = ModelConfig(
        visual_input=video_dim,
        audio_input=audio_dim,
        dim=8,
        visual_blocks=1,
        audio_blocks=1,
        heads=2,
        conv_kernel=4,
        conv_groups=4,
    )
    config = Config(model=model, loss=LossConfig(metric="dtw"))
    save(path, {"config": to_dict(config), "model": AudioVisualModel(model).state_dict()})


def make_media(path, pitch, seconds=1.0):
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for number in range(round(25 * seconds)):
            picture = np.full((64, 64, 3), (pitch // 10 + 5 * number) % 256, dtype=np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode(None))
        samples = 0.5 * np.sin(2 * math.pi * pitch * np.arange(round(16_000 * seconds)) / 16_000)
        block = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts = 16_000, 0
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Four clips as media, manifest and feature store, and a checkpoint that takes them."""
    folder = tmp_path_factory.mktemp("world")
    clips = []
    for number, pitch in enumerate((200, 500, 1200, 2400)):
        make_media(folder / f"{number}.mp4", pitch)
        clips.append(Clip(f"clip-{number}", folder / f"{number}.mp4", "test"))
    write_manifest(folder / "manifest.jsonl", clips)
    visual, audio = visual_encoder("patches"), audio_encoder("log_mel")
    extract(clips, folder / "store", visual, audio, ExtractionConfig(workers=0))
    make_checkpoint(folder / "checkpoint.pt", visual.dim, audio.dim)
    return folder


@pytest.fixture
def built(world, tmp_path, capsys):
    arguments = ("--checkpoint", world / "checkpoint.pt", "--features", world / "store")
    code, out, err = run(
        capsys, "index", "build", tmp_path / "index", *arguments, "--manifest", world / "manifest.jsonl"
    )
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'index'}: 4 clips added in ")
    return tmp_path / "index"


def test_build_info_verify_delete(built, world, capsys):
    code, out, _ = run(capsys, "index", "info", built)
    assert code == 0
    assert "4 clips, 0 deleted" in out
    assert "metric   dtw, per step" in out
    assert "video    patches, 5 Hz, 5 to 5 steps a clip" in out
    assert run(capsys, "index", "verify", built)[:2] == (0, f"{built}: 4 clips, 0 problems\n")
    arguments = ("--checkpoint", world / "checkpoint.pt", "--features", world / "store")
    code, out, _ = run(capsys, "index", "build", built, *arguments)
    assert code == 0
    assert "0 clips added" in out
    assert "4 were there already; 4 in all" in out
    code, _, err = run(capsys, "index", "build", built, *arguments, "--metric=sinkhorn")
    assert code == 1
    assert "metric: there 'dtw', now 'sinkhorn'" in err
    assert run(capsys, "index", "delete", built, "clip-1", "clip-2")[1] == f"{built}: 2 clips deleted; 2 in all\n"
    assert "MiB given back; 2 in all" in run(capsys, "index", "delete", built, "--compact")[1]
    code, out, _ = run(capsys, "index", "add", built, "--features", world / "store")
    assert "2 clips added" in out
    path = next(built.glob("*.sequences.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out, err = run(capsys, "index", "verify", built)
    assert code == 1
    assert path.name in out
    assert "1 problems" in err


def test_an_index_without_a_manifest_has_players_and_pictures(world, tmp_path, capsys):
    """The store that extraction wrote knows the media, and both can be moved together."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("store", "1.mp4", "checkpoint.pt", *(f"{number}.mp4" for number in (0, 2, 3))):
        (shutil.copytree if name == "store" else shutil.copyfile)(world / name, moved / name)
    arguments = ("--checkpoint", moved / "checkpoint.pt", "--features", moved / "store")
    assert run(capsys, "index", "build", tmp_path / "index", *arguments)[0] == 0
    media = SearchIndex.open(tmp_path / "index").media(2)
    assert media == {"path": str(moved / "2.mp4"), "start": 0.0, "seconds": 1.0, "split": "test"}
    code, page, _ = run(capsys, "search", tmp_path / "index", "clip-1", "--format=html", "--k=4")
    assert code == 0
    assert page.count("<video ") == 5
    assert "data:image/jpeg;base64," in page
    features = FeatureSet.load(features_file(moved / "store", tmp_path / "set.safetensors"))
    assert media_of(features, None)(0) == {}


def features_file(store, path):
    """The clips of a store as a feature file, which knows no media."""
    opened = FeatureStore.open(store)
    sides = zip(*(opened.clip(number) for number in range(len(opened))), strict=True)
    FeatureSet(list(opened.ids), *(list(side) for side in sides)).save(path)
    return path


def test_files_find_the_clips_that_they_are(built, world, tmp_path, capsys):
    """A clip's file is encoded as its features were, with any weights."""
    by_id = json.loads(run(capsys, "search", built, "clip-2", "clip-0", "--format=json")[1])
    files = (world / "2.mp4", world / "0.mp4")
    by_file = json.loads(run(capsys, "search", built, *files, "--format=json")[1])
    for one, other in zip(by_id["queries"], by_file["queries"], strict=True):
        assert [hit["id"] for hit in one["hits"]] == [hit["id"] for hit in other["hits"]]
        near = [hit["distance"] for hit in one["hits"]]
        assert [hit["distance"] for hit in other["hits"]] == pytest.approx(near, abs=0.02)
    (tmp_path / "queries.txt").write_text(f"{files[0]}\n{files[1]}\n")
    batch = json.loads(run(capsys, "search", built, "--batch", tmp_path / "queries.txt", "--format=json")[1])
    assert batch == by_file


def test_a_wav_searches_videos(built, tmp_path, capsys):
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        samples = 16_000 * np.sin(2 * math.pi * 500 * np.arange(16_000) / 16_000)
        file.writeframes(samples.astype("<i2").tobytes())
    code, out, err = run(capsys, "search", built, tmp_path / "tone.wav", "--format=json", "--alignment", "--k=2")
    assert code == 0, err
    found = json.loads(out)
    assert (found["side"], found["searched"]) == ("audio", "video")
    assert len(found["queries"][0]["hits"]) == 2
    assert found["queries"][0]["hits"][0]["alignment"]["unit"] == "s"


def test_features_as_queries_and_a_page(built, world, tmp_path, capsys):
    arguments = ("--features", world / "store", "--mode=hybrid", "--candidates=2", "--k=2")
    code, out, err = run(capsys, "search", built, *arguments, "--format=html", "--output", tmp_path / "page.html")
    assert code == 0, err
    assert out == f"{tmp_path / 'page.html'}: 8 hits of 4 queries\n"
    assert (tmp_path / "page.html").read_text().count("<article>") == 8


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (("--output=found.json",), "{"),
        (("--output=found.HTML",), "<!DOCTYPE html>"),
        (("--output=sub/found.htm",), "<!DOCTYPE html>"),
        (("--output=found.txt",), "query "),
        (("--output=found",), "query "),
        (("--output=found", "--format=json"), "{"),
        (("--output=found.data", "--format=html"), "<!DOCTYPE html>"),
        (("--output=found.json", "--format=json"), "{"),
    ],
)
def test_the_format_follows_the_name_of_the_output(built, tmp_path, monkeypatch, arguments, start, capsys):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "search", built, "clip-1", "-k", "2", *arguments)
    assert code == 0, err
    name = arguments[0].removeprefix("--output=")
    assert out == f"{name}: 2 hits of 1 queries\n"
    assert (tmp_path / name).read_text().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output=found.json", "--format=html"), "got --format html and found.json, which is for json"),
        (("--output=found.html", "--format=table"), "got --format table and found.html, which is for html"),
        (("--output=found.txt", "--format=json"), "got --format json and found.txt, which is for table"),
        (("--output=found.csv",), "expected the name of --output to end in .json, .html or .txt, got found.csv"),
        (("--output=.",), "which is a folder; name another"),
    ],
)
def test_outputs_that_contradict_their_format_are_refused(built, tmp_path, monkeypatch, arguments, message, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, out, err = run(capsys, "search", built, "clip-1", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert not any((tmp_path / "empty").iterdir())


def test_ids_that_begin_with_a_hyphen(built, world, tmp_path, capsys):
    store = FeatureSet(["-UGabcdefgh", "--bcdefghij", "-k"], [torch.rand(3, 384)] * 3, [torch.rand(3, 256)] * 3)
    store.save(tmp_path / "more.safetensors")
    assert run(capsys, "index", "add", built, "--features", tmp_path / "more.safetensors")[0] == 0
    for arguments in (
        (built, "-UGabcdefgh", "--k", "1"),
        ("-k", "1", built, "-UGabcdefgh"),
        ("--k=1", built, "--", "-UGabcdefgh"),
        (built, "-k", "1", "--", "--bcdefghij"),
        (built, "--k", "1", "--", "-k"),
    ):
        code, out, err = run(capsys, "search", *arguments)
        assert code == 0, err
        assert len(out.splitlines()) == 2
    code, _, err = run(capsys, "search", built, "--bcdefghij")
    assert code == 2
    assert "an id that begins with - stands after --" in err
    code, out, _ = run(capsys, "index", "delete", built, "-UGabcdefgh", "--", "--bcdefghij", "-k")
    assert out == f"{built}: 3 clips deleted; 4 in all\n"


def test_lists_of_queries_as_people_have_them(built, tmp_path, capsys):
    listed = tmp_path / "queries.txt"
    listed.write_bytes(b"\xef\xbb\xbfclip-1\r\n\r\nclip-2")
    code, out, _ = run(capsys, "search", built, "--batch", listed, "-k", "1")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["clip-1", "clip-2"]
    listed.write_bytes(b"caf\xe9\n")
    code, _, err = run(capsys, "search", built, "--batch", listed)
    assert code == 1
    assert r"'caf\udce9' is not in" in err


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(world, built, tmp_path, encoding):
    names = ["caf\u00e9", "\U0001f600", "\u65e5\u672c"]
    clips = FeatureSet(names, list(torch.rand(3, 3, 384)), list(torch.rand(3, 3, 256)))
    clips.save(tmp_path / "more.safetensors")
    assert main(["index", "add", str(built), "--features", str(tmp_path / "more.safetensors")]) == 0
    for output in ("json", "table"):
        done = subprocess.run(
            [sys.executable, "-m", "scav_model.cli", "search", built, *names, "--format", output, "--k=9"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == 0, done.stderr
        text = done.stdout.decode(encoding)
        if output == "json":
            assert [query["query"] for query in json.loads(text)["queries"]] == names
        else:
            assert len(text.splitlines()) == 22


def test_tune(built, capsys):
    code, out, err = run(capsys, "index", "tune", built, "--k=2", "--candidates=[2,3]")
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["exact", "4"], ["hybrid", "2"], ["hybrid", "3"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clip-9",), "'clip-9' is not in"),
        (("clip-9",), "no clip has that id; did you mean 'clip-3', 'clip-2', 'clip-1'?"),
        (
            ("nofile.mp4",),
            "expected a media file or the id of a clip: there is no such file, and 'nofile.mp4' is not in",
        ),
        (("clip-1", "nofile.mp4"), "there is no such file, and 'nofile.mp4' is not in"),
        (("{world}",), "expected a media file or the id of a clip, got the folder"),
        (("--batch={world}",), "expected a file with a query a line, got"),
        ((), "expected queries on the command line, --batch or --features, one of the three"),
        (("clip-1", "--metric=sinkhorn"), "is an index for dtw, not for sinkhorn"),
        (("{world}/1.mp4", "clip-1"), "expected all queries to be files or all ids, and there is no file 'clip-1'"),
        (("{world}/manifest.jsonl",), "manifest.jsonl cannot be used: not a readable media file"),
        (("{world}/1.mp4", "--checkpoint={world}/other.pt"), "holds another model than the one that encoded the index"),
        (("{world}/1.mp4", "--checkpoint={world}/none.pt"), "name its file with --checkpoint"),
        (("--features={world}/small.safetensors",), "expected video features of 384 a step"),
        (("--features={world}/nan.safetensors",), "the video features of the query 'b' are NaN or infinite"),
    ],
)
def test_bad_queries_are_one_line(built, world, arguments, message, capsys):
    make_checkpoint(world / "other.pt", 384, 256, seed=1)
    FeatureSet(["a"], [torch.ones(3, 5)], [torch.ones(3, 256)]).save(world / "small.safetensors")
    bad = torch.ones(3, 384)
    bad[1, 7] = torch.nan
    FeatureSet(["a", "b"], [torch.ones(3, 384), bad], [torch.ones(3, 256)] * 2).save(world / "nan.safetensors")
    code, out, err = run(capsys, "search", built, *(str(one).format(world=world) for one in arguments))
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_nan_features_are_refused_with_their_id(built, world, capsys):
    bad = torch.ones(3, 384)
    bad[0, 0] = torch.nan
    three = FeatureSet(["good", "bad", "fine"], [torch.ones(4, 384), bad, torch.ones(2, 384)], [torch.ones(3, 256)] * 3)
    three.save(world / "three.safetensors")
    code, _, err = run(capsys, "index", "add", built, "--features", world / "three.safetensors")
    assert code == 1
    assert "video features of 'bad' are NaN or infinite" in err.splitlines()[-1]
    assert len(SearchIndex.open(built)) == 4
    code, _, err = run(capsys, "index", "add", built, "--features", world / "three.safetensors", "--skip_bad")
    assert code == 0
    assert "left out: bad: NaN or infinite features" in err
    assert sorted(SearchIndex.open(built).numbers) == [*(f"clip-{number}" for number in range(4)), "fine", "good"]


def test_features_of_another_front_end_are_refused(built, world, tmp_path, capsys):
    clips = [Clip("new", world / "1.mp4", "test")]
    config = ExtractionConfig(workers=0, frame_rate=10)
    extract(clips, tmp_path / "faster", visual_encoder("patches"), audio_encoder("log_mel"), config)
    code, _, err = run(capsys, "index", "add", built, "--features", tmp_path / "faster")
    assert code == 1
    assert "video.rate_hz: there 5.0, now 10" in err
