"""Entropic optimal transport of costs that the caller brings."""

from typing import Any, Literal, overload

import torch
from torch import Tensor

from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    as_batch,
    check_options,
    check_tensors,
    new_convergence,
    new_result_of_costs,
    refuse_missing_cuda,
    register_fake,
)
from scav_kernels.ops.convergence import Convergence, can_look, warn_of_unconverged

# `f`, `iterations` and `marginal_error` as in scav::sinkhorn.
torch.library.define(
    "scav::sinkhorn_from_cost",
    "(Tensor cost, Tensor? x_lengths, Tensor? y_lengths, float epsilon, int max_iterations, float tolerance, "
    "bool save_potentials, bool return_convergence) "
    "-> (Tensor out, Tensor f, Tensor iterations, Tensor marginal_error)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::sinkhorn_from_cost_backward",
    "(Tensor grad, Tensor cost, Tensor? x_lengths, Tensor? y_lengths, Tensor f, float epsilon) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


@overload
def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    return_convergence: Literal[False] = ...,
) -> Tensor: ...


@overload
def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    return_convergence: Literal[True],
) -> tuple[Tensor, Convergence]: ...


def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
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
        return_convergence: also return how each pair's iterations ended, as ``sinkhorn`` does.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        every cell of a step is forbidden. With ``return_convergence`` a tuple of them and
        ``Convergence(iterations, marginal_error)`` of the same shape; 0 and NaN for a pair that is inf so.

    Warns:
        UserWarning: where pairs are not below ``tolerance``, as ``sinkhorn`` does.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    check_tensors("sinkhorn_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options(
        "sinkhorn_from_cost",
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
        return_convergence=return_convergence,
    )
    look = can_look(cost) and tolerance > 0
    out, _, iterations, error = torch.ops.scav.sinkhorn_from_cost(
        as_batch(cost),
        x_lengths,
        y_lengths,
        epsilon,
        max_iterations,
        tolerance,
        False,
        look or return_convergence,
    )
    if look:
        warn_of_unconverged("sinkhorn_from_cost", error, max_iterations, tolerance)
    shape = () if cost.dim() == 2 else out.shape
    out = out.reshape(shape)
    return (out, Convergence(iterations.reshape(shape), error.reshape(shape))) if return_convergence else out


@register_fake("scav::sinkhorn_from_cost")
def _fake(
    cost: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    save_potentials: bool,
    return_convergence: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = new_result_of_costs(cost)
    f = out.new_empty((*out.shape, cost.shape[2]) if save_potentials else (0,))
    return out, f, *new_convergence(out, return_convergence)


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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, epsilon, _max_iterations, _tolerance, _save_potentials, _report = inputs
    _, f, iterations, error = output
    ctx.mark_non_differentiable(f, iterations, error)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, f)
    ctx.epsilon = epsilon


def _backward(ctx: Any, grad: Tensor | None, *_grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    d_cost = torch.ops.scav.sinkhorn_from_cost_backward(grad, *ctx.saved_tensors, ctx.epsilon)
    return d_cost, *(None,) * 7


register_autograd("scav::sinkhorn_from_cost", _backward, setup_context=_setup_context)
refuse_double_backward("scav::sinkhorn_from_cost_backward")
register_batching("scav::sinkhorn_from_cost", "scav::sinkhorn_from_cost_backward")
refuse_missing_cuda("scav::sinkhorn_from_cost", "scav::sinkhorn_from_cost_backward")
