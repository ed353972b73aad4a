"""Entropic optimal transport of costs that the caller brings."""

from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.common import (
    as_batch,
    check_options,
    check_tensors,
    new_result_of_costs,
    refuse_double_backward,
    refuse_missing_cuda,
    register_fake,
    wants_grad,
)

# `f` as in scav::sinkhorn.
torch.library.define(
    "scav::sinkhorn_from_cost",
    "(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, float epsilon, int max_iterations, float tolerance, "
    "bool save_potentials) -> (Tensor out, Tensor f)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::sinkhorn_from_cost_backward",
    "(Tensor grad, Tensor cost, Tensor? x_lengths, Tensor? y_lengths, Tensor f, float epsilon) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Tensor:
    """Entropic optimal transport of given costs: cost (B1, B2, N, M) -> (B1, B2), or one pair's (N, M) -> ().

    As ``sinkhorn``, whose iterations these are, with cost[i, j, s, t] between step s of x[i] and step t of y[j]. The
    gradient in the costs is the transport plan, exact at convergence, as ``sinkhorn_plan`` shows it.

    Args:
        cost: (B1, B2, N, M) or (N, M), float32, float64, bfloat16 or float16; inf forbids a cell.
        x_lengths: (B1,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes
            nothing.
        y_lengths: (B2,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ M; None: all.
        epsilon: strength of the entropy > 0, in the cost's unit; exact transport as epsilon → 0.
        max_iterations: of updates of both potentials, ≥ 1.
        tolerance: L1 error ≥ 0 of a pair's marginals, out of a mass of 1, below which it stops; 0 runs all iterations.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        every cell of a step is forbidden.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    check_tensors("sinkhorn_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("sinkhorn_from_cost", epsilon=epsilon, max_iterations=max_iterations, tolerance=tolerance)
    out, _ = torch.ops.scav.sinkhorn_from_cost(
        as_batch(cost), x_lengths, y_lengths, epsilon, max_iterations, tolerance, wants_grad(cost)
    )
    return out.reshape(()) if cost.dim() == 2 else out


@register_fake("scav::sinkhorn_from_cost")
def _fake(
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    save_potentials: bool,
) -> tuple[Tensor, Tensor]:
    out = new_result_of_costs(cost)
    return out, out.new_empty((*out.shape, cost.shape[2]) if save_potentials else (0,))


@register_fake("scav::sinkhorn_from_cost_backward")
def _fake_backward(
    grad: Tensor,
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    f: Tensor,
    epsilon: float,
) -> Tensor:
    return cost.new_empty(cost.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, epsilon, _max_iterations, _tolerance, save_potentials = inputs
    _, f = output
    ctx.mark_non_differentiable(f)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, f)
    ctx.epsilon = epsilon
    ctx.has_potentials = save_potentials


def _backward(ctx: Any, grad: Tensor | None, _f: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    if not ctx.has_potentials:
        raise RuntimeError(
            "scav::sinkhorn_from_cost: the backward pass needs the potentials; call the op with save_potentials=True"
        )
    d_cost = torch.ops.scav.sinkhorn_from_cost_backward(grad, *ctx.saved_tensors, ctx.epsilon)
    return d_cost, None, None, None, None, None, None


torch.library.register_autograd("scav::sinkhorn_from_cost", _backward, setup_context=_setup_context)
refuse_double_backward("scav::sinkhorn_from_cost_backward")
refuse_missing_cuda("scav::sinkhorn_from_cost", "scav::sinkhorn_from_cost_backward")
