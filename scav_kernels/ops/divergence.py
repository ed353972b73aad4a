"""Divergences: a distance of x and y minus the mean of their distances from themselves."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from scav_kernels.ops.checks import WEIGHTS
from scav_kernels.ops.registry import METRICS, Metric


def debias(cross: Tensor, of_x: Tensor, of_y: Tensor, paired: bool) -> Tensor:
    """Return the divergences from d(x, y) (B1, B2), d(x, x) (B1,) and d(y, y) (B2,), or (B,) of pairs."""
    return cross - ((of_x if paired else of_x[:, None]) + of_y) / 2


def divergence(
    parent: str,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    combine: Callable[[Any, Any, Any, bool], Any] = debias,
    **options: Any,
) -> Any:
    """Return d(x, y) − (d(x, x) + d(y, y)) / 2 of the distance d named `parent`: all pairs, or `paired`.

    d(x, x) and d(y, y) are computed once per sequence, with the `x_weights` or the `y_weights` on both sides. Where d
    returns more than distances, `combine` takes the three terms.
    """
    try:
        return combine(*_terms(METRICS[parent], x, y, x_lengths, y_lengths, paired, options), paired)
    except (TypeError, ValueError, RuntimeError) as error:
        # The function that the caller called is the divergence.
        error.args = (re.sub(rf"\b{parent}\b", f"{parent}_divergence", str(error)), *error.args[1:])
        raise


def _within(side: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one side's distance from itself, in which that side's weights are those of both."""
    weights = dict.fromkeys(WEIGHTS, options.get(f"{side}_weights"))
    return {**options, **weights} if weights.keys() & options.keys() else options


def _terms(
    metric: Metric,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    paired: bool,
    options: dict[str, Any],
) -> tuple[Any, Any, Any]:
    """Return what `metric` returns of x and y, of x and x, and of y and y."""
    distance = metric.paired if paired else metric.all_pairs
    cross = distance(x, y, x_lengths, y_lengths, **options)
    of_x = metric.paired(x, x, x_lengths, x_lengths, **_within("x", options))
    of_y = metric.paired(y, y, y_lengths, y_lengths, **_within("y", options))
    return cross, of_x, of_y
