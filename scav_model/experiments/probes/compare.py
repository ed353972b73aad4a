"""Several models in one picture: their finished temporal experiments, each searched by its own metric or all by one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scav_model.experiments.probes.plots import plot_disturbances
from scav_model.experiments.probes.results import load
from scav_model.experiments.probes.temporal import KEYS
from scav_model.experiments.tables import mean_of_directions
from scav_model.storage.files import writing

# What must be alike for recalls to be of one experiment.
SHARED = ("features", "gallery", "side", "where", "seed")


def run_compare(results: dict[str, Path], metric: str | None = None, out: Path = Path("runs/temporal.png")) -> None:
    """Draw R@1, mean of both directions, against strength: a line per label.

    Args:
        results: results.json of each model's `scav probe temporal`, by the label to show: --results.CAV FILE.
        metric: Distance to show all models by; null takes each model's own, as it was trained or is set to search.
        out: File of the picture (PNG).
    """
    if not results:
        raise ValueError("expected results of at least one experiment, got none")
    found = {label: load(file) for label, file in results.items()}
    first_label, first = next(iter(found.items()))
    lines: dict[str, dict[str, dict[float, float]]] = {}
    for label, experiment in found.items():
        settings = experiment["settings"]
        if "side" not in settings:
            raise ValueError(f"{results[label]} is not of scav probe temporal; name the results.json of one")
        differing = [
            f"{name}: {first['settings'][name]!r} and {settings[name]!r}"
            for name in SHARED
            if settings[name] != first["settings"][name]
        ]
        if differing:
            raise ValueError(
                f"{first_label} and {label} are of different experiments ({'; '.join(differing)}); "
                "run both on the same features, side, place and seed"
            )
        searched = metric or settings["own_metric"]
        for (transformation, strength, name), recall in sorted(
            _recalls(experiment).items(), key=lambda cell: cell[0][1]
        ):
            if name == searched:
                lines.setdefault(transformation, {}).setdefault(f"{label}, {name}", {})[strength] = recall
        if not any(f"{label}, {searched}" in panel for panel in lines.values()):
            raise ValueError(f"{results[label]} has no search by {searched}; repeat it with --resume and that metric")
    shared = first["settings"]
    what = "features" if shared["where"] == "features" else "encoded steps"
    title = f"Retrieval among {shared['gallery']} clips, the time of their {shared['side']} {what} disturbed"
    with writing(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
    plot_disturbances(lines, gallery=shared["gallery"], title=title, legend="model, searched by", path=out)
    print(f"{out} written")


def _recalls(experiment: Mapping[str, Any]) -> dict[tuple[Any, ...], float]:
    return mean_of_directions(experiment["rows"], KEYS)
