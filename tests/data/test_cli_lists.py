"""Sources of every kind on the command line: one file, a folder, lists with bad lines, nothing at all."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scav_model.cli import main
from scav_model.data import FeatureStore
from tests.data.import_files import save_npz

Maker = Callable[..., Path]


def scav(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return a command's exit code, stdout and stderr."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def entry(name: str, path: str = "media/a.mp4") -> str:
    return json.dumps({"id": name, "path": path, "split": "train"})


def test_one_media_file(make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_media("-x1.MP4", seconds=1.0)
    code, _, err = scav(capsys, "extract", file, f"--out={tmp_path / 'store'}", "--workers=0")
    assert code == 0, err
    store = FeatureStore.open(tmp_path / "store")
    assert (store.ids, store.splits) == (["-x1"], ["test"])


def test_a_folder_says_what_it_passes_over(
    make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_media("media/a.mp4", seconds=1.0)
    (tmp_path / "media" / "._a.mp4").write_bytes(b"resource fork")
    (tmp_path / "media" / "a.srt").touch()
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "media") + b"/caf\xe9.mp4"))
    (tmp_path / "media" / "a.mp4").rename(odd)
    code, out, err = scav(capsys, "extract", tmp_path / "media", f"--out={tmp_path / 'store'}", "--workers=0")
    assert code == 0, err
    assert "passed over: 1 hidden, 1 .srt" in out
    assert FeatureStore.open(tmp_path / "store").ids == [r"caf\xe9"]
    code, out, err = scav(capsys, "manifest", "folder", tmp_path / "media", f"--out={tmp_path / 'm.jsonl'}")
    assert code == 0, err
    assert "passed over: 1 hidden, 1 .srt" in out
    assert (tmp_path / "m.ids.txt").read_text() == "caf\\xe9\n"


def test_bad_lines_are_said_and_counted(make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_media("media/a.mp4", seconds=1.0)
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("\n".join([entry("a"), entry("b\udce9"), "{", entry("-d")]) + "\n")
    command = ("extract", manifest, f"--out={tmp_path / 'store'}", "--workers=0")
    code, out, err = scav(capsys, *command)
    assert (code, err.count("error: ")) == (1, 1)
    assert "2 of 4 clips (50.0%) could not be used, more than max_bad_share = 5.0% allows" in err
    assert f"skipped {manifest}:2: expected 'id' to be of printable characters" in out
    assert f"skipped {manifest}:3: not valid JSON" in out
    assert FeatureStore.open(tmp_path / "store").ids == ["a", "-d"]
    assert scav(capsys, *command, "--max_bad_share=0.5")[0] == 0


def test_what_is_no_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("a,1,b,test\n")
    (tmp_path / "image").write_bytes(b"\x89PNG\0")
    (tmp_path / "folder").mkdir()
    out = f"--out={tmp_path / 'store'}"
    for command, message in (
        (("extract", tmp_path / "none.mp4", out), "nothing at .*none.mp4; expected a manifest, a folder of media"),
        (("extract", tmp_path / "list.csv", out), "line is a clip; the first: .*list.csv:1: not valid JSON"),
        (("extract", tmp_path / "image", out), "expected UTF-8 text, got a binary file"),
        (("extract", tmp_path / "folder", out), r"no media files in it \(it is empty\)"),
        (("manifest", "vggsound", tmp_path / "folder", tmp_path, out), "a data set's list, a file, got .*folder"),
        (("manifest", "music", tmp_path / "list.csv", tmp_path, out), "list.csv: not valid JSON"),
    ):
        code, _, err = scav(capsys, *command)
        assert code == 1
        assert err.count("error: ") == err.count("\n") == 1
        assert re.search(message, err)
    assert not (tmp_path / "store").exists()


def test_the_size_of_a_clip_has_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_npz(tmp_path / "a.npz")
    save_npz(tmp_path / "b.npz", video=np.zeros((1 << 17, 4)))
    rates = ("--video_rate_hz=5", "--audio_rate_hz=6.25", "--max_clip_megabytes=2", f"--out={tmp_path / 'store'}")
    code, out, err = scav(capsys, "features", "import", "npz", tmp_path, *rates)
    assert code == 0, err
    assert "more than max_clip_bytes = 2097152; raise it" in out
    assert "1 clips imported, 1 could not be used" in out


def test_two_files_of_one_stem_keep_their_suffixes(
    make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "a.mkv", "b.mp4", "dog/a.mp4"):
        make_media(f"media/{name}", seconds=0.4)
    code, _, err = scav(capsys, "extract", tmp_path / "media", f"--out={tmp_path / 'store'}", "--workers=0")
    assert code == 0, err
    assert FeatureStore.open(tmp_path / "store").ids == ["a.mkv", "a.mp4", "b", "dog/a"]
