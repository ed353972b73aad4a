"""Costs of pairs, and the shape in which the ops take costs."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from scav_kernels.dtypes import accumulation_dtype

# Bytes of costs that `over_pairs` holds at a time, and of their weights, unless those of one pair are more.
_COST_BYTES = 32 << 20


def ground_cost(x: Tensor, y: Tensor, cost: str) -> Tensor:
    """Return the costs of one pair, x (N, D) and y (M, D) -> (N, M), or of B pairs, without a gradient.

    They are computed from differences, which is more exact than fast.
    """
    dtype = accumulation_dtype(x)
    x, y = x.detach().to(dtype), y.detach().to(dtype)
    if cost == "cosine":
        with torch.autocast(x.device.type, enabled=False):
            return 1 - functional.normalize(x, dim=-1, eps=1e-8) @ functional.normalize(y, dim=-1, eps=1e-8).mT
    if cost not in ("euclidean", "sqeuclidean"):
        raise ValueError(f"expected cost 'euclidean', 'sqeuclidean' or 'cosine', got {cost!r}")
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if cost == "euclidean" else distance.square()


def over_pairs(weigh: Callable[..., Tensor], x: Tensor, y: Tensor, cost: str, *of_pairs: Tensor | None) -> Tensor:
    """Return `weigh(costs (b, N, M), *of_pairs)` of all pairs, x (B, N, D) and y (B, M, D) -> (B, N, M).

    Costs are computed for a few pairs at a time. `of_pairs` are tensors with an entry for each pair, or None.
    """
    (batch, n, _), m, dtype = x.shape, y.shape[1], accumulation_dtype(x)
    at_a_time = max(1, _COST_BYTES // (n * m * dtype.itemsize))
    if batch <= at_a_time:
        return weigh(ground_cost(x, y, cost), *of_pairs)
    weights = x.new_empty(batch, n, m, dtype=dtype)
    for first in range(0, batch, at_a_time):
        part = slice(first, first + at_a_time)
        weights[part] = weigh(ground_cost(x[part], y[part], cost), *(v if v is None else v[part] for v in of_pairs))
    return weights


def as_batch(op: str, cost: Tensor) -> Tensor:
    """Return (N, M) costs as (1, 1, N, M), and (B1, B2, N, M) as they are."""
    if cost.dim() not in (2, 4):
        raise ValueError(
            f"{op}: expected cost of shape (B1, B2, N, M), or (N, M) for one pair, got shape {tuple(cost.shape)}; "
            "give pairs (B, N, M) a second batch axis with cost[:, None]"
        )
    return cost[None, None] if cost.dim() == 2 else cost
