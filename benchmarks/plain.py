"""The distances in plain PyTorch, as well as it can: what one would write instead, of all pairs, without lengths."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Beyond the costs of any path, and finite: a softmin of infinities has no gradient.
FORBIDDEN = 1e9


def costs(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean, (B1, N, D), (B2, M, D) -> (B1, N, B2, M), by one matrix product."""
    return torch.cdist(x.flatten(0, 1), y.flatten(0, 1)).view(*x.shape[:2], *y.shape[:2])


def resampled(x: Tensor, steps: int) -> Tensor:
    return functional.interpolate(x.mT, size=steps, mode="linear", align_corners=False).mT


def interpolated_euclidean_by_step(x: Tensor, y: Tensor) -> Tensor:
    """`torch.cdist` of the clips at every step."""
    return torch.cdist(resampled(x, y.shape[1]).transpose(0, 1), y.transpose(0, 1)).mean(0)


def interpolated_euclidean_by_broadcast(x: Tensor, y: Tensor) -> Tensor:
    """Through (B1, B2, M, D)."""
    return (resampled(x, y.shape[1])[:, None] - y).norm(dim=-1).mean(-1)


def chamfer(x: Tensor, y: Tensor) -> Tensor:
    """1 − MaxSim / n, through (B1, B2, N, M)."""
    cosines = torch.einsum("ind,jmd->ijnm", functional.normalize(x, dim=-1), functional.normalize(y, dim=-1))
    return 1 - cosines.amax(3).mean(2)


def dtw(x: Tensor, y: Tensor, cost: str = "euclidean") -> Tensor:
    """(B1, N, D), (B2, M, D) -> (B1, B2), from the costs of all steps at once."""
    cell = costs(x, y)
    return dtw_of_costs(cell.square() if cost == "sqeuclidean" else cell)


def dtw_of_costs(cell: Tensor) -> Tensor:
    """(B1, N, B2, M) -> (B1, B2), row by row, all pairs at once.

    Along a row, r[t] = c[t] + min(enter[t], r[t−1]), where enter[t] comes from the row before, is the running sum of c
    plus the running minimum of enter[k] less the sum before k.
    """
    first, *rows = cell.unbind(1)  # each (B1, B2, M)
    r = first.cumsum(-1)
    for row in rows:
        enter = torch.minimum(r, functional.pad(r[..., :-1], (1, 0), value=torch.inf))
        total = row.cumsum(-1)
        r = total + (enter - (total - row)).cummin(-1).values
    return r[..., -1]


def soft_dtw(x: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    """Anti-diagonal by anti-diagonal, all pairs at once."""
    first, second, *diagonals = skewed(costs(x, y).square().transpose(1, 2)).unbind(0)  # each (B1, B2, N)
    before = first
    r = second + shifted(first).minimum(first)  # a cell beside the first one has no other way in
    for diagonal in diagonals:
        ways = torch.stack((shifted(before), shifted(r), r))
        before, r = r, diagonal - gamma * torch.logsumexp(ways / -gamma, 0)
    return r[..., -1]


def skewed(cost: Tensor) -> Tensor:
    """(B1, B2, N, M) -> (N + M − 1, B1, B2, N), whose [d, ..., s] is the cost of s and d − s."""
    n, m = cost.shape[2:]
    # Rows that are n + m wide, read as if they were one narrower, move by one step each.
    flat = functional.pad(cost, (0, n), value=FORBIDDEN).flatten(2)[..., : n * (n + m - 1)]
    return flat.unflatten(2, (n, n + m - 1)).permute(3, 0, 1, 2).contiguous()


def shifted(r: Tensor) -> Tensor:
    """Shift along s: entry s gets the value of s − 1."""
    return functional.pad(r[..., :-1], (1, 0), value=FORBIDDEN)


def sinkhorn_iteration(scaled: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Potentials in units of epsilon, from costs in units of epsilon (..., N, M)."""
    n, m = scaled.shape[-2:]
    f = -torch.logsumexp((g - torch.tensor(m).log())[..., None, :] - scaled, -1)
    return f, -torch.logsumexp((f - torch.tensor(n).log())[..., None] - scaled, -2)


def sinkhorn(
    x: Tensor,
    y: Tensor,
    epsilon: float = 0.05,
    iterations: int = 50,
    iteration: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = sinkhorn_iteration,
) -> Tensor:
    """In the log domain; its gradient is that of ⟨P, C⟩ at the plan found, so that no iteration is kept for it."""
    cost = costs(x, y).transpose(1, 2)  # (B1, B2, N, M)
    with torch.no_grad():
        scaled = cost.div(epsilon).contiguous()
        g = scaled.new_zeros(*scaled.shape[:2], scaled.shape[3])
        for _ in range(iterations):
            f, g = iteration(scaled, g)
        plan = (f[..., None] + g[..., None, :] - scaled).exp() / (scaled.shape[2] * scaled.shape[3])
        value = epsilon * (f.mean(-1) + g.mean(-1))
    transport = (plan * cost).sum((2, 3))
    return value + (transport - transport.detach())
