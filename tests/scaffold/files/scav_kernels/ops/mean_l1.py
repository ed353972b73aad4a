"""The mean L1 distance of steps."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.checks import check_options, check_tensors, declare_options
from scav_kernels.ops.define import GRADIENTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.registry import METRICS, Metric

define_op(
    "mean_l1",
    f"({SEQUENCES}, float weight, bool paired) -> Tensor",
    f"(Tensor grad, {SEQUENCES}, float weight, bool paired, {NEEDS}) -> {GRADIENTS}",
)
refuse_missing_cuda("mean_l1")


@declare_options
def mean_l1(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    weight: float = 1.0,
) -> Tensor:
    """Mean L1 distance of the steps that both sequences have, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps: weight · mean_t ‖x_t − y_t‖₁, t < min(n, m).
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, weight=weight)


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("mean_l1", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    (weight,) = check_options("mean_l1", **options)
    return torch.ops.scav.mean_l1(x, y, x_lengths, y_lengths, weight, paired)


METRICS["mean_l1"] = Metric(mean_l1, partial(_distance, paired=True))
