"""All-pairs distances between batches of sequences: fused, memory-tiled, differentiable.

A batch of sequences is a padded tensor (B, steps, D) and an optional int64 tensor of B lengths; what lies beyond a
length changes neither a result nor a gradient.
"""

import warnings  # noqa: I001  (the next line loads the kernels before anything uses them)
from typing import Any

from scav_kernels import ops  # noqa: F401
from scav_kernels import nn, plot
from scav_kernels._extension import build_info
from scav_kernels._version import __version__
from scav_kernels.distance import Alignment, alignment, cdist, pairwise_distance
from scav_kernels.ops.chamfer import chamfer
from scav_kernels.ops.convergence import Convergence
from scav_kernels.ops.dtw import dtw, dtw_from_cost, dtw_path
from scav_kernels.ops.interpolated_cosine import interpolated_cosine
from scav_kernels.ops.interpolated_euclidean import interpolated_euclidean
from scav_kernels.ops.sinkhorn import sinkhorn, sinkhorn_divergence, sinkhorn_from_cost, sinkhorn_plan
from scav_kernels.ops.soft_dtw import soft_dtw, soft_dtw_alignment, soft_dtw_divergence, soft_dtw_from_cost
from scav_kernels.padding import pad
from scav_kernels.search.topk import topk
from scav_kernels.search.index import Reader, SearchIndex, Summaries, summarize
from scav_kernels.search.report import SearchReport

__all__ = [
    "Alignment",
    "Convergence",
    "Reader",
    "SearchIndex",
    "SearchReport",
    "Summaries",
    "__version__",
    "alignment",
    "build_info",
    "cdist",
    "chamfer",
    "dtw",
    "dtw_from_cost",
    "dtw_path",
    "interpolated_cosine",
    "interpolated_euclidean",
    "nn",
    "pad",
    "pairwise_distance",
    "plot",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "sinkhorn_plan",
    "soft_dtw",
    "soft_dtw_alignment",
    "soft_dtw_divergence",
    "soft_dtw_from_cost",
    "summarize",
    "topk",
]

_OLD_NAMES = {"summarise": "summarize"}


def __getattr__(name: str) -> Any:
    """Return a function by its old name, with a warning."""
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = _OLD_NAMES[name]
    warnings.warn(f"{__name__}.{name} is now {__name__}.{new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
