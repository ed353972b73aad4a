"""Dynamic time warping of costs that the caller brings."""

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

# `path` as in scav::dtw.
torch.library.define(
    "scav::dtw_from_cost",
    "(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, int? band, bool save_path) -> (Tensor out, Tensor path)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::dtw_from_cost_backward",
    "(Tensor grad, Tensor cost, Tensor? x_lengths, Tensor? y_lengths, Tensor out, Tensor path) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def dtw_from_cost(
    cost: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None, *, band: int | None = None
) -> Tensor:
    """Dynamic time warping of given costs: cost (B1, B2, N, M) -> (B1, B2), or one pair's (N, M) -> ().

    As ``dtw``, whose recursion, ties and gradient these are, with cost[i, j, s, t] between step s of x[i] and step t of
    y[j]. The gradient is that of the costs: 1 on one optimal path, 0 elsewhere.

    Args:
        cost: (B1, B2, N, M) or (N, M), float32, float64, bfloat16 or float16; inf forbids a cell.
        x_lengths: (B1,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes
            nothing.
        y_lengths: (B2,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ M; None: all.
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        forbidden cells leave no path.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    check_tensors("dtw_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("dtw_from_cost", band=band)
    out, _ = torch.ops.scav.dtw_from_cost(as_batch(cost), x_lengths, y_lengths, band, False)
    return out.reshape(()) if cost.dim() == 2 else out


@register_fake("scav::dtw_from_cost")
def _fake(
    cost: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, band: int | None, save_path: bool
) -> tuple[Tensor, Tensor]:
    out = new_result_of_costs(cost)
    path = cost.new_empty((*out.shape, cost.shape[2] + cost.shape[3]) if save_path else (0,), dtype=torch.uint8)
    return out, path


@register_fake("scav::dtw_from_cost_backward")
def _fake_backward(
    grad: Tensor, cost: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, out: Tensor, path: Tensor
) -> Tensor:
    return cost.new_empty(cost.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _band, _save_path = inputs
    out, path = output
    ctx.mark_non_differentiable(path)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, out, path)


def _backward(ctx: Any, grad: Tensor | None, _path: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 5
    return torch.ops.scav.dtw_from_cost_backward(grad, *ctx.saved_tensors), None, None, None, None


register_autograd("scav::dtw_from_cost", _backward, setup_context=_setup_context)
refuse_double_backward("scav::dtw_from_cost_backward")
register_batching("scav::dtw_from_cost", "scav::dtw_from_cost_backward")
refuse_missing_cuda("scav::dtw_from_cost", "scav::dtw_from_cost_backward")
