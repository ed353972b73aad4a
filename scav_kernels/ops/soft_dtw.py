"""Soft-DTW: dynamic time warping with a smooth minimum."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    check_options,
    check_pair,
    check_tensors,
    ground_cost,
    new_gradients,
    new_result,
    promote_under_autocast,
    refuse_missing_cuda,
    register_fake,
)
from scav_kernels.ops.registry import METRICS, Metric

torch.library.define(
    "scav::soft_dtw",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, float gamma, str cost, int? band, bool paired) "
    "-> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::soft_dtw_backward",
    "(Tensor grad, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, float gamma, str cost, int? band, "
    "bool paired, bool need_x, bool need_y) -> (Tensor dx, Tensor dy)",
    tags=torch.Tag.pt2_compliant_tag,
)


def soft_dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
) -> Tensor:
    """Soft-DTW, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m), 0 ≤ s < n, 0 ≤ t < m,

        r[s, t] = c[s, t] + softmin(r[s−1, t−1], r[s−1, t], r[s, t−1]),   r[0, 0] = c[0, 0],
        softmin(a) = −gamma log Σ exp(−a / gamma),

    and the distance is r[n−1, m−1]; it can be negative. The gradient in c is the expected alignment.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit; DTW as gamma → 0.
        cost: "sqeuclidean" ‖x_s − y_t‖₂², "euclidean" its root, or "cosine" 1 − cos(x_s, y_t). The default of
            ``dtw`` and ``sinkhorn`` is "euclidean".
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithms 1, 2.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, gamma=gamma, cost=cost, band=band)


def soft_dtw_alignment(
    x: Tensor, y: Tensor, *, gamma: float = 1.0, cost: str = "sqeuclidean", band: int | None = None
) -> Tensor:
    """The expected alignment of one pair, to look at: x (N, D), y (M, D) -> E (N, M), 0 ≤ E ≤ 1.

    E[s, t] is the probability that cell (s, t) is on a path, where a path of cost c has probability ∝ exp(−c / gamma),
    and the derivative of ``soft_dtw`` in the cost of that cell. Options are as there; no gradient flows through E.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithm 2.
    """
    check_pair("soft_dtw_alignment", x, y)
    check_options("soft_dtw_alignment", gamma=gamma, cost=cost, band=band)
    costs = ground_cost(x, y, cost)[None, None]
    one = costs.new_ones(1, 1)
    return torch.ops.scav.soft_dtw_from_cost_backward(one, costs, None, None, gamma, band)[0, 0]


def _distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
) -> Tensor:
    check_tensors("soft_dtw", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("soft_dtw", gamma=gamma, cost=cost, band=band)
    return torch.ops.scav.soft_dtw(x, y, x_lengths, y_lengths, gamma, cost, band, paired)


METRICS["soft_dtw"] = Metric(soft_dtw, partial(_distance, paired=True), sums_along_path=True)


@register_fake("scav::soft_dtw")
def _fake(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    cost: str,
    band: int | None,
    paired: bool,
) -> Tensor:
    return new_result(x, y, paired)


@register_fake("scav::soft_dtw_backward")
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    cost: str,
    band: int | None,
    paired: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    return new_gradients(x, y, need_x, need_y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, gamma, cost, band, paired = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = gamma, cost, band, paired


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_x, need_y, *_ = ctx.needs_input_grad
    dx, dy = torch.ops.scav.soft_dtw_backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
    return dx if need_x else None, dy if need_y else None, None, None, None, None, None, None


register_autograd("scav::soft_dtw", _backward, setup_context=_setup_context)
promote_under_autocast("scav::soft_dtw")
refuse_double_backward("scav::soft_dtw_backward")
register_batching("scav::soft_dtw", "scav::soft_dtw_backward")
refuse_missing_cuda("scav::soft_dtw", "scav::soft_dtw_backward")
