import json

import pytest
import torch

from scav_model.cli import main
from scav_model.experiments.probes.efficiency import share_found


def test_share_found_by_hand():
    right = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    assert share_found(torch.tensor([[3, 9, 1, 8], [4, 5, 6, 7]]), right) == 75


def test_the_command_writes_curve_table_and_samples(files, tmp_path, capsys):
    arguments = ["probe", "efficiency", f"--checkpoint={files[0]}", f"--features={files[1]}", f"--out={tmp_path}/out"]
    options = ["--candidates=[10,500]", "--repeats=2", "--queries=8"]
    assert main([*arguments, *options]) == 0
    table = (tmp_path / "out" / "table.md").read_text()
    assert capsys.readouterr().out.startswith(table)
    assert "dtw, 8 queries, 24 clips" in table
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = {(row["direction"], row["way"], row["candidates"]): row for row in results["rows"]}
    ways = [("mean", None), ("hybrid", 10), ("hybrid", 24), ("exact, pruned", None), ("exact", None)]
    assert list(rows) == [(direction, *way) for direction in ("v2a", "a2v") for way in ways]
    for (_, way, count), row in rows.items():
        assert len(row["samples_seconds"]) == 2
        assert row["ms"] == pytest.approx(1e3 * sum(row["samples_seconds"]) / 2 / 8)
        assert row["scored"] == {"mean": 0, "exact": 8 * 24, "hybrid": 8 * (count or 0)}.get(way, row["scored"])
        if way.startswith("exact") or count == 24:
            assert row["found"] == 100
    assert results["settings"]["machine"]["threads"] == 1
    assert (tmp_path / "out" / "curve.png").stat().st_size > 10_000
    assert main([*arguments, *options]) == 1
    assert "results.json holds an earlier run; overwrite it, or choose another folder" in capsys.readouterr().err
    assert main([*arguments, "--candidates=[5]", "--overwrite"]) == 1
    assert "candidates must be at least 10, as many as are to be found, got 5" in capsys.readouterr().err
