"""Entropic optimal transport of given costs."""

from collections.abc import Callable

import torch
from torch import Tensor

from scav_kernels.ops.convergence import Convergence
from scav_kernels.reference.pairs import over_costs
from scav_kernels.reference.sinkhorn import convergence_of_cost, sinkhorn_of_cost


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
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the iterations of `sinkhorn` on each pair's valid cells."""

    def over(of_cost: Callable[[Tensor, float, int, float], Tensor]) -> Tensor:
        return over_costs(lambda c: of_cost(c, epsilon, max_iterations, tolerance), cost, x_lengths, y_lengths)

    value = over(sinkhorn_of_cost)
    if not return_convergence:
        return value
    iterations, error = (over(lambda *given, part=part: convergence_of_cost(*given)[part]) for part in (0, 1))
    # NaN or −inf in a cell has decided both.
    iterations, error = iterations.nan_to_num(nan=0, neginf=0).long(), error.masked_fill(error.isinf(), torch.nan)
    return value, Convergence(iterations, error)
