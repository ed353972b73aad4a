"""Entropic optimal transport: between the steps of two sequences, debiased, and of given costs."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from scav_kernels.ops.checks import WEIGHTS, check_options, check_pair, check_tensors, declare_options
from scav_kernels.ops.convergence import Convergence, OneWarning, can_look, warn_of_unconverged
from scav_kernels.ops.costs import as_batch, over_pairs
from scav_kernels.ops.define import COSTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.divergence import debias, divergence
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


_WEIGHTS = "Tensor? x_weights, Tensor? y_weights"
_SOLVER = "float epsilon, int max_iterations, float tolerance, float? scaling"
_SAVED = "bool save_potentials, bool return_convergence"
_RESULTS = "(Tensor out, Tensor f, Tensor iterations, Tensor marginal_error)"
_NEED_WEIGHTS = "bool need_x_weights, bool need_y_weights"
_OF_WEIGHTS = "Tensor dx_weights, Tensor dy_weights"
define_op(
    "sinkhorn",
    f"({SEQUENCES}, {_WEIGHTS}, {_SOLVER}, str cost, bool paired, {_SAVED}) -> {_RESULTS}",
    f"(Tensor grad, {SEQUENCES}, {_WEIGHTS}, Tensor f, float epsilon, str cost, bool paired, "
    f"{NEEDS}, {_NEED_WEIGHTS}) -> (Tensor dx, Tensor dy, {_OF_WEIGHTS})",
    _fake_potentials_and_convergence,
)
define_op(
    "sinkhorn_from_cost",
    f"({COSTS}, {_WEIGHTS}, {_SOLVER}, {_SAVED}) -> {_RESULTS}",
    f"(Tensor grad, {COSTS}, {_WEIGHTS}, Tensor f, float epsilon, {_NEED_WEIGHTS}) -> (Tensor dcost, {_OF_WEIGHTS})",
    _fake_potentials_and_convergence,
)
refuse_missing_cuda("sinkhorn", "sinkhorn_from_cost")


def _transport(
    caller: str,
    op: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]],
    tensors: tuple[Tensor, ...],
    sides: tuple[Tensor | None, ...],
    solver: tuple[float, int, float, float | None],
    *options: Any,
    save_potentials: bool = False,
    return_convergence: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Call an op, and warn of pairs that do not converge.

    `sides` are the lengths of x and of y, and their weights; `solver` is (epsilon, max_iterations, tolerance, scaling).
    """
    _, max_iterations, tolerance, _ = solver
    look = can_look(*tensors) and tolerance > 0
    results = op(*tensors, *sides, *solver, *options, save_potentials, look or return_convergence)
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
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
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
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
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
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """Entropic optimal transport between steps as point clouds, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m) and weights a (n,), b (m,), by default 1/n and 1/m,

        OT = min_P Σ P[s, t] c[s, t] + epsilon KL(P ‖ a ⊗ b),   P (n, m) with row sums a and column sums b,

    which tends to Wasserstein-1 as epsilon → 0 with the Euclidean cost. From g = 0, an iteration is

        f[s] = −epsilon log Σ_t b[t] exp((g[t] − c[s, t]) / epsilon),
        g[t] = −epsilon log Σ_s a[s] exp((f[s] − c[s, t]) / epsilon);

    the value is Σ_s a[s] f[s] + Σ_t b[t] g[t]. Its gradients are P = a b exp((f + g − c) / epsilon) in c, f in a and g
    in b, exact at convergence.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        epsilon: regularization > 0, absolute, in the cost's unit.
        max_iterations: iterations ≥ 1 at most.
        tolerance: a pair stops once Σ_s |Σ_t P[s, t] − a[s]| < tolerance, as a share of the mass 1; 0 never stops
            early.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).
        x_weights: (B1, N) weights ≥ 0 of x's steps, of any floating-point dtype; scaled to sum 1 over the valid steps,
            in float64 for float64 inputs and float32 for all others. 0 leaves a step out. None: all weigh the same.
            What lies beyond a length changes nothing.
        y_weights: (B2, M) weights of y's steps, like x_weights.
        scaling: None, or 0 < scaling < 1: g starts from an iteration at each of the larger epsilons c_max,
            scaling c_max, scaling² c_max, ... > epsilon, c_max the pair's largest finite cost between steps that have
            weight. These are at most ``max_iterations``, are not among the iterations that ``max_iterations`` limits
            and ``return_convergence`` counts, and take several times as long as those. A small ``epsilon`` needs fewer
            iterations after them.
        return_convergence: also return how each pair's iterations ended. That takes half an iteration more of a pair
            that does not stop early.

    Returns:
        (B1, B2) transport costs in the cost's unit, float64 for float64 inputs and float32 for all others, with
        gradients in x, y and the weights; with ``return_convergence`` a tuple of them and
        ``Convergence(iterations, marginal_error)``, each (B1, B2), which has no gradient.

    Warns:
        UserWarning: on a CPU, once a call, where pairs are not below ``tolerance`` after ``max_iterations``: how many,
            and their largest marginal error. Not with ``tolerance=0``, which asks for all iterations, nor where the
            call is compiled, traced or mapped.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range. On a GPU, a weight
            out of range cannot raise, and makes the distances of its sequence NaN.

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
        x_weights=x_weights,
        y_weights=y_weights,
        scaling=scaling,
        return_convergence=return_convergence,
    )


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor | tuple[Tensor, Convergence]:
    weights = {name: options.pop(name, None) for name in WEIGHTS}
    check_tensors("sinkhorn", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths, **weights)
    epsilon, max_iterations, tolerance, cost, *_, scaling, return_convergence = check_options("sinkhorn", **options)
    distances, _, iterations, error = _transport(
        "sinkhorn",
        torch.ops.scav.sinkhorn,
        (x, y),
        (x_lengths, y_lengths, *weights.values()),
        (epsilon, max_iterations, tolerance, scaling),
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
    weights = {name: options.pop(name, None) for name in WEIGHTS}
    check_tensors(caller, x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths, **weights)
    epsilon, max_iterations, tolerance, cost, *_, scaling, _ = check_options("sinkhorn", **options)
    sides = (x_lengths, y_lengths, *weights.values())
    distances, f, *_ = _transport(
        caller,
        torch.ops.scav.sinkhorn,
        (x, y),
        sides,
        (epsilon, max_iterations, tolerance, scaling),
        cost,
        True,
        save_potentials=True,
    )

    def weigh(costs: Tensor, *of_pairs: Tensor | None) -> Tensor:
        ones = costs.new_ones(len(costs))
        plans, *_ = torch.ops.scav.sinkhorn_from_cost_backward(ones, costs, *of_pairs, epsilon, False, False)
        return plans

    return distances, over_pairs(weigh, x, y, cost, *sides, f)


METRICS["sinkhorn"] = Metric(
    sinkhorn,
    cast(Callable[..., Tensor], partial(_distance, paired=True)),
    alignment=AlignmentMethod(_align, "Sinkhorn plan", "mass moved, of 1"),
)


@overload
def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    cost: str = ...,
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
    return_convergence: Literal[False] = ...,
) -> Tensor: ...


@overload
def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    cost: str = ...,
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
    return_convergence: Literal[True],
) -> tuple[Tensor, Convergence]: ...


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
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """Sinkhorn divergence, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

        S(x, y) = sinkhorn(x, y) − (sinkhorn(x, x) + sinkhorn(y, y)) / 2,

    which is 0 at x = y and, at convergence with the Euclidean cost or its square, never negative. Self terms are
    computed once per sequence, with its weights on both sides.

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
        x_weights: (B1, N) weights ≥ 0 of x's steps, as of ``sinkhorn``; None: all weigh the same.
        y_weights: (B2, M) weights of y's steps.
        scaling: None, or a factor by which the iterations approach ``epsilon``, as of ``sinkhorn``.
        return_convergence: also return how the iterations of each pair's three terms ended: the most iterations, and
            the largest marginal error.

    Returns:
        (B1, B2) divergences in the cost's unit, float64 for float64 inputs and float32 for all others; with
        ``return_convergence`` a tuple of them and ``Convergence``, as of ``sinkhorn``.

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
        x_weights=x_weights,
        y_weights=y_weights,
        scaling=scaling,
        return_convergence=return_convergence,
    )


def _divergence(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Any:
    combine = _debias_with_convergence if options.get("return_convergence") else debias
    with nullcontext() if torch.compiler.is_compiling() else OneWarning("sinkhorn_divergence").counting():
        return divergence("sinkhorn", x, y, x_lengths, y_lengths, paired=paired, combine=combine, **options)


_WithConvergence = tuple[Tensor, Convergence]


def _debias_with_convergence(
    cross: _WithConvergence, of_x: _WithConvergence, of_y: _WithConvergence, paired: bool
) -> _WithConvergence:
    """Return the divergences, and of each pair's three terms the most iterations and the largest marginal error."""

    def largest(pairs: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return pairs.maximum(x if paired else x[:, None]).maximum(y)

    (between, ended), (within_x, ended_x), (within_y, ended_y) = cross, of_x, of_y
    return debias(between, within_x, within_y, paired), Convergence(
        largest(ended.iterations, ended_x.iterations, ended_y.iterations),
        largest(ended.marginal_error, ended_x.marginal_error, ended_y.marginal_error),
    )


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
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
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
    x_weights: Tensor | None = ...,
    y_weights: Tensor | None = ...,
    scaling: float | None = ...,
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
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
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
        x_weights: (B1, N), or (N,) for one pair, weights ≥ 0 of x's steps, as of ``sinkhorn``; None: all weigh the
            same.
        y_weights: (B2, M), or (M,) for one pair, weights of y's steps.
        scaling: None, or a factor by which the iterations approach ``epsilon``, as of ``sinkhorn``.
        return_convergence: also return how each pair's iterations ended, as ``sinkhorn`` does.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        every cell of a step that has weight is forbidden. With ``return_convergence`` a tuple of them and
        ``Convergence(iterations, marginal_error)`` of the same shape; 0 and NaN for a pair that is inf so.

    Warns:
        UserWarning: where pairs are not below ``tolerance``, as ``sinkhorn`` does.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    check_tensors(
        "sinkhorn_from_cost",
        cost=cost,
        x_lengths=x_lengths,
        y_lengths=y_lengths,
        x_weights=x_weights,
        y_weights=y_weights,
    )
    check_options(
        "sinkhorn_from_cost",
        epsilon=epsilon,
        max_iterations=max_iterations,
        tolerance=tolerance,
        scaling=scaling,
        return_convergence=return_convergence,
    )
    weights = (x_weights, y_weights)
    distances, _, iterations, error = _transport(
        "sinkhorn_from_cost",
        torch.ops.scav.sinkhorn_from_cost,
        (as_batch("sinkhorn_from_cost", cost),),
        (x_lengths, y_lengths, *(map(_of_one, weights) if cost.dim() == 2 else weights)),
        (epsilon, max_iterations, tolerance, scaling),
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
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
) -> Tensor:
    """Transport plan of one pair, for inspection: x (N, D), y (M, D) -> P (N, M), the mass each step moves.

    P[s, t] goes from x[s] to y[t]. Columns sum to the weights of y's steps, ``y_weights`` (M,) or 1 / M each, and rows
    to those of x's, ``x_weights`` (N,) or 1 / N, up to ``tolerance``: P is the derivative of ``sinkhorn`` in the cost.
    Options, and the warning where P is not below ``tolerance``, are as there; no gradient flows through P.
    """
    check_pair("sinkhorn_plan", x, y)
    check_tensors("sinkhorn_plan", x=x, x_weights=x_weights, y_weights=y_weights)
    options = {
        "epsilon": epsilon,
        "max_iterations": max_iterations,
        "tolerance": tolerance,
        "cost": cost,
        "scaling": scaling,
    }
    check_options("sinkhorn_plan", **options)
    weights = {"x_weights": _of_one(x_weights), "y_weights": _of_one(y_weights)}
    with torch.no_grad():
        return _align(x[None], y[None], None, None, caller="sinkhorn_plan", **options, **weights)[1][0]


def _of_one(weights: Tensor | None) -> Tensor | None:
    """Return the weights of one pair's steps, (N,), as those of a batch, (1, N); the ops refuse another shape."""
    return weights[None] if weights is not None and weights.dim() == 1 else weights
