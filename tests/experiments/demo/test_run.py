"""The demo from end to end, on a handful of clips."""

import json
import math
from pathlib import Path

import pytest

from scav_model.data import open_features
from scav_model.data.manifest import read_manifest
from scav_model.experiments import folder
from scav_model.experiments.demo import run as demo
from scav_model.experiments.demo.run import run_demo
from scav_model.experiments.demo.scene import SceneConfig
from scav_model.experiments.demo.systems import SYSTEMS, DemoSize

TINY = DemoSize(
    train_clips=10,
    test_clips=6,
    epochs=1,
    batch_size=5,
    dim=16,
    scene=SceneConfig(duration=1.6, shortest=1.2, strikes=(2, 3)),
)
KEYS = ["model", "retrieval", "direction", "R@1", "R@5", "R@10", "MedR", "gallery", "train_seconds", "search_seconds"]
WRITTEN = ["results.json", "retrieval.png", "alignment.png"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUICK", TINY)


def run_tiny(out: Path, resume: bool = False, seeds: int = 1) -> None:
    run_demo(out=out, quick=True, seed=3, seeds=seeds, resume=resume, threads=1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo of one seed; not to be changed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "QUICK", TINY)
        run_tiny(out)
    return out


def test_every_system_search_and_direction_has_a_row(finished: Path) -> None:
    rows = json.loads((finished / "results.json").read_text())
    found = [(row["model"], row["retrieval"], row["direction"]) for row in rows]
    assert sorted(found) == sorted(
        (model, retrieval, direction)
        for model in ("cav", "scav_euclidean", "scav_dtw", "scav_wasserstein")
        for retrieval in ("mean", "sequence", "hybrid")
        for direction in ("v2a", "a2v")
    )
    for row in rows:
        assert list(row) == KEYS
        assert 0 <= row["R@1"] <= row["R@5"] <= row["R@10"] <= 100
        assert 1 <= row["MedR"] <= row["gallery"] == TINY.test_clips
        assert row["train_seconds"] > 0
        assert row["search_seconds"] > 0
        assert all(math.isfinite(row[key]) for key in KEYS[3:])


def test_plots_are_pictures(finished: Path) -> None:
    for name in ("retrieval.png", "alignment.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


def test_the_data_went_by_files_of_both_splits(finished: Path) -> None:
    clips = read_manifest(finished / "seed-3" / "manifest.jsonl")
    assert all(clip.path.is_file() for clip in clips)
    for split, count in (("train", TINY.train_clips), ("test", TINY.test_clips)):
        ids = [clip.id for clip in clips if clip.split == split]
        assert open_features(finished / "seed-3" / "features", split).ids == ids
        assert len(ids) == count
    contents = [clip.path.read_bytes() for clip in clips]
    assert len(set(contents)) == len(contents)
    assert len({(clip.id, clip.path) for clip in clips}) == TINY.train_clips + TINY.test_clips


@pytest.mark.usefixtures("tiny")
def test_a_finished_demo_is_not_done_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a finished stage was done again")

    before = (finished / "results.json").read_bytes()
    for module, stage in ((demo, "parallel_map"), (demo, "extract"), (folder, "train"), (demo, "evaluate")):
        monkeypatch.setattr(module, stage, never)
    run_tiny(finished, resume=True)
    assert (finished / "results.json").read_bytes() == before
    printed = capsys.readouterr().out
    assert all(system.label in printed for system in SYSTEMS)


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_demo_goes_on_to_the_same_recalls(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = False
    search = demo.evaluate

    def evaluate(*arguments: object, **options: object) -> object:
        nonlocal interrupted
        if not interrupted and (tmp_path / "out" / "seed-3" / "cav" / "rows.json").exists():
            interrupted = True
            raise KeyboardInterrupt
        return search(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(demo, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        run_tiny(tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()
    run_tiny(tmp_path / "out", resume=True)
    recalls = [
        [[row[key] for key in KEYS[:-2]] for row in json.loads((out / "results.json").read_text())]
        for out in (finished, tmp_path / "out")
    ]
    assert recalls[0] == recalls[1]


@pytest.mark.usefixtures("tiny")
def test_other_settings_are_not_resumed(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "QUICK", DemoSize(train_clips=12))
    with pytest.raises(ValueError, match=r"other settings .*train_clips: there 10, now 12"):
        run_tiny(finished, resume=True)


@pytest.mark.usefixtures("tiny")
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "seed-3").mkdir()
    (tmp_path / "seed-3" / "thesis.tex").write_text("…")
    with pytest.raises(FileExistsError, match=r"holds something else: it has no demo\.json"):
        run_tiny(tmp_path)
    assert (tmp_path / "seed-3" / "thesis.tex").exists()


def test_bad_counts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 seed"):
        run_demo(out=tmp_path, seeds=0)
    with pytest.raises(ValueError, match="at least 1 thread"):
        run_demo(out=tmp_path, threads=0)
