"""How far rounding can move what a search compares; docs/engineering/retrieval.md derives the constants.

Each is a multiple of `reach`, the largest norm of a query's valid step plus that of an item's, which no difference of
steps, means or projections of the two exceeds.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def unit_roundoff(values: Tensor) -> float:
    """Of the products that the kernels form from tensors like this one."""
    if values.dtype == torch.float64:
        return 2.0**-53
    if values.device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return 2.0**-9
    return 2.0**-24


def rounded_rows(values: Tensor) -> float:
    """What rounding rows to bfloat16 before they are multiplied, where the user allows it, may change of them."""
    products: str = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    allowed = products == "bf16" or torch.get_float32_matmul_precision() == "medium"
    return 2.0**-8 if allowed and values.dtype == torch.float32 else 0.0


def of_summaries(values: Tensor, steps: int) -> float:
    """Of a sum of distances of means, or of an interpolated Euclidean distance: means over steps, projections and
    norms over features, sums over steps; each of these, twice."""
    return 4 * (values.shape[2] + 2 * steps + 64) * unit_roundoff(values)


def of_cells(values: Tensor) -> float:
    """Of one ground cost ‖x_s − y_t‖ that comes from ‖x_s‖² + ‖y_t‖² − 2⟨x_s, y_t⟩ where that is at least 1/256 of the
    first two, and from differences elsewhere."""
    return 32 * (values.shape[2] + 64) * unit_roundoff(values) + 2 * rounded_rows(values)


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


def of_path(scale: PairScale, smoothing: float = 0.0) -> Tensor:
    """Of a sum of ground costs along a path of at most n + m cells, by minima or soft minima of this `smoothing`."""
    return scale.steps * (scale.cell + 8 * scale.unit * scale.steps * (scale.cost + 2 * smoothing))
