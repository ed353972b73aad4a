"""Entropic optimal transport, debiased."""

from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from scav_kernels.ops.convergence import OneWarning
from scav_kernels.ops.divergence import divergence
from scav_kernels.ops.registry import METRICS, Metric


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
        epsilon: regularisation > 0, absolute, in the cost's unit.
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
    )


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
) -> Tensor:
    with nullcontext() if torch.compiler.is_compiling() else OneWarning("sinkhorn_divergence").counting():
        return divergence(
            "sinkhorn",
            x,
            y,
            x_lengths,
            y_lengths,
            paired=paired,
            epsilon=epsilon,
            max_iterations=max_iterations,
            tolerance=tolerance,
            cost=cost,
        )


METRICS["sinkhorn_divergence"] = Metric(sinkhorn_divergence, partial(_distance, paired=True))
