"""Distances by name."""

from typing import Any

from torch import Tensor

from scav_kernels.ops.registry import find_metric


def cdist(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: str = "interpolated_euclidean",
    **options: Any,
) -> Tensor:
    """Distances of all pairs, like ``torch.cdist``, between sequences: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    ``metric`` is the name of a distance of this package ("interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn") and
    ``options`` are that function's keyword arguments: ``cdist(x, y, metric="dtw", band=5)`` is ``dtw(x, y, band=5)``.
    The default ``cost`` of "soft_dtw" and "soft_dtw_divergence" is "sqeuclidean"; that of "dtw", "sinkhorn" and
    "sinkhorn_divergence" is "euclidean".
    """
    return find_metric(metric, options).all_pairs(x, y, x_lengths, y_lengths, **options)


def pairwise_distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    metric: str = "interpolated_euclidean",
    **options: Any,
) -> Tensor:
    """Distances of pairs, like ``torch.nn.functional.pairwise_distance``: x (B, N, D), y (B, M, D) -> (B,).

    Entry i is the distance of x[i] from y[i], the diagonal of ``cdist``; ``metric`` and ``options`` as there.
    """
    return find_metric(metric, options).paired(x, y, x_lengths, y_lengths, **options)
