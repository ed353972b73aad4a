"""Entropic optimal transport of given costs."""

from torch import Tensor

from scav_kernels.reference.pairs import over_costs
from scav_kernels.reference.sinkhorn import sinkhorn_of_cost


def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the iterations of `sinkhorn` on each pair's valid cells."""
    return over_costs(lambda c: sinkhorn_of_cost(c, epsilon, max_iterations, tolerance), cost, x_lengths, y_lengths)
