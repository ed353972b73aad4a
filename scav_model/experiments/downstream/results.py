"""Rows of downstream experiments: one table for each, and all of a folder together in downstream.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from scav_model.experiments.downstream.models import Comparison
from scav_model.experiments.probes.results import RESULTS, load
from scav_model.experiments.tables import Row, markdown, write_json
from scav_model.storage.files import write_text

ALL = "rows.json"
# What tells the cells of a table apart; models of other seeds share a cell.
GROUP = ("task", "side", "classifier", "embedding", "model", "tasks_trained")


def write_rows(comparison: Comparison, folder: Path, rows: Sequence[Row], note: str) -> None:
    """Write table.md of these rows in `folder`, and the rows of all experiments of the comparison together."""
    write_text(folder / "table.md", f"{note}\n\n{table(rows)}\n")
    found = [
        {name: value for name, value in row.items() if not isinstance(value, list)}
        for path in sorted(comparison.out.glob(f"*/{RESULTS}"))
        for row in load(path)["rows"]
    ]
    write_json(comparison.out / ALL, found)


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table: mean accuracy and its deviation over seeds, in percent, without and with the tasks."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    chances: dict[tuple[Any, ...], float] = {}
    for row in rows:
        key = tuple(row.get(name) for name in GROUP)
        groups.setdefault(key, []).append(row["accuracy"])
        chances[key[:-1]] = row["chance"]
    lines = []
    for key in dict.fromkeys(key[:-1] for key in groups):
        # Raw features have no training and stand in the first column.
        plain = groups.get((*key, False)) or groups.get((*key, None), [])
        names = [str(part) for part in key if part is not None]
        lines.append([*names, f"{chances[key]:.1f}", deviation(plain), deviation(groups.get((*key, True), []))])
    shown = [name for place, name in enumerate(GROUP[:-1]) if any(key[place] is not None for key in groups)]
    return markdown([*shown, "chance", "without tasks", "with tasks"], lines, names=len(shown))


def deviation(values: Sequence[float]) -> str:
    """Return mean ± standard deviation over seeds, the mean alone of one seed."""
    if not values:
        return ""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")
