"""Upper limits of the rounding of distances and bounds; docs/engineering/retrieval.md derives the constants.

Factors are relative to `reach`, the largest norm of a query's valid steps plus that of an item's. No difference between
their steps, means or projections is longer.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def unit_roundoff(values: Tensor) -> float:
    """Return the unit roundoff of the products that the kernels compute from tensors like this one."""
    if values.dtype == torch.float64:
        return 2.0**-53
    if values.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return 2.0**-9
    return 2.0**-24


def bfloat16_rounding(values: Tensor) -> float:
    """Return the relative change of rows that products round to bfloat16, or 0 if the user does not allow that."""
    products: str = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    allowed = products == "bf16" or torch.get_float32_matmul_precision() == "medium"
    return 2.0**-8 if allowed and values.dtype == torch.float32 else 0.0


def summary_rounding(values: Tensor, steps: int) -> float:
    """Return the factor for a sum of distances of means, or for an interpolated Euclidean distance.

    These are means over steps, projections and norms over features, and sums over steps, each counted twice.
    """
    return 4 * (values.shape[2] + 2 * steps + 64) * unit_roundoff(values)


def cost_rounding(values: Tensor) -> float:
    """Return the factor for one ground cost ‖x_s − y_t‖.

    Kernels compute it from ‖x_s‖² + ‖y_t‖² − 2⟨x_s, y_t⟩ if that is at least 1/256 of the first two terms, and from
    differences otherwise.
    """
    return 32 * (values.shape[2] + 64) * unit_roundoff(values) + 2 * bfloat16_rounding(values)


def sum_rounding(values: Tensor, steps: int) -> float:
    """Return by how large a share of itself a sum of costs from boxes may exceed that of costs along a path.

    Both are of differences, and a cost from a box rounds to no more than a cost. So only the sums, each over at most
    `steps` costs, differ; counted twice.
    """
    return 4 * (steps + values.shape[2] + 8) * unit_roundoff(values)


class PairScale(NamedTuple):
    """The numbers that bound the rounding of pairs' distances; tensors have one shape.

    Attributes:
        cost: the largest ground cost that a pair can have.
        cell: how far rounding can move one ground cost.
        steps: int64 steps of both sequences, n + m.
        unit: `unit_roundoff`.
    """

    cost: Tensor
    cell: Tensor
    steps: Tensor
    unit: float


def path_rounding(scale: PairScale, smoothing: float = 0.0) -> Tensor:
    """Return the rounding of a sum of costs along a path of at most n + m cells, by soft minima of this `smoothing`."""
    return scale.steps * (scale.cell + 8 * scale.unit * scale.steps * (scale.cost + 2 * smoothing))
