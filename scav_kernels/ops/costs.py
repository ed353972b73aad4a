"""Costs of pairs, and the shape in which the ops take costs."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from scav_kernels.dtypes import accumulation_dtype

# Bytes of costs in float64 that `over_pairs` computes at a time, unless those of one pair are more. Up to four such
# tensors live at once.
_COST_BYTES = 16 << 20


def ground_cost(x: Tensor, y: Tensor, cost: str) -> Tensor:
    """Return the costs of one pair, x (N, D) and y (M, D) -> (N, M), or of B pairs, without a gradient.

    They are more exact than the products of float32 that the ops take: from float64, or from differences.
    """
    dtype = accumulation_dtype(x)
    x, y = x.detach().to(dtype), y.detach().to(dtype)
    if cost == "cosine":
        with torch.autocast(x.device.type, enabled=False):
            return 1 - functional.normalize(x, dim=-1, eps=1e-8) @ functional.normalize(y, dim=-1, eps=1e-8).mT
    if cost not in ("euclidean", "sqeuclidean"):
        raise ValueError(f"expected cost 'euclidean', 'sqeuclidean' or 'cosine', got {cost!r}")
    if dtype == torch.float32:
        squared = _squared_distances(x.double(), y.double())
        return (squared.sqrt_() if cost == "euclidean" else squared).to(dtype)
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if cost == "euclidean" else distance.square()


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return ‖x_s − y_t‖² by products, of half the digits of float64 at least; inf where a feature is inf."""
    products = x.masked_fill(x.isinf(), 0) @ y.masked_fill(y.isinf(), 0).mT
    return products.mul_(-2).add_(x.square().sum(-1)[..., None]).add_(y.square().sum(-1)[..., None, :]).clamp(min=0)


def over_pairs(weigh: Callable[..., Tensor], x: Tensor, y: Tensor, cost: str, *of_pairs: Tensor | None) -> Tensor:
    """Return `weigh(costs (b, N, M), *of_pairs)` of all pairs, x (B, N, D) and y (B, M, D) -> (B, N, M).

    Costs are computed for a few pairs at a time. `of_pairs` are tensors with an entry for each pair, or None.
    """
    (batch, n, _), m, dtype = x.shape, y.shape[1], accumulation_dtype(x)
    at_a_time = max(1, _COST_BYTES // (n * m * torch.float64.itemsize))
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
