"""Exact nearest neighbours among sequences: lower bounds, the cascade that they form, and what it reports.

`scav_kernels.topk` is the way in; docs/engineering/retrieval.md has the proofs.
"""

# Each registers the search of its metrics, which `scav_kernels` has loaded before.
from scav_kernels.search import dtw, interpolated_euclidean, sinkhorn, soft_dtw  # noqa: F401
