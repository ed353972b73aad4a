"""Soft-DTW, debiased."""

from functools import partial

from torch import Tensor

from scav_kernels.ops.divergence import divergence
from scav_kernels.ops.registry import METRICS, Metric


def soft_dtw_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
) -> Tensor:
    """Soft-DTW divergence, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

        D(x, y) = soft_dtw(x, y) − (soft_dtw(x, x) + soft_dtw(y, y)) / 2,

    which is 0 at x = y, where ``soft_dtw`` is negative and not least. Self terms are computed once per sequence. Where
    x ≈ y it is a small difference of large numbers: pass float64 where its last digits count.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit.
        cost: "sqeuclidean" ‖x_s − y_t‖₂², "euclidean" its root, or "cosine" 1 − cos(x_s, y_t).
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.

    Returns:
        (B1, B2) divergences, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Blondel, Mensch & Vert, "Differentiable Divergences Between Time Series", AISTATS 2021, equation 8.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, gamma=gamma, cost=cost, band=band)


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
    return divergence("soft_dtw", x, y, x_lengths, y_lengths, paired=paired, gamma=gamma, cost=cost, band=band)


METRICS["soft_dtw_divergence"] = Metric(soft_dtw_divergence, partial(_distance, paired=True), sums_along_path=True)
