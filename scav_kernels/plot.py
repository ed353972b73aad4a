"""Plot the alignment of one pair; needs matplotlib (`pip install scav-kernels[plot]`).

Each function takes one pair, x (N, D) and y (M, D), and returns a matplotlib figure: x from top to bottom on the left,
y from left to right below, step against step in the middle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from torch import Tensor

from scav_kernels.distance import alignment as _alignment
from scav_kernels.ops.checks import check_pair
from scav_kernels.ops.costs import ground_cost
from scav_kernels.ops.registry import find_alignment, find_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from scav_kernels.metric_types import MetricName, MetricOptions

__all__ = ["alignment", "dtw_path", "sinkhorn_plan", "soft_dtw_alignment"]


def alignment(
    x: Tensor,
    y: Tensor,
    *,
    metric: MetricName = "dtw",
    x_rate: float | None = None,
    y_rate: float | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    **options: Unpack[MetricOptions],
) -> Figure | SubFigure:
    """Plot the alignment of one pair, as ``scav_kernels.alignment`` returns it; of "dtw", the path over the costs.

    Args:
        x: (N, D), one sequence.
        y: (M, D), one sequence.
        metric: the name of a distance that has an alignment.
        x_rate: steps of x per second, for an axis in seconds; None: an axis in steps.
        y_rate: the same of y.
        title: title of the plot; None: the name of the alignment.
        ax: matplotlib axes to draw in, without the features of x and y; None: a new figure.
        **options: that distance's keyword arguments; weights of steps are (N,) and (M,).

    Returns:
        The figure, which is that of ``ax`` if it is passed.
    """
    method = find_alignment(metric, options)
    check_pair(metric, x, y)
    rows, columns = _Axis.of("x", len(x), x_rate), _Axis.of("y", len(y), y_rate)
    of_one: dict[str, Any] = {
        name: value[None] if isinstance(value, Tensor) else value for name, value in options.items()
    }
    weights = _alignment(x[None], y[None], metric=metric, **of_one).weights[0].cpu()
    title = method.title if title is None else title
    if method.weight is not None:
        return _draw(x, y, weights, method.weight, title, rows, columns, ax).figure
    cost = options.get("cost", find_metric(metric, options).defaults()["cost"])
    axes = _draw(x, y, ground_cost(x, y, cost).cpu(), f"{cost} cost", title, rows, columns, ax)
    # The cells of a path that never goes back, in its order.
    s, t = weights.nonzero().unbind(1)
    axes.plot(columns.middles(t).numpy(), rows.middles(s).numpy(), color="cyan", linewidth=1.5)
    return axes.figure


def dtw_path(x: Tensor, y: Tensor, **options: Any) -> Figure | SubFigure:
    """Plot the ground costs, and through them the path of ``scav_kernels.dtw_path``; options as ``alignment``."""
    return alignment(x, y, metric="dtw", **options)


def soft_dtw_alignment(x: Tensor, y: Tensor, **options: Any) -> Figure | SubFigure:
    """Plot the expected alignment of ``scav_kernels.soft_dtw_alignment``; options as ``alignment``."""
    return alignment(x, y, metric="soft_dtw", **options)


def sinkhorn_plan(x: Tensor, y: Tensor, **options: Any) -> Figure | SubFigure:
    """Plot the transport plan of ``scav_kernels.sinkhorn_plan``; options as ``alignment``."""
    return alignment(x, y, metric="sinkhorn", **options)


class _Axis(NamedTuple):
    """The axis along a sequence, in steps, or in seconds where its rate is known."""

    name: str
    steps: int
    rate: float | None

    @classmethod
    def of(cls, name: str, steps: int, rate: float | None) -> _Axis:
        if rate is not None and not 0 < rate < math.inf:
            raise ValueError(f"plot: expected {name}_rate > 0 in steps per second, or None, got {rate}")
        return cls(name, steps, rate)

    @property
    def label(self) -> str:
        return f"step of {self.name}" if self.rate is None else f"{self.name} in seconds"

    @property
    def limits(self) -> tuple[float, float]:
        """The start of the first step and the end of the last."""
        return (-0.5, self.steps - 0.5) if self.rate is None else (0.0, self.steps / self.rate)

    def middles(self, steps: Tensor) -> Tensor:
        return steps if self.rate is None else (steps + 0.5) / self.rate


def _draw(
    x: Tensor, y: Tensor, matrix: Tensor, label: str, title: str, rows: _Axis, columns: _Axis, ax: Axes | None
) -> Axes:
    """Draw the matrix (N, M), in a new figure between strips of features, and return its axes."""
    if ax is not None:
        _draw_matrix(ax, matrix, label, title, rows, columns)
        ax.set(xlabel=columns.label, ylabel=rows.label)
        return ax
    figure = _new_figure()
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 5), height_ratios=(5, 1))
    axes = figure.add_subplot(grid[0, 1])
    _draw_matrix(axes, matrix, label, title, rows, columns)
    axes.tick_params(labelbottom=False, labelleft=False)
    left, below = figure.add_subplot(grid[0, 0], sharey=axes), figure.add_subplot(grid[1, 1], sharex=axes)
    first, last = -0.5, x.shape[1] - 0.5
    top, bottom = rows.limits
    _draw_strip(left, x, (first, last, bottom, top))
    left.set(ylabel=rows.label, xlabel="feature")
    _draw_strip(below, y.mT, (*columns.limits, last, first))
    below.set(xlabel=columns.label, ylabel="feature")
    return axes


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scav_kernels.plot: expected matplotlib to be installed, got none; pip install 'scav-kernels[plot]'"
        ) from error
    return Figure(figsize=(8, 7), layout="constrained")


def _draw_matrix(axes: Axes, matrix: Tensor, label: str, title: str, rows: _Axis, columns: _Axis) -> None:
    top, bottom = rows.limits
    extent = (*columns.limits, bottom, top)
    image = axes.imshow(matrix.numpy(), extent=extent, aspect="auto", cmap="magma", interpolation="nearest")
    axes.set_title(title)
    axes.figure.colorbar(image, ax=axes, label=label)


def _draw_strip(axes: Axes, features: Tensor, extent: tuple[float, float, float, float]) -> None:
    values = features.detach().to("cpu", torch.float32).numpy()
    axes.imshow(values, extent=extent, aspect="auto", interpolation="nearest")
