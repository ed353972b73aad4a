"""Loops over pairs, and what else the references share."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Distance = Callable[[Tensor, Tensor], Tensor]


def over_pairs(
    distance: Distance, x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, paired: bool
) -> Tensor:
    """`distance((n, D), (m, D)) -> ()` of each pair's valid steps, as (B1, B2), or (B,) where `paired`.

    Padding is cut off before anything is computed, so it can reach neither a result nor a gradient.
    """
    xs, ys = valid_steps(x, x_lengths), valid_steps(y, y_lengths)
    return over_items(distance, xs, ys, paired, x.new_zeros(0, dtype=accumulation_dtype(x)))


def over_items(
    distance: Callable[[Item, Item], Tensor], xs: Sequence[Item], ys: Sequence[Item], paired: bool, none: Tensor
) -> Tensor:
    """`distance(a, b) -> ()` of each pair of items, as (B1, B2), or (B,) where `paired`; `none` (0,) has its dtype."""
    pairs = list(zip(xs, ys, strict=True)) if paired else [(a, b) for a in xs for b in ys]
    shape = [len(xs)] if paired else [len(xs), len(ys)]
    return torch.stack([distance(a, b) for a, b in pairs]).reshape(shape) if pairs else none.reshape(shape)


def debiased(distance: Callable[[Item, Item], Tensor]) -> Callable[[Item, Item], Tensor]:
    """Return d(a, b) − (d(a, a) + d(b, b)) / 2 of a distance d."""
    return lambda a, b: distance(a, b) - (distance(a, a) + distance(b, b)) / 2


def over_costs(
    distance: Callable[[Tensor], Tensor], cost: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None
) -> Tensor:
    """`distance((n, m)) -> ()` of each pair's valid cells: (B1, B2, N, M) -> (B1, B2), or (N, M) -> ().

    NaN or −inf in a valid cell is the pair's distance; a distance of inf, which forbidden cells leave, has no gradient.
    """

    def guarded(c: Tensor) -> Tensor:
        if not c.min() > -torch.inf:
            return c.min()
        value = distance(c)
        return value if value < torch.inf else value.detach() + 0 * c.masked_fill(c.isinf(), 0).sum()

    batch = cost[None, None] if cost.dim() == 2 else cost
    dtype, (b1, b2, n, m) = accumulation_dtype(cost), batch.shape
    rows = [n] * b1 if x_lengths is None else x_lengths.tolist()
    columns = [m] * b2 if y_lengths is None else y_lengths.tolist()
    values = [guarded(batch[i, j, : rows[i], : columns[j]].to(dtype)) for i in range(b1) for j in range(b2)]
    if not values:
        return torch.zeros(b1, b2, dtype=dtype, device=cost.device)
    return torch.stack(values).reshape(batch.shape[:2] if cost.dim() == 4 else ())


def valid_steps(x: Tensor, lengths: Tensor | None) -> list[Tensor]:
    """(B, N, D) and lengths (B,) -> B sequences of shape (length, D)."""
    steps = [x.shape[1]] * x.shape[0] if lengths is None else lengths.tolist()
    return [sequence[:n].to(accumulation_dtype(x)) for sequence, n in zip(x, steps, strict=True)]


def accumulation_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32
