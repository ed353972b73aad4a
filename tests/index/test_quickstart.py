"""From a folder of videos to a page with one command."""

import shutil
from pathlib import Path

import pytest

from scav_model import quickstart
from scav_model.cli import main
from scav_model.index import SearchIndex
from tests.index.test_cli_search import make_media


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, pitch in (("a.mp4", 200), ("b.mkv", 500), ("c.mp4", 1200)):
        make_media(folder / name, pitch)
    (folder / "noise.mp4").write_bytes(b"noise")
    return folder


@pytest.fixture
def done(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str, str]:
    """Return the folder of results, and what was printed."""
    assert main(["quickstart", str(videos), f"--out={tmp_path / 'out'}", "--workers=0"]) == 0
    return (tmp_path / "out", *capsys.readouterr())


def test_a_folder_becomes_a_page_as_the_plan_says(done: tuple[Path, str, str], videos: Path) -> None:
    out, printed, errors = done
    plan, _, rest = printed.partition("warning: 4 clips are too few to learn from")
    assert plan.startswith(f"{videos}: 4 clips, 0.1 minutes of media\n")
    assert f"1. features      {out / 'features'}: patches and log_mel, about" in plan
    assert "config small, 0.2 million parameters, 30 epochs, about" in plan
    assert "the same command goes on" in plan
    assert "epoch 30/30" in errors
    assert f"{out / 'first.html'}: the sounds that fit a; open it in a browser" in rest
    assert f"scav search {out / 'clips.index'} {videos / 'a.mp4'} --output found.html" in rest
    assert f"scav train --config small --train-features {out / 'features'} --out {out / 'longer'}" in rest
    assert f"scav extract {videos} --out {out / 'better-features'} --device cuda --visual clip:" in rest
    assert sorted(SearchIndex.open(out / "clips.index").numbers) == ["a", "b", "c"]
    assert "<audio" in (out / "first.html").read_text() or "<video" in (out / "first.html").read_text()


def test_the_same_command_goes_on(
    done: tuple[Path, str, str], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = done[0]
    (out / "first.html").unlink()
    assert main(["quickstart", str(videos), f"--out={out}", "--workers=0"]) == 0
    printed, errors = capsys.readouterr()
    assert f"{out / 'features'}: 0 clips" in printed
    assert f"2. model         {out / 'run'}: trained already; delete it to train anew" in printed
    assert "epoch" not in errors
    assert (out / "first.html").is_file()


def test_files_that_are_new_are_found_by_the_model_of_before(
    done: tuple[Path, str, str], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of the new files differ in their suffixes alone."""
    more = Path(shutil.copytree(videos, tmp_path / "more"))
    for suffix in ("mp4", "mkv"):
        shutil.copyfile(videos / "b.mkv", more / f"d.{suffix}")
    assert main(["quickstart", str(more), f"--out={done[0]}", "--workers=0"]) == 0
    printed, errors = capsys.readouterr()
    assert f"{done[0] / 'features'}: 2 clips" in printed
    assert "epoch" not in errors
    assert sorted(SearchIndex.open(done[0] / "clips.index").numbers) == ["a", "b", "c", "d.mkv", "d.mp4"]


def test_a_file_that_gains_a_twin_keeps_its_id(
    done: tuple[Path, str, str], videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = Path(shutil.copyfile(videos / "a.mp4", videos / "b.mp4"))
    try:
        assert main(["quickstart", str(videos), f"--out={done[0]}", "--workers=0"]) == 0
    finally:
        twin.unlink()
    assert f"{done[0] / 'features'}: 1 clips" in capsys.readouterr().out
    assert sorted(SearchIndex.open(done[0] / "clips.index").numbers) == ["a", "b", "b.mp4", "c"]


def test_a_run_that_was_stopped_is_not_a_trained_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not quickstart.is_trained(tmp_path)
    (tmp_path / "checkpoint.pt").touch()
    for epoch, trained in ((1, False), (2, True)):
        state = {"epoch": epoch, "config": {"optim": {"epochs": 2}}}
        monkeypatch.setattr(quickstart, "load_checkpoint", lambda path, state=state: state)
        assert quickstart.is_trained(tmp_path) is trained
    monkeypatch.setattr(quickstart, "load_checkpoint", lambda path: {"model": {}})
    assert not quickstart.is_trained(tmp_path)


def test_a_checkpoint_is_used_as_it_is(
    done: tuple[Path, str, str],
    videos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quickstart, "LARGE", 1000)
    arguments = [str(videos), f"--checkpoint={done[0] / 'run'}", f"--out={tmp_path / 'other'}", "--workers=0"]
    assert main(["quickstart", *arguments]) == 0
    printed = capsys.readouterr().out
    assert f"2. model         {done[0] / 'run'}: nothing to train" in printed
    assert "warning: the model has 0 million parameters, which a CPU applies slowly" in printed
    assert not (tmp_path / "other" / "run").exists()
    assert len(SearchIndex.open(tmp_path / "other" / "clips.index")) == 3


def test_one_video_is_too_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_media(tmp_path / "a.mp4", 200, seconds=0.2)
    assert main(["quickstart", str(tmp_path)]) == 1
    assert "expected at least 2 media files in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "2 seconds"), (89, "89 seconds"), (120, "2 minutes"), (7200, "2.0 hours")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert quickstart.span(seconds) == words
