"""The ops of search: summaries, bounds from them, and distances of all pairs or of listed pairs without copies.

They have no gradients. On CUDA they consist of PyTorch's operations, and those of series are missing.
"""

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.registry import METRICS
from scav_kernels.search.summaries import ragged_segment_means

# Items side by side in a panel.
LANES = 16
# Numbers that the CUDA versions allocate at a time.
_BLOCK_NUMBERS = 1 << 26

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
    "scav::selected_interpolated_euclidean",
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
torch.library.define(
    "scav::nearest_series",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, str cost, int? band, int first_item, float rounding, "
    "bool prune, Tensor distances, Tensor items) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "scav::keogh_bounds",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, str cost, int? band) -> Tensor",
)


def to_panels(summaries: Tensor) -> Tensor:
    """Return summaries in panels, (B, S, R) -> (⌈B / LANES⌉, S, R, LANES), with zeros in unused lanes."""
    items, steps, dim = summaries.shape
    panels = -(-items // LANES)
    padded = summaries.new_zeros(panels * LANES, steps, dim)
    padded[:items] = summaries
    return padded.view(panels, LANES, steps, dim).permute(0, 2, 3, 1).contiguous()


def aligned_bounds(x: Tensor, panels: Tensor, limits: Tensor, squared: bool) -> Tensor:
    """Return Σ_s ‖x_s − y_s‖, or of squares, of all pairs: x (Q, S, R), panels (P, S, R, LANES) -> (Q, P · LANES).

    A sum may stop once it exceeds its query's limit (Q,).
    """
    return torch.ops.scav.aligned_bounds(x, panels, limits, squared)


def aligned_nearest(
    x: Tensor, panels: Tensor, count: int, first_item: int, bounds: Tensor, items: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    """Return the items with the smallest `aligned_bounds` of each query. The order depends on the bounds alone.

    Args:
        x: (Q, S, R).
        panels: (P, S, R, LANES).
        count: the number of items in the panels.
        first_item: the index of the first of them.
        bounds: (Q, k) bounds of the items from earlier panels, ascending; inf if there are fewer than k.
        items: (Q, k) int64 indices of these items.
        squared: as in `aligned_bounds`.

    Returns:
        bounds, items (Q, k) of the earlier and these items: ascending, ties to the lower index, without NaN.
    """
    return torch.ops.scav.aligned_nearest(x, panels, count, first_item, bounds, items, squared)


def aligned_survivors(
    x: list[Tensor], panels: list[Tensor], limits: Tensor, skip: Tensor, squared: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the pairs whose `aligned_bounds` are within their query's limit on every level.

    Args:
        x: (Q, S, R) for each level.
        panels: (P, S, R, LANES) for each level.
        limits: (Q,).
        skip: (Q, P · LANES) bool, true for pairs to leave out.
        squared: as in `aligned_bounds`.

    Returns:
        queries (F,), items (F,), the largest bound of each pair (F,), and the number of pairs that each level removed,
        (levels,). NaN removes no pair.
    """
    return torch.ops.scav.aligned_survivors(x, panels, limits, skip, squared)


def all_pairs_interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    chosen_x: Tensor,
    chosen_y: Tensor,
    target: int,
    squared: bool,
) -> Tensor:
    """Return mean distances (P, R) between x[chosen_x] (P,) and y[chosen_y] (R,), both resampled to `target` steps.

    If one of two sequences has `target` steps, this is their interpolated Euclidean distance, up to rounding that
    depends on the other pairs.
    """
    return torch.ops.scav.selected_interpolated_euclidean(
        x, y, x_lengths, y_lengths, chosen_x, chosen_y, target, squared
    )


def segment_means(steps: Tensor, lengths: Tensor, chosen: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """Resample steps[chosen] (B, N, D) to `target` steps, cut them into segments, and return their means (B, S, D).

    Means are scaled so that Σ_s ‖a_s − b_s‖, or Σ_s ‖a_s − b_s‖² with `squared`, between two summaries a and b is the
    mean over segments, weighted by their steps. 1 ≤ S ≤ `target`.
    """
    return torch.ops.scav.segment_means(steps, lengths, chosen, target, segments, squared)


def largest_norms(steps: Tensor, lengths: Tensor) -> Tensor:
    """Return the largest norms (B,) of the valid steps of sequences (B, N, D), inf for one that is not finite."""
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
    """Return interpolated Euclidean distances (P,) between x[pairs_x] and y[pairs_y].

    A pair's distance does not depend on the other pairs. It is inf if a partial sum exceeds its limit (P,). NaN stays
    NaN.
    """
    return torch.ops.scav.listed_interpolated_euclidean(
        x, y, x_lengths, y_lengths, pairs_x, pairs_y, limits, squared, resample
    )


def keogh_bounds(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, cost: str, band: int | None
) -> Tensor:
    """Return LB_Keogh, a lower bound of the DTW of all pairs: x (Q, N, D), y (B, M, D) -> (Q, B); on a CPU.

    It is the larger of two sums: over the steps of x, of their costs from the box of all steps of y that the band lets
    them meet; and the other way around. `cost` is "euclidean" or "sqeuclidean".
    """
    return torch.ops.scav.keogh_bounds(x, y, x_lengths, y_lengths, cost, band)


def nearest_series(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor,
    y_lengths: Tensor,
    cost: str,
    band: int | None,
    first_item: int,
    rounding: float,
    prune: bool,
    distances: Tensor,
    items: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nearest y of each x by DTW, of sequences of few features; on a CPU.

    Args:
        x: (Q, N, D).
        y: (B, M, D).
        x_lengths: (Q,) int64.
        y_lengths: (B,) int64.
        cost: "euclidean" or "sqeuclidean".
        band: as for `dtw`.
        first_item: the index of the first y.
        rounding: how far a bound may exceed a distance, as a share of it.
        prune: whether to skip pairs by `keogh_bounds`, and to leave those whose cost so far exceeds the k-th distance.
        distances: (Q, k) of the items from earlier calls, ascending.
        items: (Q, k) int64 indices of these items.

    Returns:
        distances, items (Q, k) of the earlier items and these: ascending, ties to the lower index, NaN as inf. A pair's
        distance does not depend on the other pairs. Then counts (8,) of pairs: those seen by the bound over x, by that
        over y, and in the order of bounds; those that each of the three removed; scored; abandoned.
    """
    return torch.ops.scav.nearest_series(
        x, y, x_lengths, y_lengths, cost, band, first_item, rounding, prune, distances, items
    )


def _aligned_bounds_on_cuda(x: Tensor, panels: Tensor, limits: Tensor, squared: bool) -> Tensor:
    count, steps, dim, lanes = panels.shape
    out = x.new_zeros(len(x), count * lanes)
    size = max(1, _BLOCK_NUMBERS // max(1, len(x) * lanes))
    for first in range(0, count, size):
        chunk = panels[first : first + size]
        for s in range(steps):
            y = chunk[:, s].transpose(1, 2).reshape(-1, dim)  # (items, R)
            apart = torch.cdist(x[:, s], y, compute_mode="donot_use_mm_for_euclid_dist")
            out[:, first * lanes : first * lanes + len(y)] += apart.square() if squared else apart
    return out


def _aligned_nearest_on_cuda(
    x: Tensor, panels: Tensor, count: int, first_item: int, bounds: Tensor, items: Tensor, squared: bool
) -> tuple[Tensor, Tensor]:
    bounds, items = bounds.clone(), items.clone()
    size = max(1, _BLOCK_NUMBERS // max(1, len(x) * panels.shape[3]))
    for first in range(0, len(panels), size):
        sums = aligned_bounds(x, panels[first : first + size], bounds[:, -1], squared)
        sums = sums[:, : count - first * panels.shape[3]].nan_to_num(nan=torch.inf, posinf=torch.inf)
        numbers = first_item + first * panels.shape[3] + torch.arange(sums.shape[1], device=items.device)
        # The sort is stable, and items from earlier panels come first.
        every = torch.cat([bounds, sums], 1)
        order = every.sort(dim=1, stable=True).indices[:, : bounds.shape[1]]
        bounds = every.gather(1, order)
        items = torch.cat([items, numbers.expand(len(x), -1)], 1).gather(1, order)
    return bounds, items


def _aligned_survivors_on_cuda(
    x: list[Tensor], panels: list[Tensor], limits: Tensor, skip: Tensor, squared: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    remaining = ~skip
    bounds = limits.new_full(skip.shape, -torch.inf)
    removed = []
    for means_x, means_y in zip(x, panels, strict=True):
        sums = aligned_bounds(means_x, means_y, limits, squared)
        above = remaining & (sums > limits[:, None])
        removed.append(above.sum())
        remaining &= ~above
        bounds = torch.fmax(bounds, sums)
    rows, places = remaining.nonzero(as_tuple=True)
    return rows, places, bounds[rows, places], torch.stack(removed)


def _all_pairs_on_cuda(
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
    # One segment per step.
    means_x = target * segment_means(x, lengths, chosen_x, target, target, False)
    out = means_x.new_empty(len(chosen_x), len(chosen_y))
    size = max(1, _BLOCK_NUMBERS // y[0].numel())
    for first in range(0, len(chosen_y), size):
        chosen = chosen_y[first : first + size]
        out[:, first : first + size] = METRICS["interpolated_euclidean"].all_pairs(
            means_x,
            # In the accumulation dtype, as in `_listed_on_cuda`.
            y[chosen].to(means_x.dtype),
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
    size = max(1, _BLOCK_NUMBERS // max(1, steps.shape[1] * steps.shape[2]))
    for first in range(0, len(steps), size):
        chunk = steps[first : first + size].to(out.dtype)
        valid = places < lengths[first : first + size, None]
        norms = chunk.square().sum(2).sqrt().nan_to_num(nan=torch.inf).masked_fill(~valid, 0)
        out[first : first + size] = norms.amax(1)
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
    size = max(1, _BLOCK_NUMBERS // (x[0].numel() + y[0].numel()))
    for first in range(0, len(out), size):
        i, j = pairs_x[first : first + size], pairs_y[first : first + size]
        # In its inputs' dtype, the kernel would round resampled steps, for which bounds have no allowance.
        out[first : first + size] = METRICS["interpolated_euclidean"].paired(
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
torch.library.impl("scav::selected_interpolated_euclidean", "CUDA", _all_pairs_on_cuda)
torch.library.impl("scav::segment_means", "CUDA", _segment_means_on_cuda)
torch.library.impl("scav::largest_norms", "CUDA", _largest_norms_on_cuda)
torch.library.impl("scav::listed_interpolated_euclidean", "CUDA", _listed_on_cuda)
