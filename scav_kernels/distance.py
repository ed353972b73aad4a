"""Distances by name."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Unpack, overload

import torch
from torch import Tensor

from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.convergence import Convergence
from scav_kernels.ops.registry import find_metric


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
    metric: Literal["sinkhorn"],
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
    a pair: "dtw", "soft_dtw" and its divergence, "chamfer" with ``direction="both"``, and the interpolated distances
    where nothing is resampled or ``resample="shorter"``. Those of Sinkhorn, whose iterations begin on one side, are
    not.

    ``metric`` is the name of a distance of this package ("interpolated_euclidean", "interpolated_cosine", "dtw",
    "soft_dtw", "sinkhorn", "chamfer") and ``options`` are that function's keyword arguments:
    ``cdist(x, y, metric="dtw", band=5)`` is ``dtw(x, y, band=5)``. The default ``cost`` of "soft_dtw" and
    "soft_dtw_divergence" is "sqeuclidean"; that of "dtw", "sinkhorn", "sinkhorn_divergence" and "chamfer" is
    "euclidean".
    """
    found = find_metric(metric, options)
    if y is not None:
        return found.all_pairs(x, y, x_lengths, y_lengths, **options)
    if y_lengths is not None:
        raise ValueError("cdist: expected no y_lengths without y; x_lengths are those of both sides")
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
    metric: Literal["sinkhorn"],
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
