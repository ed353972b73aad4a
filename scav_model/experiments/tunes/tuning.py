"""Learning rates and first scales, chosen on tunes that no result is of.

Below `out`, besides what the experiment keeps there:

    tuning/<model>-<rate>-<scale>/    checkpoint.pt, recall.json
    tuning.json                       R@1 among the validation tunes by model, rate and scale
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from scav_model.data import FeatureStore
from scav_model.distances import retrieval_distance
from scav_model.experiments.demo.systems import System
from scav_model.experiments.folder import train_once
from scav_model.experiments.tables import Row, markdown, write_json
from scav_model.experiments.tunes.dataset import TunesSize
from scav_model.experiments.tunes.results import search_rows
from scav_model.experiments.tunes.systems import SYSTEMS, training_config
from scav_model.retrieval import encode
from scav_model.training import TrainResult

RATES = (1e-3, 2e-3, 4e-3, 8e-3)
# CLIP's 14.3, and the demo's of CAV. Each model tries both.
SCALES = (14.3, 30.0)


def candidates(models: Iterable[str]) -> Iterator[System]:
    """Yield each model with every learning rate and scale."""
    for model in models:
        for rate in RATES:
            for scale in SCALES:
                system = SYSTEMS[model]
                yield replace(system, learning_rate=rate, loss=replace(system.loss, scale=scale))


def tune(out: Path, store: FeatureStore, size: TunesSize, models: Sequence[str], seed: int) -> list[Row]:
    """Train every candidate and search among the validation tunes, unless that is done; write and return tuning.json.

    A row has `model`, `learning_rate`, `scale`, `gallery`, and R@1 in percent, the mean of both directions, by the
    model's own search (`own`) and by means (`mean`).
    """
    training, held_out = store.select("train"), store.select("validation")
    rows: list[Row] = []
    for system in candidates(models):
        name = f"{system.name}-{system.learning_rate:g}-{system.loss.scale:g}"
        config = training_config(system, size, len(training), seed)

        def search(trained: TrainResult) -> list[Row]:
            return search_rows(*encode(trained.model, held_out), retrieval_distance(trained.config))

        def announce(name: str = name) -> None:
            print(f"tuning, {name}: training", flush=True)

        found = train_once(out / "tuning" / name / "recall.json", config, training, search, announce) or []
        recall = {kind: mean(row["R@1"] for row in found if row["search"] == kind) for kind in ("own", "mean")}
        rows.append(
            {"model": system.name, "learning_rate": system.learning_rate, "scale": system.loss.scale}
            | {"gallery": len(held_out), **recall}
        )
        write_json(out / "tuning.json", rows)
    return rows


def tuning_table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of the candidates."""
    lines = []
    for row in rows:
        numbers = [f"{row['learning_rate']:g}", *(f"{row[name]:.1f}" for name in ("scale", "own", "mean"))]
        lines.append([SYSTEMS[row["model"]].label, *numbers])
    return markdown(["model", "learning rate", "first scale", "R@1 by own search", "by mean"], lines, names=1)
