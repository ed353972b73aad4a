"""Distances by name."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, overload

import torch
from torch import Tensor

from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.convergence import Convergence
from scav_kernels.ops.registry import find_alignment, find_metric


@overload
def cdist(
    x: Tensor,
    y: Tensor | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: MetricName = ...,
    return_convergence: Literal[False] = ...,
    **options: Unpack[MetricOptions],
) -> Tensor: ...


@overload
def cdist(
    x: Tensor,
    y: Tensor | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: Literal["sinkhorn", "sinkhorn_divergence"],
    return_convergence: Literal[True],
    **options: Unpack[MetricOptions],
) -> tuple[Tensor, Convergence]: ...


def cdist(
    x: Tensor,
    y: Tensor | None = None,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: str = "interpolated_euclidean",
    **options: Any,
) -> Tensor | tuple[Tensor, Convergence]:
    """Distances of all pairs, like ``torch.cdist``, between sequences: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    Without y, x is compared with itself, (B1, B1). A distance that is the same in both directions is then computed once
    a pair: "dtw" (unless ``normalize="path"``), "soft_dtw" and its divergence, all of them with closed ends; "chamfer"
    with ``direction="both"``; and the interpolated distances where nothing is resampled or ``resample="shorter"``.
    Sinkhorn is computed in both directions, because its iterations begin on one side.

    ``metric`` is the name of a distance of this package ("interpolated_euclidean", "interpolated_cosine", "dtw",
    "soft_dtw", "soft_dtw_divergence", "sinkhorn", "sinkhorn_divergence", "chamfer") and ``options`` are that function's
    keyword arguments: ``cdist(x, y, metric="dtw", band=5)`` is ``dtw(x, y, band=5)``. The default ``cost`` of
    "soft_dtw" and "soft_dtw_divergence" is "sqeuclidean"; that of "dtw", "sinkhorn", "sinkhorn_divergence" and
    "chamfer" is "euclidean".
    """
    found = find_metric(metric, options)
    if y is not None:
        return found.all_pairs(x, y, x_lengths, y_lengths, **options)
    for what, given in (("lengths", y_lengths), ("weights", options.get("y_weights"))):
        if given is not None:
            raise ValueError(f"cdist: expected no y_{what} without y; x_{what} are those of both sides")
    if "x_weights" in options:
        options["y_weights"] = options["x_weights"]
    if isinstance(x, Tensor) and x.dim() == 3 and found.is_symmetric(x_lengths, options):
        try:
            return _with_itself(partial(found.all_pairs, **options), x, x_lengths)
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError):
            pass  # the whole batch fails below, with an error that counts its sequences from the first
    return found.all_pairs(x, x, x_lengths, x_lengths, **options)


# Smaller batches are computed whole: calls take longer than the pairs that they save.
_SMALLEST_HALVES = 16
# Halved three times, 9 in 16 of the pairs are computed.
_DEEPEST = 3


def _with_itself(distance: Callable[..., Tensor], x: Tensor, lengths: Tensor | None, depth: int = 0) -> Tensor:
    """Return a symmetric distance within x (B, N, D): both halves within themselves, and one from the other."""
    if depth == _DEEPEST or len(x) < 2 * _SMALLEST_HALVES:
        return distance(x, x, lengths, lengths)
    half = len(x) // 2
    ranges = slice(half), slice(half, None)
    (x0, x1), (l0, l1) = (x[r] for r in ranges), (None if lengths is None else lengths[r] for r in ranges)
    across = distance(x0, x1, l0, l1)
    within0, within1 = _with_itself(distance, x0, l0, depth + 1), _with_itself(distance, x1, l1, depth + 1)
    return torch.cat([torch.cat([within0, across], 1), torch.cat([across.T, within1], 1)])


@overload
def pairwise_distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: MetricName = ...,
    return_convergence: Literal[False] = ...,
    **options: Unpack[MetricOptions],
) -> Tensor: ...


@overload
def pairwise_distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: Literal["sinkhorn", "sinkhorn_divergence"],
    return_convergence: Literal[True],
    **options: Unpack[MetricOptions],
) -> tuple[Tensor, Convergence]: ...


def pairwise_distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: str = "interpolated_euclidean",
    **options: Any,
) -> Tensor | tuple[Tensor, Convergence]:
    """Distances of pairs, like ``torch.nn.functional.pairwise_distance``: x (B, N, D), y (B, M, D) -> (B,).

    Entry i is the distance of x[i] from y[i], the diagonal of ``cdist``; ``metric`` and ``options`` as there.
    """
    return find_metric(metric, options).paired(x, y, x_lengths, y_lengths, **options)


class Alignment(NamedTuple):
    """Distances of pairs, and which step of x each aligns with which step of y, as `alignment` returns them."""

    distance: Tensor
    """(B,): what `pairwise_distance` returns."""
    weights: Tensor
    """(B, N, M): entry [i, s, t] is how much step s of x[i] and step t of y[i] belong together: 1 on a path of DTW, and
    the derivative of soft-DTW and Sinkhorn in their cost. 0 beyond the lengths."""


def alignment(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: MetricName = "dtw",
    **options: Unpack[MetricOptions],
) -> Alignment:
    """Distances of pairs and their alignments: x (B, N, D), y (B, M, D) -> distance (B,), weights (B, N, M).

    The weights of a pair depend on ``metric``:

    - "dtw": 1 on the optimal path, 0 elsewhere, as ``dtw_path`` lists its cells;
    - "soft_dtw": the probability that a path leads through the two steps, as ``soft_dtw_alignment``;
    - "sinkhorn": the mass that moves from one step to the other, out of 1, as ``sinkhorn_plan``.

    No gradient flows through the results: differentiate ``pairwise_distance``. Beyond the results, memory holds the
    costs and weights of one pair, or of as many as fit in 64 MiB.

    Args:
        x: (B, N, D), float32, float64, bfloat16 or float16.
        y: (B, M, D), like x.
        x_lengths: (B,) int64 valid steps, 1 ≤ length ≤ N; None: all.
        y_lengths: (B,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        metric: the name of a distance that has an alignment.
        **options: that function's keyword arguments.

    Returns:
        ``Alignment(distance, weights)``, float64 for float64 inputs and float32 for all others. Where a distance is
        NaN, so are the weights of its pair; where it is infinite, they are 0.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range, and for a metric
            that has no alignment.
    """
    method = find_alignment(metric, options)
    with torch.no_grad():
        return Alignment(*method.align(x, y, x_lengths, y_lengths, **options))
