"""Soft-DTW, of sequences, debiased, and of given costs, one pair and one anti-diagonal at a time."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from scav_kernels.reference.dtw import band_mask
from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import Distance, debiased, over_costs, over_pairs


def soft_dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m and its cost c (n, m):

    r[s, t] = c[s, t] + softmin(r[s−1, t−1], r[s−1, t], r[s, t−1]), r[0, 0] = c[0, 0],
    softmin(a) = −gamma · log Σ exp(−a / gamma); the distance is r[n−1, m−1]. Where `open_begin`, a path may start in
    any (0, t): r[0, t] = c[0, t] + softmin(0, r[0, t−1]). Where `open_end`, the distance is the softmin over t of
    r[n−1, t].
    """
    return over_pairs(_of_pairs(gamma, cost, band, open_begin, open_end), x, y, x_lengths, y_lengths, paired)


def soft_dtw_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`: d(x, y) − (d(x, x) + d(y, y)) / 2.

    d is `soft_dtw`.
    """
    return over_pairs(debiased(_of_pairs(gamma, cost, band, open_begin, open_end)), x, y, x_lengths, y_lengths, paired)


def soft_dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the recursion of `soft_dtw` on each pair's valid cells."""
    return over_costs(lambda c: soft_dtw_of_cost(c, gamma, band, open_begin, open_end), cost, x_lengths, y_lengths)


def _of_pairs(gamma: float, cost: str, band: int | None, open_begin: bool, open_end: bool) -> Distance:
    return lambda a, b: soft_dtw_of_cost(ground_cost(a, b, cost), gamma, band, open_begin, open_end)


def soft_dtw_of_cost(
    cost: Tensor, gamma: float, band: int | None, open_begin: bool = False, open_end: bool = False
) -> Tensor:
    """(n, m) -> ()."""
    n, m = cost.shape
    cost = cost.masked_fill(~band_mask(n, m, band).to(cost.device), torch.inf)
    # With row s moved by s places, column k is the anti-diagonal s + t = k; its cells depend on the two before.
    diagonals = pad(cost, (0, n), value=torch.inf).flatten()[: n * (n + m - 1)].reshape(n, n + m - 1).unbind(1)
    infinite, zero = cost.new_full((1,), torch.inf), cost.new_zeros(1)
    r = [infinite.expand(n)] * 2
    for k, costs in enumerate(diagonals):
        # A path starts as if diagonally from a row before the first.
        start = zero if k == 0 or open_begin else infinite
        before = [torch.cat([start, r[k][:-1]]), torch.cat([infinite, r[k + 1][:-1]]), r[k + 1]]
        r.append(costs + softmin(torch.stack(before), gamma))
    ends = torch.stack([of_diagonal[-1] for of_diagonal in r[-m:]])  # r[n − 1, t] of all t
    return softmin(ends, gamma) if open_end else ends[-1]


def softmin(a: Tensor, gamma: float) -> Tensor:
    """(k, ...) -> (...), −gamma · log Σ exp(−a / gamma) over the first dimension; inf where all are."""
    least = a.detach().amin(0)
    forbidden = least == torch.inf
    a, least = a.masked_fill(forbidden, 0), least.masked_fill(forbidden, 0)
    # Relative to the smallest: gradients, which multiply along a path, are then weights whose sum is exactly one.
    value = least - gamma * torch.logsumexp((least - a) / gamma, 0)
    return value.masked_fill(forbidden, torch.inf)
