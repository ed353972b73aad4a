"""Dynamic time warping, of sequences and of given costs, one pair and one cell at a time."""

import numpy
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
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
    normalize: str | None = None,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m and its cost c (n, m):

    r[s, t] = min(r[s−1, t−1] + w c[s, t], r[s−1, t] + c[s, t] + p, r[s, t−1] + c[s, t] + p), r[0, 0] = c[0, 0],

    with the step penalty p and the diagonal weight w; the distance is r[n−1, m−1]. Open ends let a path start in any
    (0, t), where r[0, t] = c[0, t], and end in any (n−1, t), of equal ends in the first. The distance is divided by the
    cells of the path where `normalize` is "path", and by n + m where it is "steps".

    The gradient is that of the cost along one optimal path.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return dtw_of_cost(
            ground_cost(a, b, cost), band, step_penalty, diagonal_weight, open_begin, open_end, normalize
        )

    return over_pairs(distance, x, y, x_lengths, y_lengths, paired)


def dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    band: int | None = None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
    normalize: str | None = None,
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the recursion of `dtw` on each pair's valid cells."""

    def distance(c: Tensor) -> Tensor:
        return dtw_of_cost(c, band, step_penalty, diagonal_weight, open_begin, open_end, normalize)

    return over_costs(distance, cost, x_lengths, y_lengths)


def dtw_of_cost(
    cost: Tensor,
    band: int | None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
    normalize: str | None = None,
) -> Tensor:
    """(n, m) -> (), as the sum of the cells on one optimal path; inf without one."""
    path, reached = _solve(cost, band, step_penalty, diagonal_weight, open_begin, open_end)
    diagonal = (path[1:] - path[:-1]).sum(1) == 2
    weights = torch.ones(len(path), dtype=cost.dtype, device=cost.device)
    weights[1:][diagonal] = diagonal_weight
    total = (weights * cost[path[:, 0], path[:, 1]]).sum() + step_penalty * int((~diagonal).sum())
    divisor = {None: 1, "path": len(path), "steps": sum(cost.shape)}[normalize]
    return torch.where(torch.tensor(reached, device=cost.device), total / divisor, torch.inf)


def dtw_path_of_cost(
    cost: Tensor,
    band: int | None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """(n, m) -> (L, 2), the cells of an optimal path from its start to its end."""
    return _solve(cost, band, step_penalty, diagonal_weight, open_begin, open_end)[0]


@torch.no_grad()
@numpy.errstate(all="ignore")
def _solve(
    cost: Tensor, band: int | None, step_penalty: float, diagonal_weight: float, open_begin: bool, open_end: bool
) -> tuple[Tensor, bool]:
    """(n, m) -> an optimal path (L, 2), and whether forbidden cells leave one."""
    n, m = cost.shape
    allowed = band_mask(n, m, band).tolist()
    # What the diagonal adds beyond the other two steps. A path starts diagonally, in row 0, at weight 1.
    extra = (diagonal_weight - 1) * cost - step_penalty
    extra[0] = -step_penalty
    extra = torch.where(cost.isinf(), 0, extra)
    # NumPy's numbers round as those of the tensors, and a loop over them is faster.
    steps, extras = (of.cpu().numpy() for of in (cost + step_penalty, extra))
    # One row and column of infinities before the first step, so that r[s + 1, t + 1] belongs to cell (s, t).
    r = numpy.full((n + 1, m + 1), numpy.inf, steps.dtype)
    r[0, : m if open_begin else 1] = 0
    for s in range(n):
        for t in range(m):
            if allowed[s][t]:
                diagonal, up = r[s, t] + extras[s, t], r[s, t + 1] if s > 0 else numpy.inf
                r[s + 1, t + 1] = steps[s, t] + numpy.minimum(numpy.minimum(diagonal, up), r[s + 1, t])

    s, t = n - 1, int(r[n, 1:].argmin()) if open_end else m - 1
    path = [(s, t)]
    reached = bool(r[n, t + 1] != numpy.inf)
    while s > 0 or t > 0:
        diagonal, up, left = r[s, t] + extras[s, t], r[s, t + 1], r[s + 1, t]
        # The borders are told by the index, not by their infinities: costs may be infinite or NaN, too.
        if s == 0 and open_begin and diagonal <= left:
            break
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
    return torch.tensor(path[::-1], device=cost.device), reached


def band_mask(n: int, m: int, band: int | None) -> Tensor:
    """(n, m), true where −band − max(n − m, 0) ≤ t − s ≤ band + max(m − n, 0): a corridor between both corners."""
    if band is None:
        return torch.ones(n, m, dtype=torch.bool)
    # A radius may be the largest of int64; beyond the grid, all are alike.
    band = min(band, n + m)
    offset = torch.arange(m) - torch.arange(n)[:, None]
    return (offset >= -band - max(n - m, 0)) & (offset <= band + max(m - n, 0))
