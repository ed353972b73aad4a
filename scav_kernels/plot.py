"""Plot the alignment of one pair; needs matplotlib (`pip install scav-kernels[plot]`).

Each function takes what its namesake in `scav_kernels` takes, one pair x (N, D) and y (M, D), and returns a matplotlib
figure: x from top to bottom on the left, y from left to right below, step against step in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scav_kernels.ops import dtw as _dtw
from scav_kernels.ops import sinkhorn as _sinkhorn
from scav_kernels.ops import soft_dtw as _soft_dtw
from scav_kernels.ops.costs import ground_cost

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["dtw_path", "sinkhorn_plan", "soft_dtw_alignment"]


def dtw_path(x: Tensor, y: Tensor, **options: Any) -> Figure:
    """The ground costs, and through them the path of ``scav_kernels.dtw_path`` with the same ``options``."""
    path = _dtw.dtw_path(x, y, **options)
    cost = options.get("cost", "euclidean")
    figure, axes = _frame(x, y, ground_cost(x, y, cost), f"{cost} cost", "DTW path")
    axes.plot(path[:, 1].numpy(), path[:, 0].numpy(), color="cyan", linewidth=1.5)
    return figure


def soft_dtw_alignment(x: Tensor, y: Tensor, **options: Any) -> Figure:
    """The expected alignment of ``scav_kernels.soft_dtw_alignment`` with the same ``options``."""
    alignment = _soft_dtw.soft_dtw_alignment(x, y, **options)
    return _frame(x, y, alignment, "probability of being on the path", "Soft-DTW alignment")[0]


def sinkhorn_plan(x: Tensor, y: Tensor, **options: Any) -> Figure:
    """The transport plan of ``scav_kernels.sinkhorn_plan`` with the same ``options``."""
    plan = _sinkhorn.sinkhorn_plan(x, y, **options)
    return _frame(x, y, plan, "mass moved, of 1", "Sinkhorn plan")[0]


def _frame(x: Tensor, y: Tensor, matrix: Tensor, label: str, title: str) -> tuple[Figure, Axes]:
    """The matrix (N, M) between strips of features, and its axes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "scav_kernels.plot: expected matplotlib to be installed, got none; pip install 'scav-kernels[plot]'"
        ) from error
    figure = Figure(figsize=(8, 7), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 5), height_ratios=(5, 1))
    axes = figure.add_subplot(grid[0, 1])
    image = axes.imshow(matrix.cpu().numpy(), aspect="auto", cmap="magma", interpolation="nearest")
    axes.set_title(title)
    axes.tick_params(labelbottom=False, labelleft=False)
    figure.colorbar(image, ax=axes, label=label)
    left, below = figure.add_subplot(grid[0, 0], sharey=axes), figure.add_subplot(grid[1, 1], sharex=axes)
    _strip(left, x)
    left.set(ylabel="step of x", xlabel="feature")
    _strip(below, y.mT)
    below.set(xlabel="step of y", ylabel="feature")
    return figure, axes


def _strip(axes: Axes, features: Tensor) -> None:
    axes.imshow(features.detach().to("cpu", torch.float32).numpy(), aspect="auto", interpolation="nearest")
