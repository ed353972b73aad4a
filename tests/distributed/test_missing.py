"""Without Ray, or a cluster, what needs it says how to have it."""

import sys
from pathlib import Path

import pytest

from scav_model.cli import main
from scav_model.index import IndexWriter
from tests.index.worlds import clip, header


def test_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with IndexWriter.create(tmp_path / "index", header()) as writer:
        writer.add(clip(1))
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").touch()
    for command in (
        ["search", tmp_path / "index", "clip-1", "--ray", "local"],
        ["extract", tmp_path / "media", "--out", tmp_path / "store", "--ray", "local"],
    ):
        assert main([str(word) for word in command]) == 1
        told = capsys.readouterr().err
        assert "pip install 'scav-kernels[ray]'" in told
        assert told.count("\n") == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1:head"])
def test_a_cluster_that_is_not_there_is_a_line(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.mp4").touch()
    assert main(["extract", str(tmp_path / "media"), "--out", str(tmp_path / "store"), "--ray", address]) == 1
    told = capsys.readouterr().err
    assert f"expected a Ray cluster at '{address}', got none" in told
    assert told.count("\n") == 1


def test_settings_of_workers_without_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with IndexWriter.create(tmp_path / "index", header()) as writer:
        writer.add(clip(1))
    for option in (["--workers", "2"], ["--gpus_per_worker", "1"]):
        assert main(["search", str(tmp_path / "index"), "clip-1", *option]) == 1
        assert (
            "expected --ray with --workers and --gpus_per_worker, got them alone; add --ray local"
            in capsys.readouterr().err
        )
