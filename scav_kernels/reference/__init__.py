"""Slow, obvious versions of every distance, in plain PyTorch with plain autograd: what the kernels are tested against.

Same arguments as the public functions, those of sequences plus `paired`: where it is true, x[i] is compared with y[i]
alone and the result is (B,) instead of (B1, B2). Float64 is computed in float64, everything else in float32. Arguments
are not checked.
"""

from scav_kernels.reference.dtw import dtw
from scav_kernels.reference.dtw_from_cost import dtw_from_cost
from scav_kernels.reference.interpolated_euclidean import interpolated_euclidean
from scav_kernels.reference.sinkhorn import sinkhorn
from scav_kernels.reference.sinkhorn_divergence import sinkhorn_divergence
from scav_kernels.reference.sinkhorn_from_cost import sinkhorn_from_cost
from scav_kernels.reference.soft_dtw import soft_dtw
from scav_kernels.reference.soft_dtw_divergence import soft_dtw_divergence
from scav_kernels.reference.soft_dtw_from_cost import soft_dtw_from_cost

__all__ = [
    "dtw",
    "dtw_from_cost",
    "interpolated_euclidean",
    "sinkhorn",
    "sinkhorn_divergence",
    "sinkhorn_from_cost",
    "soft_dtw",
    "soft_dtw_divergence",
    "soft_dtw_from_cost",
]
