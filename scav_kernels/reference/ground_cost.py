"""The cost between two steps."""

import torch
from torch import Tensor


def ground_cost(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """x (n, D), y (m, D) -> c (n, m), with c[s, t] by `kind`:

    - `euclidean`: ‖x_s − y_t‖₂
    - `sqeuclidean`: ‖x_s − y_t‖₂²
    - `cosine`: 1 − ⟨x_s, y_t⟩ / (max(‖x_s‖₂, 1e-8) · max(‖y_t‖₂, 1e-8)). A step of a norm below 1e-8 has no direction:
      its gradient is 0.
    """
    if kind == "cosine":
        return 1 - (unit(x)[:, None] * unit(y)).sum(-1)
    squared = (x[:, None] - y).square().sum(-1)
    return {"euclidean": root, "sqeuclidean": lambda cost: cost}[kind](squared)


def unit(x: Tensor) -> Tensor:
    """Steps (n, D) divided by their norms, or by 1e-8 where that is larger, with no gradient there."""
    norm = root(x.square().sum(-1, keepdim=True))
    return torch.where(norm < 1e-8, x.detach() / 1e-8, x / norm.clamp(min=1e-8))


def root(squared: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero, where `torch.sqrt` has an infinite one."""
    zero = squared == 0
    return squared.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
