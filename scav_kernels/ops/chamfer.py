"""Chamfer distance: each step is compared with the nearest step of the other sequence, as in late interaction."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.checks import check_options, check_tensors, declare_options
from scav_kernels.ops.define import GRADIENTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.fakes import Arguments, steps_of_x, steps_of_y
from scav_kernels.ops.registry import METRICS, Metric


def _fake_nearest(distances: Tensor, given: Arguments) -> tuple[Tensor]:
    """Return `nearest` (B1, B2, N), (B1, B2, M) or (B1, B2, N + M) int32, by direction; empty unless save_nearest.

    It holds the nearest step t of y for each valid step s of x, then the nearest s for each t; 0 fills the rest.
    """
    of_x = steps_of_x(given) if given["direction"] != "y" else 0
    of_y = steps_of_y(given) if given["direction"] != "x" else 0
    shape = (*distances.shape, of_x + of_y) if given["save_nearest"] else (0,)
    return (distances.new_empty(shape, dtype=torch.int32),)


define_op(
    "chamfer",
    f"({SEQUENCES}, str cost, str direction, bool paired, bool save_nearest) -> (Tensor out, Tensor nearest)",
    f"(Tensor grad, {SEQUENCES}, Tensor nearest, str cost, str direction, bool paired, {NEEDS}) -> {GRADIENTS}",
    _fake_nearest,
)
refuse_missing_cuda("chamfer")


@declare_options
def chamfer(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    cost: str = "euclidean",
    direction: str = "x",
) -> Tensor:
    """Chamfer distance (late interaction), all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m), the distance is, in the cost's unit,

        (1/n) Σ_s min_t c[s, t] for ``direction="x"``, (1/m) Σ_t min_s c[s, t] for "y", their mean for "both".

    With ``cost="cosine"`` and ``direction="x"`` it is 1 − MaxSim / n of unit steps, the score of ColBERT with the
    query as x. The order of steps does not matter. The gradient is that of the chosen cells; of equal costs, the step
    with the lowest index is chosen.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).
        direction: "x" (each step of x looks for the nearest step of y), "y" (each step of y for that of x), or "both".

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Khattab & Zaharia, "ColBERT", SIGIR 2020, for the late interaction of one direction.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, cost=cost, direction=direction)


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("chamfer", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    cost, direction = check_options("chamfer", **options)
    distances, _ = torch.ops.scav.chamfer(x, y, x_lengths, y_lengths, cost, direction, paired, False)
    return distances


def _is_symmetric(lengths: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return True if the steps of both sequences look for their nearest."""
    return options.get("direction") == "both"


METRICS["chamfer"] = Metric(chamfer, partial(_distance, paired=True), is_symmetric=_is_symmetric)
