"""The tables of docs/tunes.md are those of the stored results, and the rates those of the stored tuning."""

import json
from pathlib import Path

import pytest

from scav_model.experiments.tunes.results import controls_table, table
from scav_model.experiments.tunes.run import CONDITIONS, MODELS
from scav_model.experiments.tunes.systems import SYSTEMS, TUNED
from scav_model.experiments.tunes.tuning import RATES, SCALES, tuning_table

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "tunes.md").read_text(encoding="utf-8")
LABELS = {name: system.label for name, system in SYSTEMS.items()}


def stored(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def test_results():
    rows = stored("tunes")
    asked = {(condition, model, seed) for condition in CONDITIONS for model in MODELS for seed in range(3)}
    assert {(row["condition"], row["model"], row["seed"]) for row in rows} == asked
    assert f"\n{table(rows, LABELS)}\n" in PAGE


def test_controls():
    assert f"\n{controls_table(stored('tunes-controls'), LABELS)}\n" in PAGE


def test_tuning():
    rows = stored("tunes-tuning")
    assert f"\n{tuning_table(rows)}\n" in PAGE
    assert len(rows) == len(MODELS) * len(RATES) * len(SCALES)


@pytest.mark.parametrize("model", MODELS)
def test_rates_are_the_best_of_the_tuning(model):
    """By own search, and where that ties, by the mean."""
    rows = [row for row in stored("tunes-tuning") if row["model"] == model]
    best = max(rows, key=lambda row: (row["own"], row["mean"]))
    assert TUNED[model] == (best["learning_rate"], best["scale"])
