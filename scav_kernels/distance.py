"""Distances by name."""

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.convergence import Convergence
from scav_kernels.ops.registry import find_metric


@overload
def cdist(
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
def cdist(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: Literal["sinkhorn"],
    return_convergence: Literal[True],
    **options: Unpack[MetricOptions],
) -> tuple[Tensor, Convergence]: ...


def cdist(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: str = "interpolated_euclidean",
    **options: Any,
) -> Tensor | tuple[Tensor, Convergence]:
    """Distances of all pairs, like ``torch.cdist``, between sequences: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    ``metric`` is the name of a distance of this package ("interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn") and
    ``options`` are that function's keyword arguments: ``cdist(x, y, metric="dtw", band=5)`` is ``dtw(x, y, band=5)``.
    The default ``cost`` of "soft_dtw" and "soft_dtw_divergence" is "sqeuclidean"; that of "dtw", "sinkhorn" and
    "sinkhorn_divergence" is "euclidean".
    """
    return find_metric(metric, options).all_pairs(x, y, x_lengths, y_lengths, **options)


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
