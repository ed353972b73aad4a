"""The tables of docs/probe.md are those of the stored results."""

import json
from pathlib import Path
from statistics import mean, stdev

from scav_model.experiments.downstream.active import table as active_table
from scav_model.experiments.downstream.results import table as downstream_table

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "probe.md").read_text(encoding="utf-8")


def stored(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_active():
    assert f"\n{active_table(stored('active'))}\n" in PAGE


def test_active_minus_random():
    recalls = {}
    for row in stored("active"):
        recalls.setdefault((row["repeats"], row["masked"]), {}).setdefault(row["source"], {})[row["seed"]] = row["R@1"]
    for (repeats, masked), sources in recalls.items():
        cells = []
        for source in ("active", "anew"):
            points = [recall - sources["random"][seed] for seed, recall in sources[source].items()]
            cells.append(f"{mean(points):+.1f} ± {stdev(points):.1f}".replace("-", "\N{MINUS SIGN}"))
        assert f"\n| {repeats} | {'yes' if masked else 'no'} | {cells[0]} | {cells[1]} |\n" in PAGE


def test_downstream():
    rows = {}
    for row in stored("downstream"):
        probe = row["task"].partition(" ")[0]
        rows.setdefault("classify" if probe in ("kinds", "first") else probe, []).append(row)
    assert "classify" in rows
    for found in rows.values():
        assert f"\n{downstream_table(found)}\n" in PAGE
