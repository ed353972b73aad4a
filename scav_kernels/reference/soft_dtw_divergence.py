"""Soft-DTW divergence."""

from torch import Tensor

from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import over_pairs
from scav_kernels.reference.soft_dtw import soft_dtw_of_cost


def soft_dtw_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`: d(x, y) − (d(x, x) + d(y, y)) / 2.

    d is `soft_dtw`.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return soft_dtw_of_cost(ground_cost(a, b, cost), gamma, band)

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return distance(a, b) - (distance(a, a) + distance(b, b)) / 2

    return over_pairs(divergence, x, y, x_lengths, y_lengths, paired)
