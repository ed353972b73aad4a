"""The ops of a search: summaries, bounds from them, and distances of many or of listed pairs, without a copy of a side.

None has a gradient. On CUDA they are made of PyTorch's own operations.
"""

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.registry import METRICS
from scav_kernels.search.summaries import ragged_segment_means

# Items side by side in a panel.
LANES = 16
# Floats that the CUDA versions may hold at a time.
_HELD = 1 << 26

torch.library.define("scav::aligned_bounds", "(Tensor x, Tensor panels, Tensor limits, bool squared) -> Tensor")
torch.library.define(
    "scav::aligned_nearest",
    "(Tensor x, Tensor panels, int count, int first_item, Tensor bounds, Tensor items, bool squared) "
    "-> (Tensor, Tensor)",
)
torch.library.define(
    "scav::aligned_survivors",
    "(Tensor[] x, Tensor[] panels, Tensor limits, Tensor skip, bool squared) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.define(
    "scav::crowd_interpolated_euclidean",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor chosen_x, Tensor chosen_y, int target, "
    "bool squared) -> Tensor",
)
torch.library.define(
    "scav::segment_means",
    "(Tensor steps, Tensor lengths, Tensor chosen, int target, int segments, bool squared) -> Tensor",
)
torch.library.define("scav::largest_norms", "(Tensor steps, Tensor lengths) -> Tensor")
torch.library.define(
    "scav::listed_interpolated_euclidean",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor pairs_x, Tensor pairs_y, Tensor limits, "
    "bool squared, str resample) -> Tensor",
)


def to_panels(summaries: Tensor) -> Tensor:
    """(B, S, R) -> (⌈B / LANES⌉, S, R, LANES), zero in the lanes that are left."""
    items, steps, dim = summaries.shape
    panels = -(-items // LANES)
    padded = summaries.new_zeros(panels * LANES, steps, dim)
    padded[:items] = summaries
    return padded.view(panels, LANES, steps, dim).permute(0, 2, 3, 1).contiguous()


def aligned_bounds(x: Tensor, panels: Tensor, limits: Tensor, squared: bool) -> Tensor:
    """Σ_s ‖x_s − y_s‖, or of the squares, of all pairs: x (Q, S, R), panels (P, S, R, LANES) -> (Q, P · LANES).

    A sum that has exceeded its query's limit (Q,) may have stopped there.
    """
    return torch.ops.scav.aligned_bounds(x, panels, limits, squared)


def aligned_nearest(
    x: Tensor, panels: Tensor, count: int, first_item: int, bounds: Tensor, items: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    """Of each query, the items of least `aligned_bounds`, in an order that depends on these alone.

    Args:
        x: (Q, S, R).
        panels: (P, S, R, LANES).
        count: items in the panels.
        first_item: the number of the first of them.
        bounds: (Q, k), ascending, of the items found before; inf where there are fewer than k.
        items: (Q, k) int64, their numbers.
        squared: as of `aligned_bounds`.

    Returns:
        bounds, items (Q, k) of both those found before and these: ascending, ties to the lower number. Bounds that are
        not numbers are left out.
    """
    return torch.ops.scav.aligned_nearest(x, panels, count, first_item, bounds, items, squared)


def aligned_survivors(
    x: list[Tensor], panels: list[Tensor], limits: Tensor, skip: Tensor, squared: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs that no level's `aligned_bounds` shows to be above their query's limit.

    Args:
        x: of each level, (Q, S, R).
        panels: of each level, (P, S, R, LANES).
        limits: (Q,).
        skip: (Q, P · LANES) bool, pairs to leave out.
        squared: as of `aligned_bounds`.

    Returns:
        queries (F,), items (F,), the largest of each pair's bounds (F,), and how many pairs each level removed
        (levels,). A bound that is not a number removes none.
    """
    return torch.ops.scav.aligned_survivors(x, panels, limits, skip, squared)


def crowd_interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    chosen_x: Tensor,
    chosen_y: Tensor,
    target: int,
    squared: bool,
) -> Tensor:
    """Mean distances (P, R) of x[chosen_x] (P,) and y[chosen_y] (R,), both resampled to `target` steps: of one of two
    sequences that has so many, the interpolated Euclidean distance, up to rounding that depends on the company."""
    return torch.ops.scav.crowd_interpolated_euclidean(x, y, x_lengths, y_lengths, chosen_x, chosen_y, target, squared)


def segment_means(steps: Tensor, lengths: Tensor, chosen: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """Sequences steps[chosen] (B, N, D) of lengths (B,), resampled to `target` steps and cut into segments -> (B, S, D)
    their means.

    Means are scaled so that Σ_s ‖·‖, or Σ_s ‖·‖² where `squared`, of the difference of two such summaries is the mean
    over segments, each counting as many times as it has steps. 1 ≤ S ≤ `target`.
    """
    return torch.ops.scav.segment_means(steps, lengths, chosen, target, segments, squared)


def largest_norms(steps: Tensor, lengths: Tensor) -> Tensor:
    """(B,) the largest norm of the valid steps of sequences (B, N, D), inf where one is not finite."""
    return torch.ops.scav.largest_norms(steps, lengths)


def listed_interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    pairs_x: Tensor,
    pairs_y: Tensor,
    limits: Tensor,
    squared: bool,
    resample: str,
) -> Tensor:
    """Interpolated Euclidean distances (P,) of x[pairs_x] and y[pairs_y], a pair's by one order of operations whatever
    the list; inf for one that has exceeded its limit (P,) on the way. NaN stays NaN."""
    return torch.ops.scav.listed_interpolated_euclidean(
        x, y, x_lengths, y_lengths, pairs_x, pairs_y, limits, squared, resample
    )


def _aligned_bounds_on_cuda(x: Tensor, panels: Tensor, limits: Tensor, squared: bool) -> Tensor:
    count, steps, dim, lanes = panels.shape
    out = x.new_zeros(len(x), count * lanes)
    some = max(1, _HELD // max(1, len(x) * lanes))
    for first in range(0, count, some):
        chunk = panels[first : first + some]
        for s in range(steps):
            y = chunk[:, s].transpose(1, 2).reshape(-1, dim)  # (items, R)
            apart = torch.cdist(x[:, s], y, compute_mode="donot_use_mm_for_euclid_dist")
            out[:, first * lanes : first * lanes + len(y)] += apart.square() if squared else apart
    return out


def _aligned_nearest_on_cuda(
    x: Tensor, panels: Tensor, count: int, first_item: int, bounds: Tensor, items: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    bounds, items = bounds.clone(), items.clone()
    some = max(1, _HELD // max(1, len(x) * panels.shape[3]))
    for first in range(0, len(panels), some):
        sums = aligned_bounds(x, panels[first : first + some], bounds[:, -1], squared)
        sums = sums[:, : count - first * panels.shape[3]].nan_to_num(nan=torch.inf, posinf=torch.inf)
        numbers = first_item + first * panels.shape[3] + torch.arange(sums.shape[1], device=items.device)
        # Stable, and items that were found before come first.
        every = torch.cat([bounds, sums], 1)
        order = every.sort(dim=1, stable=True).indices[:, : bounds.shape[1]]
        bounds = every.gather(1, order)
        items = torch.cat([items, numbers.expand(len(x), -1)], 1).gather(1, order)
    return bounds, items


def _aligned_survivors_on_cuda(
    x: list[Tensor], panels: list[Tensor], limits: Tensor, skip: Tensor, squared: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    alive = ~skip
    bounds = limits.new_full(skip.shape, -torch.inf)
    removed = []
    for own, theirs in zip(x, panels, strict=True):
        sums = aligned_bounds(own, theirs, limits, squared)
        above = alive & (sums > limits[:, None])
        removed.append(above.sum())
        alive &= ~above
        bounds = torch.fmax(bounds, sums)
    rows, places = alive.nonzero(as_tuple=True)
    return rows, places, bounds[rows, places], torch.stack(removed)


def _crowd_on_cuda(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    chosen_x: Tensor,
    chosen_y: Tensor,
    target: int,
    squared: bool,
) -> Tensor:
    lengths = torch.full((len(x),), x.shape[1], device=x.device) if x_lengths is None else x_lengths
    # One segment for each step.
    own = target * segment_means(x, lengths, chosen_x, target, target, False)
    out = own.new_empty(len(chosen_x), len(chosen_y))
    some = max(1, _HELD // y[0].numel())
    for first in range(0, len(chosen_y), some):
        chosen = chosen_y[first : first + some]
        out[:, first : first + some] = METRICS["interpolated_euclidean"].all_pairs(
            own,
            # In the dtype of accumulation, as in `_listed_on_cuda`.
            y[chosen].to(own.dtype),
            None,
            None if y_lengths is None else y_lengths[chosen],
            squared=squared,
            resample="y",
        )
    return out


def _segment_means_on_cuda(
    steps: Tensor, lengths: Tensor, chosen: Tensor, target: int, segments: int, squared: bool
) -> Tensor:
    beyond = torch.arange(steps.shape[1], device=steps.device) >= lengths[chosen, None]
    rows = steps[chosen].to(accumulation_dtype(steps)).masked_fill(beyond[:, :, None], 0)
    return ragged_segment_means(rows, lengths[chosen], target, segments, squared)


def _largest_norms_on_cuda(steps: Tensor, lengths: Tensor) -> Tensor:
    out = torch.empty(len(steps), dtype=accumulation_dtype(steps), device=steps.device)
    places = torch.arange(steps.shape[1], device=steps.device)
    some = max(1, _HELD // max(1, steps.shape[1] * steps.shape[2]))
    for first in range(0, len(steps), some):
        chunk = steps[first : first + some].to(out.dtype)
        valid = places < lengths[first : first + some, None]
        norms = chunk.square().sum(2).sqrt().nan_to_num(nan=torch.inf).masked_fill(~valid, 0)
        out[first : first + some] = norms.amax(1)
    return out


def _listed_on_cuda(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    pairs_x: Tensor,
    pairs_y: Tensor,
    limits: Tensor,
    squared: bool,
    resample: str,
) -> Tensor:
    out = x.new_empty(len(pairs_x), dtype=accumulation_dtype(x))
    some = max(1, _HELD // (x[0].numel() + y[0].numel()))
    for first in range(0, len(out), some):
        i, j = pairs_x[first : first + some], pairs_y[first : first + some]
        # The kernel rounds what it resamples to the dtype of its inputs, which no bound allows for.
        out[first : first + some] = METRICS["interpolated_euclidean"].paired(
            x[i].to(out.dtype),
            y[j].to(out.dtype),
            None if x_lengths is None else x_lengths[i],
            None if y_lengths is None else y_lengths[j],
            squared=squared,
            resample=resample,
        )
    return out.masked_fill(out > limits, torch.inf)


torch.library.impl("scav::aligned_bounds", "CUDA", _aligned_bounds_on_cuda)
torch.library.impl("scav::aligned_nearest", "CUDA", _aligned_nearest_on_cuda)
torch.library.impl("scav::aligned_survivors", "CUDA", _aligned_survivors_on_cuda)
torch.library.impl("scav::crowd_interpolated_euclidean", "CUDA", _crowd_on_cuda)
torch.library.impl("scav::segment_means", "CUDA", _segment_means_on_cuda)
torch.library.impl("scav::largest_norms", "CUDA", _largest_norms_on_cuda)
torch.library.impl("scav::listed_interpolated_euclidean", "CUDA", _listed_on_cuda)
