"""The three commands, quickly, in one folder."""

import json

import pytest
import torch

from scav_model.cli import main
from scav_model.experiments.downstream import models
from scav_model.experiments.downstream.models import prepare
from scav_model.experiments.downstream.results import deviation, table

QUICK = ("--quick", "--systems=[scav_euclidean]", "--threads=1")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder that all three leave."""
    out = tmp_path_factory.mktemp("downstream") / "out"
    before = torch.get_num_threads()
    assert main(["probe", "classify", *QUICK, f"--out={out}"]) == 0
    assert (
        main(["probe", "fingerprint", *QUICK, f"--out={out}", "--transformations=[reencode,speed]", "--clips=4"]) == 0
    )
    assert main(["probe", "sync", *QUICK, f"--out={out}"]) == 0
    torch.set_num_threads(before)
    return out


@pytest.mark.slow
def test_rows_of_all_three_lie_together(out):
    rows = json.loads((out / "rows.json").read_text())
    assert {"task", "embedding", "tasks_trained", "seed", "accuracy"} <= set.intersection(*map(set, rows))
    assert {row["task"] for row in rows} == {"kinds", "first", "fingerprint reencode", "fingerprint speed", "sync"}
    kinds = [
        (row["model"], row["tasks_trained"], row["side"], row["classifier"], row["embedding"])
        for row in rows
        if row["task"] == "kinds"
    ]
    assert len(kinds) == len(set(kinds)) == 3 * 2 * 2 * 2
    assert {row["embedding"] for row in rows if row["task"] == "sync"} == {"change", "mean", "sequence"}
    for name in ("classify", "fingerprint", "sync"):
        assert "| without tasks | with tasks |" in (out / name / "table.md").read_text()


@pytest.mark.slow
def test_finished_models_and_rows_are_kept(out, monkeypatch, capsys):
    monkeypatch.setattr(models, "train_once", lambda path, *rest: json.loads(path.read_text()))
    command = ["probe", "sync", *QUICK, f"--out={out}"]
    before = (out / "sync" / "results.json").read_text()
    assert main([*command, "--resume"]) == 0
    assert (out / "sync" / "results.json").read_text() == before
    capsys.readouterr()
    assert main(command) == 1
    assert "holds an earlier run" in capsys.readouterr().err
    assert main([*command, "--resume", "--reach=1.5"]) == 1
    assert "reach: there 2.0, now 1.5" in capsys.readouterr().err


@pytest.mark.slow
def test_named_checkpoints_are_probed_by_a_manifest(out, capsys):
    runs = [out / "models" / f"scav_euclidean-{kind}-0" for kind in ("plain", "temporal")]
    found = prepare(
        out.parent / "named", checkpoints=runs, features=out / "features", manifest=out / "labels.jsonl", quick=True
    )
    assert [tuple(model.cell.values()) for model in found.models] == [
        ("interpolated_euclidean", False, 0),
        ("interpolated_euclidean", True, 0),
    ]
    with pytest.raises(ValueError, match="got two that are alike"):
        prepare(out.parent / "named", checkpoints=[runs[0]] * 2, features=out / "features", quick=True)
    with pytest.raises(ValueError, match="expected the features"):
        prepare(out.parent / "other", checkpoints=runs)


def test_table_has_deviations_over_seeds():
    rows = [
        {"task": "a", "model": "m", "tasks_trained": tasks, "embedding": "mean", "accuracy": value, "chance": 5.0}
        for tasks, value in ((False, 10.0), (False, 20.0), (True, 30.0))
    ]
    assert table(rows).splitlines()[2] == "| a | mean | m | 5.0 | 15.0 ± 7.1 | 30.0 |"
    assert deviation([]) == ""
