"""results.json, results.md and two plots; `document` has the report in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scav_model.experiments.reproduce.published import DATASETS, LABELS
from scav_model.experiments.style import RECALL, Figure, bar_place, new_figure, shades
from scav_model.experiments.tables import Row, markdown, write_json
from scav_model.storage.files import write_figure, write_text

HEADS = (
    *("", "search", "published R@1", "measured R@1"),
    *("v→a R@1", "R@5", "R@10", "MedR"),
    *("a→v R@1", "R@5", "R@10", "MedR"),
)


def write_report(out: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Write all files; `rows` are the results of every row, search and direction, as `search` gives them.

    Returns:
        The results of both directions of a search in one row.
    """
    searches = by_search(rows)
    write_json(out / "results.json", {**about, "rows": rows})
    write_figure(out / "results.png", plot_searches(searches, DATASETS[about["dataset"]]))
    write_figure(out / "hybrid.png", plot_hybrid(searches, DATASETS[about["dataset"]]))
    write_text(out / "results.md", page(about, searches))
    return searches


def by_search(rows: Sequence[Row]) -> list[Row]:
    """Return both directions of a search in one row: v2a and a2v hold its results, and "R@1" the mean of theirs."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = (row["row"], row["retrieval"], row["k"])
        shared = {name: row[name] for name in ("row", "retrieval", "k", "published R@1", "gallery", "train_seconds")}
        found.setdefault(key, shared)[row["direction"]] = row
    for search in found.values():
        search["R@1"] = (search["v2a"]["R@1"] + search["a2v"]["R@1"]) / 2
    return list(found.values())


def name_of(search: Row) -> str:
    return search["retrieval"] if search["k"] is None else f"{search['retrieval']} ({search['k']})"


def page(about: Mapping[str, Any], searches: Sequence[Row]) -> str:
    """Return the report as Markdown."""
    clips = about["clips"]
    counts = {split: clips[split]["training clips"] for split in clips}
    lines = [
        f"# {DATASETS[about['dataset']]}, reproduced",
        "",
        f"Trained on {counts['train']} clips (`train-ids.txt`), searched among {counts['test']} (`test-ids.txt`), seed "
        f"{about['seed']}, scav-kernels {about['version']}. Percent of queries; MedR is a rank.",
        "",
    ]
    if about["settings"]:
        lines += [f"**Not the paper's setting.** Changed in every row: `{json.dumps(about['settings'])}`.", ""]
    lines += [
        markdown(HEADS, map(cells, searches), names=len(HEADS)),
        "",
        "Measured R@1 is the mean of both directions. The published R@1 of SCAV stands beside interpolated Euclidean "
        "searched by sequence, that of CAV beside CAV searched by mean.",
        "",
        f"Training took {', '.join(training_times(searches))}.",
        "",
        "![R@1 by search](results.png)",
        "",
        "![R@1 of hybrid search by k](hybrid.png)",
        "",
    ]
    return "\n".join(lines)


def cells(search: Row) -> list[str]:
    """Return the table's line of a search, below `HEADS`."""
    value = search["published R@1"]
    line = [LABELS[search["row"]], name_of(search), "" if value is None else f"{value:.1f}", f"{search['R@1']:.1f}"]
    for direction in ("v2a", "a2v"):
        line += [f"{search[direction][name]:.1f}" for name in ("R@1", "R@5", "R@10", "MedR")]
    return line


def training_times(searches: Sequence[Row]) -> list[str]:
    seconds = {LABELS[search["row"]]: search["train_seconds"] for search in searches}
    return [f"{value / 60:.1f} min ({name})" for name, value in seconds.items()]


def plot_searches(searches: Sequence[Row], dataset: str) -> Figure:
    """Draw bars of measured R@1 by row and search, and a line where the paper has a number."""
    rows = list(dict.fromkeys(search["row"] for search in searches))
    ways = list(dict.fromkeys(name_of(search) for search in searches))
    figure = new_figure(9, 4.2)
    axes = figure.subplots()
    colors = shades(len(ways))
    labeled: set[str] = set()
    for search in searches:
        way = ways.index(name_of(search))
        place, width = bar_place(rows.index(search["row"]), way, len(ways))
        label = None if name_of(search) in labeled else name_of(search)
        labeled.add(name_of(search))
        bar = axes.bar(place, search["R@1"], width, color=colors[way], label=label)
        axes.bar_label(bar, fmt="%.1f", padding=2, fontsize=7)
        if search["published R@1"] is not None:
            label = None if "published" in labeled else "published"
            labeled.add("published")
            ends = (place - width / 2, place + width / 2)
            axes.hlines(search["published R@1"], *ends, color="crimson", linewidth=2.5, label=label or "_")
    axes.set_xticks(np.arange(len(rows)), [LABELS[row] for row in rows])
    axes.set_ylabel(RECALL)
    axes.set_title(f"{dataset}: {searches[0]['gallery']} clips searched")
    axes.legend(title="search by", frameon=False)
    return figure


def plot_hybrid(searches: Sequence[Row], dataset: str) -> Figure:
    """Draw R@1 of hybrid search against k, from search by mean (k = 1) to search by sequence (k = the gallery)."""
    figure = new_figure(6, 4.2)
    axes = figure.subplots()
    ends = {"mean": 1, "sequence": searches[0]["gallery"]}
    for row in dict.fromkeys(search["row"] for search in searches):
        points = sorted((s["k"] or ends[s["retrieval"]], s["R@1"]) for s in searches if s["row"] == row)
        axes.plot(*zip(*points, strict=True), marker="o", label=LABELS[row])
    axes.set_xscale("log")
    axes.set_xlabel("k, clips taken from the ranking by mean (1: by mean alone; all: by sequence)")
    axes.set_ylabel(RECALL)
    axes.set_title(f"{dataset}: hybrid search")
    axes.legend(frameon=False)
    return figure
