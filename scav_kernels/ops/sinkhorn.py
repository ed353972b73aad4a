"""Entropic optimal transport between the steps of two sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    check_options,
    check_pair,
    check_tensors,
    ground_cost,
    new_convergence,
    new_gradients,
    new_result,
    promote_under_autocast,
    refuse_missing_cuda,
    register_fake,
)
from scav_kernels.ops.convergence import Convergence, can_look, warn_of_unconverged
from scav_kernels.ops.registry import METRICS, Metric

# `f` (B1, B2, N), empty unless save_potentials: x's dual potentials in units of epsilon, 0 beyond the lengths. y's, and
# the plan, follow from them and the costs. `iterations` int64 and `marginal_error` are (B1, B2), empty unless
# return_convergence: those completed, and Σ_s |Σ_t P[s, t] − a| of what they left.
torch.library.define(
    "scav::sinkhorn",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, float epsilon, int max_iterations, float tolerance, "
    "str cost, bool paired, bool save_potentials, bool return_convergence) "
    "-> (Tensor out, Tensor f, Tensor iterations, Tensor marginal_error)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::sinkhorn_backward",
    "(Tensor grad, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor f, float epsilon, "
    "str cost, bool paired, bool need_x, bool need_y) -> (Tensor dx, Tensor dy)",
    tags=torch.Tag.pt2_compliant_tag,
)


@overload
def sinkhorn(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    cost: str = ...,
    return_convergence: Literal[False] = ...,
) -> Tensor: ...


@overload
def sinkhorn(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    cost: str = ...,
    return_convergence: Literal[True],
) -> tuple[Tensor, Convergence]: ...


def sinkhorn(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """Entropic optimal transport between steps as point clouds, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m) and uniform weights a = 1/n, b = 1/m,

        OT = min_P Σ P[s, t] c[s, t] + epsilon KL(P ‖ a ⊗ b),   P (n, m) with row sums a and column sums b,

    which tends to Wasserstein-1 as epsilon → 0 with the Euclidean cost. From g = 0, an iteration is

        f[s] = −epsilon log Σ_t b exp((g[t] − c[s, t]) / epsilon),
        g[t] = −epsilon log Σ_s a exp((f[s] − c[s, t]) / epsilon);

    the value is Σ_s a f[s] + Σ_t b g[t]. The gradient in c is P = a b exp((f + g − c) / epsilon), exact at convergence.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        epsilon: regularisation > 0, absolute, in the cost's unit.
        max_iterations: iterations ≥ 1 at most.
        tolerance: a pair stops once Σ_s |Σ_t P[s, t] − a| < tolerance, as a share of the mass 1; 0 never stops early.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).
        return_convergence: also return how each pair's iterations ended. That takes half an iteration more of a pair
            that does not stop early.

    Returns:
        (B1, B2) transport costs in the cost's unit, float64 for float64 inputs and float32 for all others; with
        ``return_convergence`` a tuple of them and ``Convergence(iterations, marginal_error)``, each (B1, B2), which has
        no gradient.

    Warns:
        UserWarning: on a CPU, once a call, where pairs are not below ``tolerance`` after ``max_iterations``: how many,
            and their largest marginal error. Not with ``tolerance=0``, which asks for all iterations, nor where the
            call is compiled, traced or mapped.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Cuturi, "Sinkhorn Distances", NeurIPS 2013; Peyré & Cuturi, "Computational Optimal Transport", chapter 4.
    """
    return _distance(
        x,
        y,
        x_lengths,
        y_lengths,
        paired=False,
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
        cost=cost,
        return_convergence=return_convergence,
    )


def sinkhorn_plan(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
) -> Tensor:
    """The transport plan of one pair, to look at: x (N, D), y (M, D) -> P (N, M), the mass each step moves.

    P[s, t] goes from x[s] to y[t]. Columns sum to 1 / M, and rows to 1 / N up to ``tolerance``: P is the derivative of
    ``sinkhorn`` in the cost. Options, and the warning where P is not below ``tolerance``, are as there; no gradient
    flows through P.
    """
    check_pair("sinkhorn_plan", x, y)
    check_options("sinkhorn_plan", epsilon=epsilon, max_iterations=max_iterations, tolerance=tolerance, cost=cost)
    costs = ground_cost(x, y, cost)[None, None]
    look = can_look(costs) and tolerance > 0
    out, f, _, error = torch.ops.scav.sinkhorn_from_cost(
        costs, None, None, epsilon, max_iterations, tolerance, True, look
    )
    if look:
        warn_of_unconverged("sinkhorn_plan", error, max_iterations, tolerance)
    return torch.ops.scav.sinkhorn_from_cost_backward(torch.ones_like(out), costs, None, None, f, epsilon)[0, 0]


def _distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    check_tensors("sinkhorn", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options(
        "sinkhorn",
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
        cost=cost,
        return_convergence=return_convergence,
    )
    look = can_look(x, y) and tolerance > 0
    out, _, iterations, error = torch.ops.scav.sinkhorn(
        x,
        y,
        x_lengths,
        y_lengths,
        epsilon,
        max_iterations,
        tolerance,
        cost,
        paired,
        False,
        look or return_convergence,
    )
    if look:
        warn_of_unconverged("sinkhorn", error, max_iterations, tolerance)
    return (out, Convergence(iterations, error)) if return_convergence else out


METRICS["sinkhorn"] = Metric(sinkhorn, cast(Callable[..., Tensor], partial(_distance, paired=True)))


@register_fake("scav::sinkhorn")
def _fake(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    cost: str,
    paired: bool,
    save_potentials: bool,
    return_convergence: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = new_result(x, y, paired)
    f = out.new_empty((*out.shape, x.shape[1]) if save_potentials else (0,))
    return out, f, *new_convergence(out, return_convergence)


@register_fake("scav::sinkhorn_backward")
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    f: Tensor,
    epsilon: float,
    cost: str,
    paired: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    return new_gradients(x, y, need_x, need_y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, epsilon, _max_iterations, _tolerance, cost, paired, _save_potentials, _report = inputs
    _, f, iterations, error = output
    ctx.mark_non_differentiable(f, iterations, error)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, f)
    ctx.options = epsilon, cost, paired


def _backward(ctx: Any, grad: Tensor | None, *_grads: Tensor | None) -> tuple[Tensor | None, ...]:
    need_x, need_y, *_ = ctx.needs_input_grad
    if grad is None:
        return (None,) * 11
    dx, dy = torch.ops.scav.sinkhorn_backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
    return dx if need_x else None, dy if need_y else None, *(None,) * 9


register_autograd("scav::sinkhorn", _backward, setup_context=_setup_context)
promote_under_autocast("scav::sinkhorn")
refuse_double_backward("scav::sinkhorn_backward")
register_batching("scav::sinkhorn", "scav::sinkhorn_backward")
refuse_missing_cuda("scav::sinkhorn", "scav::sinkhorn_backward")
