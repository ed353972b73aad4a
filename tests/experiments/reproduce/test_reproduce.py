"""`scav reproduce` at the smallest size."""

import json

import pytest
import torch
import yaml

from scav_model.cli import main
from scav_model.data.ids import ids_sha256
from scav_model.experiments.reproduce import run as reproduce_run
from scav_model.experiments.reproduce.published import LABELS, published
from scav_model.storage.files import file_sha256

SETTINGS = {
    "tensorboard": False,
    "model": {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4},
    "optim": {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3},
}


@pytest.fixture
def command(train_features, eval_features, tmp_path):
    """Arguments of the command, on a folder of two splits."""
    train_features.save(tmp_path / "features" / "train.safetensors")
    eval_features.save(tmp_path / "features" / "test.safetensors")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SETTINGS))
    return [
        "reproduce", "vggsound", f"--features={tmp_path / 'features'}", f"--settings={tmp_path / 'small.yaml'}",
        f"--out={tmp_path / 'out'}", "--hybrid_k=[2,5,1000]",
    ]  # fmt: skip


def test_the_table_has_every_row_and_search_beside_what_was_published(
    command, train_features, eval_features, tmp_path, capsys
):
    assert main(command) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    searches = [("mean", None), ("sequence", None), ("hybrid", 2), ("hybrid", 5)]
    assert [(row["row"], row["retrieval"], row["k"], row["direction"]) for row in results["rows"]] == [
        (row, *search, direction) for row in LABELS for search in searches for direction in ("v2a", "a2v")
    ]
    assert {
        (row["row"], row["retrieval"]): row["published R@1"] for row in results["rows"] if row["published R@1"]
    } == {
        ("cav", "mean"): 12.2,
        ("scav_euclidean", "sequence"): 22.6,
    }
    lines = (out / "results.md").read_text().splitlines()
    cells = next(line for line in lines if line.startswith("| SCAV, interpolated Euclidean | sequence")).split("|")
    both = [row for row in results["rows"] if (row["row"], row["retrieval"]) == ("scav_euclidean", "sequence")]
    mean = sum(row["R@1"] for row in both) / 2
    assert [cell.strip() for cell in cells[3:6]] == ["22.6", f"{mean:.1f}", f"{both[0]['R@1']:.1f}"]
    assert sum(line.startswith(("| CAV", "| SCAV")) for line in lines) == 16
    assert any(line.startswith("**Not the paper's setting.**") for line in lines)
    assert (out / "train-ids.txt").read_text().split() == train_features.ids
    assert (out / "test-ids.txt").read_text().split() == eval_features.ids
    for picture in ("results.png", "hybrid.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert (out / "scav_dtw" / "checkpoint.pt").exists()
    report = (out / "report.html").read_text()
    for part in (
        ids_sha256(train_features.ids),
        file_sha256(out / "scav_dtw" / "checkpoint.pt"),
        "<td>model.heads</td><td>2</td><td>2</td><td>2</td><td>2</td><td>yes</td>",
        f"<td>torch</td><td>{torch.__version__}</td>",
        f"<td>22.6</td><td>{mean:.1f}</td>",
        "Not the paper's setting",
        "--rows [cav,scav_euclidean,scav_dtw,scav_wasserstein] --hybrid_k [2,5,1000] --seed 0 --settings FILE",
    ):
        assert part in report
    # One file: both plots are in it, and it needs no other.
    assert report.count('src="data:image/png;base64,') == report.count("src=") == 2
    assert capsys.readouterr().out.count("# VGGSound, reproduced") == 1


def test_a_run_goes_on_where_it_stopped(command, tmp_path, monkeypatch, capsys):
    one_row = [*command, "--rows=[cav,scav_euclidean]"]
    search = reproduce_run.search
    trained = []

    def interrupted(result, *arguments):
        trained.append(result.config.loss.metric)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return search(result, *arguments)

    monkeypatch.setattr(reproduce_run, "search", interrupted)
    assert main(one_row) == 130
    assert "--resume keeps what is finished" in capsys.readouterr().err
    assert main(one_row) == 1
    assert "holds an earlier run; resume it" in capsys.readouterr().err
    before = (tmp_path / "out" / "cav" / "rows.json").stat().st_mtime_ns
    assert main([*one_row, "--resume"]) == 0
    assert trained == ["pooled_cosine", "interpolated_euclidean", "interpolated_euclidean"]
    assert (tmp_path / "out" / "cav" / "rows.json").stat().st_mtime_ns == before
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["rows"]) == 16
    capsys.readouterr()

    assert main([*one_row, "--resume", "--seed=1"]) == 1
    assert "holds a run with other settings (seed: there 0, now 1)" in capsys.readouterr().err
    (tmp_path / "out" / "reproduce.json").unlink()
    assert main([*one_row, "--resume"]) == 1
    assert "holds something else: it has no reproduce.json; choose another folder" in capsys.readouterr().err


def test_what_cannot_be_reproduced_is_refused_before_training(command, tmp_path, capsys):
    for wrong, message in (
        ("--hybrid_k=[0]", "expected hybrid_k to be at least 1, got 0"),
        ("--rows=[]", "expected rows among cav, scav_euclidean"),
        (f"--features={tmp_path}", "extract the features first"),
    ):
        assert main([*command, wrong]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_published_numbers_are_the_papers():
    found = {(data, row): published(data, row, way) for data in ("vggsound", "music") for row, way in
             (("cav", "mean"), ("scav_euclidean", "sequence"))}  # fmt: skip
    assert found == {
        ("vggsound", "cav"): 12.2,
        ("vggsound", "scav_euclidean"): 22.6,
        ("music", "cav"): 3.8,
        ("music", "scav_euclidean"): 9.3,
    }
    assert published("music", "cav", "sequence") is None
