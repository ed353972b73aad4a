"""Soft-DTW of given costs."""

from torch import Tensor

from scav_kernels.reference.pairs import over_costs
from scav_kernels.reference.soft_dtw import soft_dtw_of_cost


def soft_dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    band: int | None = None,
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the recursion of `soft_dtw` on each pair's valid cells."""
    return over_costs(lambda c: soft_dtw_of_cost(c, gamma, band), cost, x_lengths, y_lengths)
