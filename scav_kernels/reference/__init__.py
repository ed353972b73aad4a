"""Slow, obvious versions of every distance, in plain PyTorch with plain autograd: what the kernels are tested against.

Same arguments as the public functions, those of sequences plus `paired`: where it is true, x[i] is compared with y[i]
alone and the result is (B,) instead of (B1, B2). Float64 is computed in float64, everything else in float32. Arguments
are not checked.
"""

from scav_kernels.reference.chamfer import chamfer
from scav_kernels.reference.dtw import dtw, dtw_from_cost
from scav_kernels.reference.interpolated_cosine import interpolated_cosine
from scav_kernels.reference.interpolated_euclidean import interpolated_euclidean
from scav_kernels.reference.sinkhorn import sinkhorn, sinkhorn_divergence, sinkhorn_from_cost
from scav_kernels.reference.soft_dtw import soft_dtw, soft_dtw_divergence, soft_dtw_from_cost

__all__ = [
    "chamfer",
    "dtw",
    "dtw_from_cost",
    "interpolated_cosine",
    "interpolated_euclidean",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "soft_dtw",
    "soft_dtw_divergence",
    "soft_dtw_from_cost",
]
