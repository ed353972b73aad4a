"""Soft-DTW of costs that the caller brings."""

from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    as_batch,
    check_options,
    check_tensors,
    new_result_of_costs,
    refuse_missing_cuda,
    register_fake,
)

torch.library.define(
    "scav::soft_dtw_from_cost",
    "(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, float gamma, int? band) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::soft_dtw_from_cost_backward",
    "(Tensor grad, Tensor cost, Tensor? x_lengths, Tensor? y_lengths, float gamma, int? band) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def soft_dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    band: int | None = None,
) -> Tensor:
    """Soft-DTW of given costs: cost (B1, B2, N, M) -> (B1, B2), or one pair's (N, M) -> ().

    As ``soft_dtw``, whose recursion this is, with cost[i, j, s, t] between step s of x[i] and step t of y[j]. The
    gradient in the costs is the expected alignment, as ``soft_dtw_alignment`` shows it.

    Args:
        cost: (B1, B2, N, M) or (N, M), float32, float64, bfloat16 or float16; inf forbids a cell.
        x_lengths: (B1,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes
            nothing.
        y_lengths: (B2,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit; DTW as gamma → 0.
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        forbidden cells leave no path.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithms 1, 2.
    """
    check_tensors("soft_dtw_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("soft_dtw_from_cost", gamma=gamma, band=band)
    out = torch.ops.scav.soft_dtw_from_cost(as_batch(cost), x_lengths, y_lengths, gamma, band)
    return out.reshape(()) if cost.dim() == 2 else out


@register_fake("scav::soft_dtw_from_cost")
def _fake(cost: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, gamma: float, band: int | None) -> Tensor:
    return new_result_of_costs(cost)


@register_fake("scav::soft_dtw_from_cost_backward")
def _fake_backward(
    grad: Tensor,
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    band: int | None,
) -> Tensor:
    return cost.new_empty(cost.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, gamma, band = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = gamma, band


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    d_cost = torch.ops.scav.soft_dtw_from_cost_backward(grad, *ctx.saved_tensors, *ctx.options)
    return d_cost, None, None, None, None


register_autograd("scav::soft_dtw_from_cost", _backward, setup_context=_setup_context)
refuse_double_backward("scav::soft_dtw_from_cost_backward")
register_batching("scav::soft_dtw_from_cost", "scav::soft_dtw_from_cost_backward")
refuse_missing_cuda("scav::soft_dtw_from_cost", "scav::soft_dtw_from_cost_backward")
