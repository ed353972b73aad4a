"""The tunes from end to end, on a handful of them."""

import json
from pathlib import Path

import pytest

from scav_model.data import FeatureStore
from scav_model.data.manifest import read_manifest
from scav_model.experiments import folder
from scav_model.experiments.tunes import dataset, run, tuning
from scav_model.experiments.tunes.dataset import TunesSize
from scav_model.experiments.tunes.run import run_tunes

pytestmark = pytest.mark.slow

TINY = TunesSize(tunes=6, epochs=1, batch_size=4, dim=16)
KEYS = ["condition", "model", "search", "direction", "seed", "R@1", "R@5", "R@10", "MedR", "gallery"]
CONDITIONS = ("async", "reordered")
MODELS = ("cav", "scav_dtw")


def run_tiny(out: Path, **options: object) -> None:
    settings = {"conditions": CONDITIONS, "models": MODELS, "seeds": 1, "quick": True, "seed": 3, "threads": 1}
    run_tunes(out=out, **{**settings, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one seed; not to be changed."""
    for package in ("music21", "verovio", "resvg_py", "PIL", "tinysoundfont", "pretty_midi"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("tunes") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "QUICK", TINY)
        run_tiny(out)
    return out


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "QUICK", TINY)


def test_every_condition_model_search_and_direction_has_a_row(finished: Path) -> None:
    rows = json.loads((finished / "results.json").read_text())
    assert [(row["condition"], row["model"], row["search"], row["direction"], row["seed"]) for row in rows] == [
        (condition, model, search, direction, 3)
        for condition in CONDITIONS
        for model in MODELS
        for search in ("mean", "own", "dtw")
        for direction in ("v2a", "a2v")
    ]
    held_out = json.loads((finished / "data.json").read_text())["splits"]["test"]["clips"]
    for row in rows:
        assert list(row) == KEYS
        assert 0 <= row["R@1"] <= row["R@5"] <= row["R@10"] <= 100
        assert 1 <= row["MedR"] <= row["gallery"]
        assert row["gallery"] == held_out if row["condition"] == "async" else held_out < row["gallery"] <= 2 * held_out
    # SCAV-DTW is searched by DTW of its own.
    by_dtw = [
        [row["MedR"] for row in rows if (row["model"], row["search"]) == ("scav_dtw", name)] for name in ("own", "dtw")
    ]
    assert by_dtw[0] == by_dtw[1]


def test_controls_have_what_is_expected(finished: Path) -> None:
    rows = json.loads((finished / "controls.json").read_text())
    kinds = [(row["model"], row["control"]) for row in rows]
    assert kinds == [(model, kind) for model in MODELS for kind in ["shuffled"] * 6 + ["bars"]]
    assert all(0 <= row["expected"] <= 50 and row["deviation"] >= 0 for row in rows)


def test_no_tune_is_in_two_splits_and_the_data_went_by_files(finished: Path) -> None:
    owners: dict[str, set[str]] = {}
    for clip in read_manifest(finished / "async" / "manifest.jsonl"):
        assert clip.path.is_file()
        assert clip.label
        owners.setdefault(clip.id.split("-")[1], set()).add(clip.split)
    assert owners
    assert all(len(splits) == 1 for splits in owners.values())
    reordered = read_manifest(finished / "reordered" / "manifest.jsonl")
    assert {clip.split for clip in reordered} == {"test"}


def test_the_table_and_the_plot_are_written(finished: Path) -> None:
    text = (finished / "table.md").read_text()
    assert "| reordered | SCAV-DTW |" in text
    assert "| shuffled | CAV |" in text
    assert (finished / "retrieval.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("tiny")
def test_a_finished_run_is_not_done_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("a finished stage was done again")

    before = [(finished / name).read_bytes() for name in ("results.json", "controls.json")]
    for module, stage in ((dataset, "parallel_map"), (dataset, "extract"), (folder, "train"), (run, "search_rows")):
        monkeypatch.setattr(module, stage, never)
    run_tiny(finished, resume=True)
    assert [(finished / name).read_bytes() for name in ("results.json", "controls.json")] == before


@pytest.mark.usefixtures("tiny")
def test_other_settings_are_not_resumed_and_other_folders_left_alone(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"other settings .*audio: there 'log_mel', now 'notes'"):
        run_tiny(finished, resume=True, audio="notes")
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(FileExistsError, match=r"holds something else: it has no tunes\.json"):
        run_tiny(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_rates_are_tuned_on_tunes_of_their_own(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "RATES", (2e-3,))
    store = FeatureStore.open(finished / "async" / "features")
    # So few tunes leave none to validate with.
    monkeypatch.setattr(FeatureStore, "select", lambda self, split: self.subset(range(8 if split == "train" else 5)))
    rows = tuning.tune(tmp_path, store, TINY, ["cav"], seed=0)
    assert [(row["model"], row["learning_rate"], row["scale"]) for row in rows] == [
        ("cav", 2e-3, 14.3),
        ("cav", 2e-3, 30.0),
    ]
    assert all(0 <= row[kind] <= 100 for row in rows for kind in ("own", "mean"))
    assert json.loads((tmp_path / "tuning.json").read_text()) == rows
    monkeypatch.setattr(folder, "train", None)
    assert tuning.tune(tmp_path, store, TINY, ["cav"], seed=0) == rows


def test_bad_counts_are_refused(tmp_path: Path) -> None:
    for options, message in (
        ({"seeds": 0}, "at least 1 seed"),
        ({"threads": 0}, "at least 1 thread"),
        ({"models": ()}, "one model"),
    ):
        with pytest.raises(ValueError, match=message):
            run_tiny(tmp_path, **options)
