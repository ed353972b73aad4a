"""The CUDA kernels as a function of CPU tensors, which the interpreter takes, with their gradient."""

from collections.abc import Callable
from typing import Any

import torch
from ops.cases import OPS, Case
from torch import Tensor

from scav_kernels._triton import interpolated_euclidean as kernels

CASES = [case for case in OPS if case.metric == "interpolated_euclidean"]


class Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, squared, resample, paired = args
        ctx.save_for_backward(*tensors)
        ctx.options = squared, resample, paired
        return kernels.forward(*args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        need_x, need_y, *_ = ctx.needs_input_grad
        dx, dy = kernels.backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
        return dx if need_x else None, dy if need_y else None, *[None] * 5


def interpreted(case: Case) -> Callable[..., Tensor]:
    options = case.all_options()

    def distance(
        x: Tensor, y: Tensor, xl: Tensor | None = None, yl: Tensor | None = None, *, paired: bool = False
    ) -> Tensor:
        return Distance.apply(x, y, xl, yl, options["squared"], options["resample"], paired)

    return distance
