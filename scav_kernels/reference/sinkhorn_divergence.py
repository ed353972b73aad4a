"""Sinkhorn divergence."""

from torch import Tensor

from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import over_pairs
from scav_kernels.reference.sinkhorn import sinkhorn_of_cost


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
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`: d(x, y) − (d(x, x) + d(y, y)) / 2.

    d is `sinkhorn`.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return sinkhorn_of_cost(ground_cost(a, b, cost), epsilon, max_iterations, tolerance)

    def divergence(a: Tensor, b: Tensor) -> Tensor:
        return distance(a, b) - (distance(a, a) + distance(b, b)) / 2

    return over_pairs(divergence, x, y, x_lengths, y_lengths, paired)
