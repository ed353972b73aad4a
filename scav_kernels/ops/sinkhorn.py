"""Entropic optimal transport: between the steps of two sequences, debiased, and of given costs."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from scav_kernels.ops.checks import check_options, check_pair, check_tensors, declare_options
from scav_kernels.ops.convergence import Convergence, OneWarning, can_look, warn_of_unconverged
from scav_kernels.ops.costs import as_batch, over_pairs
from scav_kernels.ops.define import COSTS, GRADIENTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.divergence import divergence
from scav_kernels.ops.fakes import Arguments, steps_of_x
from scav_kernels.ops.registry import METRICS, AlignmentMethod, Metric


def _fake_potentials_and_convergence(distances: Tensor, given: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    """Return `f`, `iterations` and `marginal_error`.

    - f (B1, B2, N), empty unless save_potentials: x's dual potentials in units of epsilon, 0 beyond the lengths. y's,
      and the plan, follow from them and the costs.
    - iterations int64 and marginal_error, (B1, B2), empty unless return_convergence: the iterations completed, and
      Σ_s |Σ_t P[s, t] − a| after them.
    """
    f_shape = (*distances.shape, steps_of_x(given)) if given["save_potentials"] else (0,)
    shape = distances.shape if given["return_convergence"] else (0,)
    return distances.new_empty(f_shape), distances.new_empty(shape, dtype=torch.int64), distances.new_empty(shape)


_SOLVER = "float epsilon, int max_iterations, float tolerance"
_SAVED = "bool save_potentials, bool return_convergence"
_RESULTS = "(Tensor out, Tensor f, Tensor iterations, Tensor marginal_error)"
define_op(
    "sinkhorn",
    f"({SEQUENCES}, {_SOLVER}, str cost, bool paired, {_SAVED}) -> {_RESULTS}",
    f"(Tensor grad, {SEQUENCES}, Tensor f, float epsilon, str cost, bool paired, {NEEDS}) -> {GRADIENTS}",
    _fake_potentials_and_convergence,
)
define_op(
    "sinkhorn_from_cost",
    f"({COSTS}, {_SOLVER}, {_SAVED}) -> {_RESULTS}",
    f"(Tensor grad, {COSTS}, Tensor f, float epsilon) -> Tensor",
    _fake_potentials_and_convergence,
)
refuse_missing_cuda("sinkhorn", "sinkhorn_from_cost")


def _transport(
    caller: str,
    op: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]],
    tensors: tuple[Tensor, ...],
    lengths: tuple[Tensor | None, Tensor | None],
    solver: tuple[float, int, float],
    *options: Any,
    save_potentials: bool = False,
    return_convergence: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Call an op, and warn of pairs that do not converge; `solver` is (epsilon, max_iterations, tolerance)."""
    _, max_iterations, tolerance = solver
    look = can_look(*tensors) and tolerance > 0
    results = op(*tensors, *lengths, *solver, *options, save_potentials, look or return_convergence)
    if look:
        warn_of_unconverged(caller, results[-1], max_iterations, tolerance)
    return results


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


@declare_options
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
        epsilon: regularization > 0, absolute, in the cost's unit.
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


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor | tuple[Tensor, Convergence]:
    check_tensors("sinkhorn", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    epsilon, max_iterations, tolerance, cost, return_convergence = check_options("sinkhorn", **options)
    distances, _, iterations, error = _transport(
        "sinkhorn",
        torch.ops.scav.sinkhorn,
        (x, y),
        (x_lengths, y_lengths),
        (epsilon, max_iterations, tolerance),
        cost,
        paired,
        return_convergence=return_convergence,
    )
    return (distances, Convergence(iterations, error)) if return_convergence else distances


def _align(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    caller: str = "sinkhorn",
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """Return the distances of pairs, (B,), and their transport plans, (B, N, M)."""
    check_tensors(caller, x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    epsilon, max_iterations, tolerance, cost, _ = check_options("sinkhorn", **options)
    distances, f, *_ = _transport(
        caller,
        torch.ops.scav.sinkhorn,
        (x, y),
        (x_lengths, y_lengths),
        (epsilon, max_iterations, tolerance),
        cost,
        True,
        save_potentials=True,
    )

    def weigh(costs: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, f: Tensor) -> Tensor:
        ones = costs.new_ones(len(costs))
        return torch.ops.scav.sinkhorn_from_cost_backward(ones, costs, x_lengths, y_lengths, f, epsilon)

    return distances, over_pairs(weigh, x, y, cost, x_lengths, y_lengths, f)


METRICS["sinkhorn"] = Metric(
    sinkhorn,
    cast(Callable[..., Tensor], partial(_distance, paired=True)),
    alignment=AlignmentMethod(_align, "Sinkhorn plan", "mass moved, of 1"),
)


@declare_options
def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
) -> Tensor:
    """Sinkhorn divergence, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

        S(x, y) = sinkhorn(x, y) − (sinkhorn(x, x) + sinkhorn(y, y)) / 2,

    which is 0 at x = y and, at convergence with the Euclidean cost or its square, never negative. Self terms are
    computed once per sequence.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        epsilon: regularization > 0, absolute, in the cost's unit.
        max_iterations: iterations ≥ 1 at most, of each of the three terms.
        tolerance: a pair's term stops once its L1 marginal error is below it, as a share of the mass 1; 0 never stops
            early.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).

    Returns:
        (B1, B2) divergences in the cost's unit, float64 for float64 inputs and float32 for all others.

    Warns:
        UserWarning: where pairs of the three terms are not below ``tolerance``, as ``sinkhorn`` does, once for all.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019.
    """
    return _divergence(
        x,
        y,
        x_lengths,
        y_lengths,
        paired=False,
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
        cost=cost,
    )


def _divergence(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    with nullcontext() if torch.compiler.is_compiling() else OneWarning("sinkhorn_divergence").counting():
        return divergence("sinkhorn", x, y, x_lengths, y_lengths, paired=paired, **options)


METRICS["sinkhorn_divergence"] = Metric(sinkhorn_divergence, partial(_divergence, paired=True))


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


@declare_options
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
    distances, _, iterations, error = _transport(
        "sinkhorn_from_cost",
        torch.ops.scav.sinkhorn_from_cost,
        (as_batch("sinkhorn_from_cost", cost),),
        (x_lengths, y_lengths),
        (epsilon, max_iterations, tolerance),
        return_convergence=return_convergence,
    )
    shape = () if cost.dim() == 2 else distances.shape
    distances = distances.reshape(shape)
    if not return_convergence:
        return distances
    return distances, Convergence(iterations.reshape(shape), error.reshape(shape))


@declare_options
def sinkhorn_plan(
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
) -> Tensor:
    """Transport plan of one pair, for inspection: x (N, D), y (M, D) -> P (N, M), the mass each step moves.

    P[s, t] goes from x[s] to y[t]. Columns sum to 1 / M, and rows to 1 / N up to ``tolerance``: P is the derivative of
    ``sinkhorn`` in the cost. Options, and the warning where P is not below ``tolerance``, are as there; no gradient
    flows through P.
    """
    check_pair("sinkhorn_plan", x, y)
    options = {"epsilon": epsilon, "max_iterations": max_iterations, "tolerance": tolerance, "cost": cost}
    check_options("sinkhorn_plan", **options)
    with torch.no_grad():
        return _align(x[None], y[None], None, None, caller="sinkhorn_plan", **options)[1][0]
