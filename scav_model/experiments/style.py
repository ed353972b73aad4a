"""The look of all plots."""

from __future__ import annotations

from typing import Any

from scav_model.extras import needed_by

with needed_by("plotting"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLORS",
    "MARKERS",
    "RECALL",
    "Figure",
    "bar_place",
    "draw_chance",
    "frame_recall",
    "legend_below",
    "new_figure",
    "shades",
]

# The palette of Okabe and Ito, which readers with any color vision can tell apart, and markers, for print.
COLORS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
MARKERS = "os^DvPX*"
RECALL = "R@1 in %, mean of v→a and a→v"


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in inches, whose parts do not overlap."""
    return Figure(figsize=(width, height), layout="constrained")


def shades(count: int, last: float = 0.85) -> list[Any]:
    """Return `count` colors in order, from dark to light; `last` is the place of the lightest on matplotlib's scale."""
    step = (last - 0.15) / max(1, count - 1)
    return [matplotlib.colormaps["viridis"](0.15 + place * step) for place in range(count)]


def bar_place(group: Any, bar: int, bars: int) -> tuple[Any, float]:
    """Return the place and the width of bar number `bar` of `bars` in a group, or in an array of groups."""
    width = 0.8 / bars
    return group + (bar - (bars - 1) / 2) * width, width


def draw_chance(axes: Axes, gallery: int) -> None:
    """Draw R@1 of a search that picks one of the gallery's clips at random."""
    axes.axhline(100 / gallery, color="black", linestyle=":", linewidth=1, label="chance")


def frame_recall(axes: Axes) -> None:
    """Show recalls from 0 to 100 %, over a grid."""
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.25)


def legend_below(figure: Figure, source: Axes, title: str | None = None) -> None:
    """Name the lines of `source` below all panels."""
    handles, names = source.get_legend_handles_labels()
    figure.legend(handles, names, title=title, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
