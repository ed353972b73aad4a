"""Divergences: a distance of x and y minus the mean of their distances from themselves."""

import re
from typing import Any

from torch import Tensor

from scav_kernels.ops.checks import WEIGHTS
from scav_kernels.ops.registry import METRICS, Metric


def divergence(
    parent: str,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    **options: Any,
) -> Tensor:
    """Return d(x, y) − (d(x, x) + d(y, y)) / 2 of the distance d named `parent`: all pairs, or `paired`.

    d(x, x) and d(y, y) are computed once per sequence, with the `x_weights` or the `y_weights` on both sides.
    """
    try:
        return _debiased(METRICS[parent], x, y, x_lengths, y_lengths, paired, options)
    except (TypeError, ValueError, RuntimeError) as error:
        # The function that the caller called is the divergence.
        error.args = (re.sub(rf"\b{parent}\b", f"{parent}_divergence", str(error)), *error.args[1:])
        raise


def _within(side: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one side's distance from itself, in which that side's weights are those of both."""
    weights = dict.fromkeys(WEIGHTS, options.get(f"{side}_weights"))
    return {**options, **weights} if weights.keys() & options.keys() else options


def _debiased(
    metric: Metric,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    paired: bool,
    options: dict[str, Any],
) -> Tensor:
    distance = metric.paired if paired else metric.all_pairs
    cross = distance(x, y, x_lengths, y_lengths, **options)
    of_x = metric.paired(x, x, x_lengths, x_lengths, **_within("x", options))
    of_y = metric.paired(y, y, y_lengths, y_lengths, **_within("y", options))
    return cross - ((of_x if paired else of_x[:, None]) + of_y) / 2
