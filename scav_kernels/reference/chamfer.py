"""Chamfer distance (late interaction), one pair at a time."""

import torch
from torch import Tensor

from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import over_pairs


def chamfer(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    cost: str = "euclidean",
    direction: str = "x",
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m and its cost c (n, m):

    (1/n) Σ_s min_t c[s, t] for `direction="x"`, (1/m) Σ_t min_s c[s, t] for `"y"`, the mean of the two for `"both"`.
    """
    return over_pairs(
        lambda a, b: chamfer_of_cost(ground_cost(a, b, cost), direction), x, y, x_lengths, y_lengths, paired
    )


def chamfer_of_cost(cost: Tensor, direction: str) -> Tensor:
    """(n, m) -> ()."""
    if direction == "both":
        return (nearest_costs(cost).mean() + nearest_costs(cost.T).mean()) / 2
    return nearest_costs(cost if direction == "x" else cost.T).mean()


def nearest_costs(cost: Tensor) -> Tensor:
    """(n, m) -> (n,), the smallest cost of each row; of equal ones, the first has the gradient."""
    return cost[torch.arange(len(cost)), cost.argmin(1)]
