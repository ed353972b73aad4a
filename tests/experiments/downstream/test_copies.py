"""Training sets with copies, and what dictionaries hold of them."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from scav_model.cli import main
from scav_model.experiments.downstream.active import ActiveSettings, Cell, cells, training_set
from scav_model.experiments.downstream.results import deviation


@pytest.mark.parametrize("share", [0, 50, 80, 95])
def test_a_training_set_has_its_share_of_copies(train_features, share):
    cell = Cell(share, "random", False, seed=3)
    found = training_set(train_features, cell, clips=40, copied=5)
    counts = Counter(name.partition("#")[0] for name in found.ids)
    copies = 40 * share // 100
    assert len(found) == 40
    assert len(counts) == 40 - copies + min(5, copies)
    # Those that have copies are played equally often, up to one.
    often = sorted(counts.values())[-5:]
    assert sum(often) == (copies or 5)
    assert max(often) - min(often) <= 1
    place = next(place for place, name in enumerate(found.ids) if name.endswith("#0"))
    original = train_features.ids.index(found.ids[place].partition("#")[0])
    assert torch.equal(found.clip(place)[0], train_features.clip(original)[0])
    assert training_set(train_features, replace(cell, source="active"), 40, 5).ids == found.ids
    assert training_set(train_features, replace(cell, seed=4), 40, 5).ids != found.ids
    with pytest.raises(ValueError, match="distinct training clips"):
        training_set(train_features, Cell(0, "random", False, 0), clips=96, copied=5)


def test_cells_are_balanced_and_configs_differ_in_their_source():
    found = [*cells((0, 80), ("random", "active", "anew"), 2)]
    assert len(found) == len({cell.name for cell in found}) == 2 * (3 + 6)
    shared = ActiveSettings("scav_euclidean", 640, 16, 400, 32, 256, 4, 32, 1)
    configs = {cell.name: shared.config(cell) for cell in found}
    assert configs["80-anew-masked-1"].negatives.encode_anew
    assert configs["80-anew-masked-1"].negatives.copy_mark == "#"
    assert configs["80-active-plain-1"].negatives.copy_mark is None
    assert configs["0-random-plain-0"].negatives.source == "random"
    assert {config.optim.epochs for config in configs.values()} == {20}
    assert {config.negatives.momentum for config in configs.values()} == {0.99}


def test_the_command_measures_and_goes_on(tmp_path, train_features, eval_features, capsys):
    train_features.save(tmp_path / "features" / "train.safetensors")
    eval_features.save(tmp_path / "features" / "test.safetensors")
    command = ["probe", "active", f"--features={tmp_path}/features", f"--out={tmp_path}/out", "--seeds=1", "--clips=64"]
    command += ["--shares=[50]", "--steps=3", "--size=8", "--pool=16", "--copied=4", "--dim=16", "--threads=1"]
    before = torch.get_num_threads()
    assert main(command) == 0
    rows = json.loads((tmp_path / "out" / "active.json").read_text())
    assert {"repeats", "source", "masked", "seed", "R@1", "diversity"} <= set(rows[0])
    assert len(rows) == 2 * 3
    assert all(0 < row["diversity"] <= 100 and row["copies"] <= 100 for row in rows)
    assert all(row["pool_copies"] == pytest.approx(50, abs=20) for row in rows)
    results = list((tmp_path / "out" / "models").glob("*/result.json"))
    assert len(results) == 6
    results[0].unlink()
    assert main([*command, "--resume"]) == 0
    assert json.loads((tmp_path / "out" / "active.json").read_text()) == rows
    assert main(command) == 1
    assert "holds an earlier run" in capsys.readouterr().err
    assert main([*command, "--resume", "--dim=32"]) == 1
    torch.set_num_threads(before)


def test_deviation():
    assert deviation([1.0, 3.0]) == "2.0 ± 1.4"
    assert deviation([2.0]) == "2.0"
