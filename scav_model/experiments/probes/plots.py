"""Pictures of recall: against each disturbance's strength, resolution for each sequence length, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scav_model.experiments.probes.transforms import TRANSFORMATIONS
from scav_model.experiments.style import COLORS, MARKERS, draw_chance, frame_recall, legend_below, new_figure
from scav_model.experiments.tables import Row, mean_of_directions
from scav_model.storage.files import write_figure

# A metric keeps its color and marker in all plots.
METRICS = (
    "pooled_cosine",
    "interpolated_euclidean",
    "dtw",
    "soft_dtw",
    "sinkhorn",
    "soft_dtw_divergence",
    "sinkhorn_divergence",
)
# Directions of interpolation: one color, three kinds of line.
DASHES = {"x": "-", "y": "--", "shorter": ":"}
COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """R@1 in percent, by label and place on the axis."""

    title: str
    axis: str
    lines: Mapping[str, Mapping[float, float]]


def plot_temporal(rows: Sequence[Row], *, gallery: int, side: str, where: str, path: Path) -> None:
    """A panel per transformation, a line per metric."""
    lines: dict[str, dict[str, dict[float, float]]] = {}
    for (transformation, strength, metric), recall in mean_of_directions(
        rows, ("transformation", "strength", "metric")
    ).items():
        lines.setdefault(transformation, {}).setdefault(metric, {})[strength] = recall
    what = "features" if where == "features" else "encoded steps"
    title = f"Retrieval among {gallery} clips, the time of their {side} {what} disturbed"
    plot_disturbances(lines, gallery=gallery, title=title, legend="search by", path=path)


def plot_disturbances(
    lines: Mapping[str, Mapping[str, Mapping[float, float]]], *, gallery: int, title: str, legend: str, path: Path
) -> None:
    """A panel per transformation; `lines` hold R@1 by transformation, label and strength."""
    panels = [Panel(name, TRANSFORMATIONS[name].axis, found) for name, found in lines.items()]
    _draw(panels, min(COLUMNS, len(panels)), gallery, title, legend, path)


def plot_ablation(rows: Sequence[Row], *, gallery: int, coarsened: str, path: Path) -> None:
    """A row of panels per place of the change, a column per length, a line per distance."""
    lines: dict[tuple[str, float], dict[str, dict[float, float]]] = {}
    keys = ("where", "length", "factor", "distance")
    for (where, length, factor, distance), recall in mean_of_directions(rows, keys).items():
        lines.setdefault((where, length), {}).setdefault(distance, {})[factor] = recall
    sides = "both sides" if coarsened == "both" else coarsened
    panels = [
        Panel(
            f"{'features' if where == 'features' else 'encoded steps'}, "
            + ("whole clips" if length == 1 else f"first {100 * length:g} % of each clip"),
            f"steps merged into one, {sides}",
            found,
        )
        for (where, length), found in lines.items()
    ]
    factors = list(dict.fromkeys(row["factor"] for row in rows))
    title = f"Retrieval among {gallery} clips that are shorter and coarser than in training"
    columns = len(dict.fromkeys(length for _, length in lines))
    _draw(panels, columns, gallery, title, "search by", path, factors)


def plot_efficiency(rows: Sequence[Row], *, title: str, path: Path) -> None:
    """Plot recall of the true match, and of exact search's ten nearest, against time and share of pairs compared."""
    figure = new_figure(9.0, 6.4)
    grid = figure.subplots(2, 2, sharex="col", sharey=True)
    costs = {"ms": "ms a query", "share": "pairs compared, % of all"}
    recalls = {"R@1": "R@1, %", "found": "found of the exact ten nearest, %"}
    drawn = {row["way"] for row in rows}
    ways = [way for way in ("mean", "hybrid", "exact, pruned", "exact", "by bounds") if way in drawn]
    for line, (recall, name) in zip(grid, recalls.items(), strict=True):
        for axes, (cost, axis) in zip(line, costs.items(), strict=True):
            for direction, dash, face in (("v2a", "-", None), ("a2v", "--", "white")):
                for place, way in enumerate(ways):
                    found = [row for row in rows if (row["direction"], row["way"]) == (direction, way)]
                    label = f"{way}, {direction.replace('2', '→')}"
                    style = {"color": COLORS[place], "linestyle": dash, "label": label}
                    if found and found[0][cost] == 0:
                        # A logarithmic axis has no place for no pairs.
                        axes.axhline(found[0][recall], linewidth=1, **style)
                        if direction == "v2a":
                            note = {"fontsize": 8, "color": COLORS[place], "transform": axes.get_yaxis_transform()}
                            axes.text(0.98, found[0][recall] + 2, f"{way}: compares no pair", ha="right", **note)
                        continue
                    points = [[row[key] for row in found] for key in (cost, recall)]
                    axes.plot(*points, marker=MARKERS[place], markersize=5, markerfacecolor=face, **style)
            axes.set_xscale("log")
            frame_recall(axes)
            if recall == "found":
                axes.set_xlabel(axis)
            if cost == "ms":
                axes.set_ylabel(name)
    figure.suptitle(title)
    legend_below(figure, grid[0][0])
    write_figure(path, figure)


def _draw(
    panels: Sequence[Panel],
    columns: int,
    gallery: int,
    title: str,
    legend: str,
    path: Path,
    factors: Sequence[int] | None = None,
) -> None:
    """Panels row by row; with `factors`, their axis is logarithmic and marked there, else it is from 0 to 1."""
    height = -(-len(panels) // columns)
    figure = new_figure(max(6.0, 3.6 * columns), 3.1 * height + 1.1)
    grid = figure.subplots(height, columns, sharey=True, squeeze=False)
    labels = list(dict.fromkeys(label for panel in panels for label in panel.lines))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for place, (panel, axes) in enumerate(zip(panels, grid.flat, strict=False)):
        for label in labels:
            recall = panel.lines.get(label, {})
            axes.plot(list(recall), list(recall.values()), markersize=4, label=label, **_style(label, labels))
        draw_chance(axes, gallery)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.axis, fontsize=8)
        frame_recall(axes)
        if place % columns == 0:
            axes.set_ylabel("R@1 in %, mean of v→a, a→v")
        if factors is None:
            axes.set_xlim(-0.03, 1.03)
        else:
            axes.set_xscale("log", base=2)
            axes.set_xticks(factors, [str(factor) for factor in factors])
            axes.minorticks_off()
    figure.suptitle(title)
    legend_below(figure, grid.flat[0], legend)
    write_figure(path, figure)


def _style(label: str, labels: Sequence[str]) -> dict[str, str]:
    """Return color, marker and kind of line: a metric's own, with "(direction)" behind it or not, else by its place."""
    metric, _, direction = label.partition(" (")
    place = METRICS.index(metric) if metric in METRICS else labels.index(label)
    return {
        "color": COLORS[place % len(COLORS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES.get(direction.rstrip(")"), "-"),
    }
