"""Names and options of the metrics of `cdist`, `pairwise_distance`, `topk` and `nn`, for type checkers.

At run time every metric in `scav_kernels.ops.registry.METRICS` is accepted, whether it is listed here or not.
"""

from typing import Literal, TypedDict

from torch import Tensor

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
    diagonal_weight: float
    direction: str
    epsilon: float
    gamma: float
    max_iterations: int
    mode: str
    normalize: str | None
    open_begin: bool
    open_end: bool
    resample: str
    scaling: float | None
    squared: bool
    step_penalty: float
    tolerance: float
    x_weights: Tensor | None
    y_weights: Tensor | None
