"""Costs of single pairs, and the shape in which the ops take costs."""

import torch
from torch import Tensor
from torch.nn import functional

from scav_kernels.dtypes import accumulation_dtype


def ground_cost(x: Tensor, y: Tensor, cost: str) -> Tensor:
    """Return the costs of one pair, x (N, D) and y (M, D) -> (N, M), without a gradient.

    They are computed from differences, which is more exact than fast.
    """
    dtype = accumulation_dtype(x)
    x, y = x.detach().to(dtype), y.detach().to(dtype)
    if cost == "cosine":
        return 1 - functional.normalize(x, eps=1e-8) @ functional.normalize(y, eps=1e-8).T
    if cost not in ("euclidean", "sqeuclidean"):
        raise ValueError(f"expected cost 'euclidean', 'sqeuclidean' or 'cosine', got {cost!r}")
    distance = torch.cdist(x[None], y[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
    return distance if cost == "euclidean" else distance.square()


def as_batch(cost: Tensor) -> Tensor:
    """Return (N, M) costs as (1, 1, N, M), and others as they are."""
    return cost[None, None] if cost.dim() == 2 else cost
