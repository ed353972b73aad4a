"""Dynamic time warping, of sequences and of given costs, one pair and one cell at a time."""

import torch
from torch import Tensor

from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import over_costs, over_pairs


def dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    cost: str = "euclidean",
    band: int | None = None,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m and its cost c (n, m):

    r[s, t] = c[s, t] + min(r[s−1, t−1], r[s−1, t], r[s, t−1]), r[0, 0] = c[0, 0]; the distance is r[n−1, m−1].

    The gradient is that of the cost along one optimal path.
    """
    return over_pairs(lambda a, b: dtw_of_cost(ground_cost(a, b, cost), band), x, y, x_lengths, y_lengths, paired)


def dtw_from_cost(
    cost: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None, *, band: int | None = None
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the recursion of `dtw` on each pair's valid cells."""
    return over_costs(lambda c: dtw_of_cost(c, band), cost, x_lengths, y_lengths)


def dtw_of_cost(cost: Tensor, band: int | None) -> Tensor:
    """(n, m) -> (), as the sum of the cells on one optimal path."""
    path = dtw_path_of_cost(cost, band)
    return cost[path[:, 0], path[:, 1]].sum()


@torch.no_grad()
def dtw_path_of_cost(cost: Tensor, band: int | None) -> Tensor:
    """(n, m) -> (L, 2), the cells of an optimal path from (0, 0) to (n−1, m−1)."""
    n, m = cost.shape
    allowed = band_mask(n, m, band).tolist()
    # One row and column of infinities before the first step, so that r[s + 1, t + 1] belongs to cell (s, t).
    r = cost.new_full((n + 1, m + 1), torch.inf)
    r[0, 0] = 0
    for s in range(n):
        for t in range(m):
            if allowed[s][t]:
                # The fourth cell of the window is the one being filled, still infinite.
                r[s + 1, t + 1] = cost[s, t] + r[s : s + 2, t : t + 2].amin()

    s, t = n - 1, m - 1
    path = [(s, t)]
    before = r.tolist()
    while (s, t) != (0, 0):
        diagonal, up, left = before[s][t], before[s][t + 1], before[s + 1][t]
        # The borders are told by the index, not by their infinities: costs may be infinite or NaN, too.
        if t == 0:
            s -= 1
        elif s == 0:
            t -= 1
        elif diagonal <= up and diagonal <= left:
            s, t = s - 1, t - 1
        elif up <= left:
            s -= 1
        else:
            t -= 1
        path.append((s, t))
    return torch.tensor(path[::-1], device=cost.device)


def band_mask(n: int, m: int, band: int | None) -> Tensor:
    """(n, m), true where −band − max(n − m, 0) ≤ t − s ≤ band + max(m − n, 0): a corridor between both corners."""
    if band is None:
        return torch.ones(n, m, dtype=torch.bool)
    # A radius may be the largest of int64; beyond the grid, all are alike.
    band = min(band, n + m)
    offset = torch.arange(m) - torch.arange(n)[:, None]
    return (offset >= -band - max(n - m, 0)) & (offset <= band + max(m - n, 0))
