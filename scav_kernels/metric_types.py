"""Names and options of the metrics of `cdist`, `pairwise_distance`, `topk` and `nn`, for type checkers.

At run time every metric in `scav_kernels.ops.registry.METRICS` is accepted, whether it is listed here or not.
"""

from typing import Literal, TypedDict

MetricName = Literal[
    "interpolated_euclidean",
    "interpolated_cosine",
    "dtw",
    "soft_dtw",
    "soft_dtw_divergence",
    "sinkhorn",
    "sinkhorn_divergence",
    "chamfer",
]


class MetricOptions(TypedDict, total=False):
    """Options of all metrics. Each metric takes some of them: the keyword arguments of the function of its name."""

    band: int | None
    cost: str
    direction: str
    epsilon: float
    gamma: float
    max_iterations: int
    mode: str
    resample: str
    squared: bool
    tolerance: float
