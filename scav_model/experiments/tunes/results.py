"""Rows of results, the table and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from scav_model.distances import Distance, Sequences
from scav_model.experiments.style import RECALL, bar_place, draw_chance, frame_recall, legend_below, new_figure, shades
from scav_model.experiments.tables import Row, markdown, mean_of_directions
from scav_model.retrieval import evaluate
from scav_model.retrieval.ranking import DIRECTIONS
from scav_model.storage.files import write_figure

SEARCHES = ("mean", "own", "dtw")
KEYS = ("condition", "model", "search", "direction", "seed")
MEASURES = ("R@1", "R@5", "R@10", "MedR", "gallery")
TITLES = {
    "async": "async: own tempo curves",
    "noise": "async with noise",
    "reordered": "async, reordered clips in the gallery",
    "sync": "in sync (control)",
}


def search_rows(video: Sequences, audio: Sequences, own: Distance) -> list[Row]:
    """Return the recalls of each search and direction: by means, by the model's own distance, and by DTW."""
    rows = []
    for search, distance in (("mean", own), ("own", own), ("dtw", Distance("dtw"))):
        mode = "mean" if search == "mean" else "sequence"
        for row in evaluate(video, audio, distance, modes=(mode,)):
            rows.append({"search": search, "direction": row["direction"], **{name: row[name] for name in MEASURES}})
    return rows


def table(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    """Return a Markdown table of R@1 for each condition, mean and standard deviation over seeds."""
    heads = ["condition", "model", *(f"{search} {direction}" for search in SEARCHES for direction in DIRECTIONS)]
    lines = []
    for condition, model in dict.fromkeys((row["condition"], row["model"]) for row in rows):
        same = [row for row in rows if (row["condition"], row["model"]) == (condition, model)]
        cells = [
            spread(row["R@1"] for row in same if (row["search"], row["direction"]) == (search, direction))
            for search in SEARCHES
            for direction in DIRECTIONS
        ]
        lines.append([condition, labels[model], *cells])
    galleries = {row["condition"]: row["gallery"] for row in rows}
    seeds = len({row["seed"] for row in rows})
    note = "; ".join(f"{name} {count} clips" for name, count in galleries.items())
    return f"{markdown(heads, lines, names=2)}\n\nR@1 in %, {seeds} seed{'s' * (seeds > 1)}. Galleries: {note}."


def spread(values: Iterable[float]) -> str:
    """Return mean and standard deviation in words."""
    found = [*values]
    return f"{mean(found):.1f}" + (f" ± {stdev(found):.1f}" if len(found) > 1 else "")


def controls_table(rows: Sequence[Row], labels: Mapping[str, str]) -> str:
    """Return a Markdown table of the controls beside what they must come to."""
    lines = [
        [row["control"], labels[row["model"]], row["search"], row["direction"], f"{row['R@1']:.1f}"] for row in rows
    ]
    for line, row in zip(lines, rows, strict=True):
        line.append(f"{row['expected']:.1f} ± {row['deviation']:.1f}")
    return markdown(["control", "model", "search", "direction", "R@1", "expected"], lines, names=4)


def plot(rows: Sequence[Row], labels: Mapping[str, str], path: Path) -> None:
    """Draw a panel for each condition with bars of R@1, the mean of both directions; whiskers show deviations."""
    conditions = [*dict.fromkeys(row["condition"] for row in rows)]
    models = [*dict.fromkeys(row["model"] for row in rows)]
    figure = new_figure(1.5 + 3.2 * len(conditions), 4.2)
    panels = figure.subplots(1, len(conditions), squeeze=False, sharey=True)[0]
    for axes, condition in zip(panels, conditions, strict=True):
        same = [row for row in rows if row["condition"] == condition]
        recall = mean_of_directions(same, ("model", "search", "seed"))
        seeds = sorted({row["seed"] for row in same})
        for bar, (search, color) in enumerate(zip(SEARCHES, shades(len(SEARCHES), last=0.8), strict=True)):
            places, width = bar_place(np.arange(len(models)), bar, len(SEARCHES))
            values = [
                [recall[model, search, seed] for seed in seeds if (model, search, seed) in recall] for model in models
            ]
            heights = [mean(found) for found in values]
            errors = [stdev(found) if len(found) > 1 else 0.0 for found in values]
            axes.bar(places, heights, width, yerr=errors if any(errors) else None, color=color, label=f"by {search}")
        draw_chance(axes, same[0]["gallery"])
        frame_recall(axes)
        axes.set_xticks(np.arange(len(models)), [labels[model].replace("-", "-\n") for model in models])
        axes.set_title(TITLES[condition], fontsize=10)
    panels[0].set_ylabel(RECALL)
    legend_below(figure, panels[0], title="searched")
    write_figure(path, figure)
