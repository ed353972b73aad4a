"""Soft-DTW, one pair and one cell at a time."""

import torch
from torch import Tensor

from scav_kernels.reference.dtw import band_mask
from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import over_pairs


def soft_dtw(
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
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m and its cost c (n, m):

    r[s, t] = c[s, t] + softmin(r[s−1, t−1], r[s−1, t], r[s, t−1]), r[0, 0] = c[0, 0],
    softmin(a) = −gamma · log Σ exp(−a / gamma); the distance is r[n−1, m−1].
    """
    return over_pairs(
        lambda a, b: soft_dtw_of_cost(ground_cost(a, b, cost), gamma, band), x, y, x_lengths, y_lengths, paired
    )


def soft_dtw_of_cost(cost: Tensor, gamma: float, band: int | None) -> Tensor:
    """(n, m) -> ()."""
    n, m = cost.shape
    allowed = band_mask(n, m, band).tolist()
    cells = [row.unbind() for row in cost.unbind()]
    # One row and column of infinities before the first step, so that r[s + 1][t + 1] belongs to cell (s, t).
    r = [[cost.new_tensor(torch.inf)] * (m + 1) for _ in range(n + 1)]
    r[0][0] = cost.new_tensor(0)
    for s in range(n):
        for t in range(m):
            if allowed[s][t]:
                r[s + 1][t + 1] = cells[s][t] + softmin(torch.stack([r[s][t], r[s][t + 1], r[s + 1][t]]), gamma)
    return r[n][m]


def softmin(a: Tensor, gamma: float) -> Tensor:
    """(k,) -> (), −gamma · log Σ exp(−a / gamma)."""
    # Relative to the smallest: gradients, which multiply along a path, are then weights whose sum is exactly one.
    least = a.detach().amin()
    if least == torch.inf:
        return least
    return least - gamma * torch.logsumexp((least - a) / gamma, 0)
