import json

import pytest
import torch

from scav_model import search_methods as ways_to_search
from scav_model.cli import main
from scav_model.distances import Distance, Sequences
from scav_model.search_methods import Ways, share_found


def clips(count: int, steps: int, seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, steps + 1, (count,), generator=generator)
    return Sequences(torch.randn(count, steps, 4, generator=generator), lengths)


@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw", "soft_dtw"])
@pytest.mark.parametrize("many", [1, 9, 64])
def test_ways_find_what_a_loop_over_queries_finds(side, metric, many, monkeypatch):
    """DTW among ragged clips too, where dividing by a pair's steps changes the order."""
    monkeypatch.setattr(ways_to_search, "MANY", many)
    monkeypatch.setattr(ways_to_search, "FLOATS", 7 * 6 * 4)
    queries, items, distance = clips(7, 5, 0), clips(40, 6, 1), Distance(metric)
    matrix = distance.all_pairs(queries, items) if side == "video" else distance.all_pairs(items, queries).T
    ways = Ways(queries, items, side, distance)
    right = matrix.argsort(dim=1)[:, :10]
    assert torch.equal(ways.exact(10, "none").items, right)
    found = ways.exact(10, "auto")
    assert torch.equal(found.items, right)
    assert found.scored <= 7 * 40
    assert ways.has_bounds == (metric != "soft_dtw")
    assert torch.equal(ways.hybrid(40, 10).items, right)
    near = ways.mean(12).items
    hybrid = ways.hybrid(12, 10)
    assert hybrid.scored == 7 * 12
    for row, expected in enumerate(near):
        order = matrix[row, expected].argsort()[:10]
        assert hybrid.items[row].tolist() == expected[order].tolist()


def test_candidates_by_bounds():
    queries, items, distance = clips(7, 5, 0), clips(40, 6, 1), Distance("interpolated_euclidean")
    ways = Ways(queries, items, "audio", distance)
    assert ways.has_candidates
    exact = ways.exact(10, "none")
    every = ways.by_bounds(40, 10)
    assert torch.equal(every.items, exact.items)
    assert torch.equal(every.distances, exact.distances)
    assert ways.by_bounds(12, 10).scored <= 7 * 12
    assert not Ways(queries, items, "audio", Distance("dtw")).has_candidates


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
    assert "results.json exists; --overwrite starts anew" in capsys.readouterr().err
    assert main([*arguments, "--candidates=[5]", "--overwrite"]) == 1
    assert "candidates must be at least 10, as many as are to be found, got 5" in capsys.readouterr().err
