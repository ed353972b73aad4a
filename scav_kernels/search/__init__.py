"""Exact search for nearest sequences: shared parts, and one file for each metric that brings bounds or its rounding.

`topk` is the public function. docs/engineering/retrieval.md proves the bounds.
"""

# Each registers the search of its metrics, which `scav_kernels` has loaded before.
from scav_kernels.search import chamfer, dtw, interpolated_euclidean, sinkhorn, soft_dtw  # noqa: F401
