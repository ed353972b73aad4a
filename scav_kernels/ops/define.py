"""Define an op: from its schema and that of its gradient follow its fakes, its derivative and its batching rule."""

from collections.abc import Callable
from typing import NoReturn

import torch
from torch import Tensor

from scav_kernels._extension import build_info, why_no_cuda
from scav_kernels.ops.autograd import refuse_double_backward, register_gradient
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.fakes import Arguments, register_fakes
from scav_kernels.ops.library import LIBRARY, find_op

# Every schema begins with sequences, or with the costs of their steps.
SEQUENCES = "Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths"
COSTS = "Tensor cost, Tensor? x_lengths, Tensor? y_lengths"
# The schema of a gradient of sequences ends with NEEDS and returns GRADIENTS.
NEEDS = "bool need_x, bool need_y"
GRADIENTS = "(Tensor dx, Tensor dy)"


def define_op(
    name: str,
    schema: str,
    backward: str,
    saved_results: Callable[[Tensor, Arguments], tuple[Tensor, ...]] | None = None,
) -> None:
    """Define the ops `scav::<name>` and `scav::<name>_backward`, whose kernels are registered elsewhere.

    The schemas have no defaults. Names say what an argument is: see `fakes`, `autograd` and `batching`.

    Args:
        name: of the op, e.g. "dtw".
        schema: of the op, which returns distances, and after them the results that its gradient needs.
        backward: the schema of its gradient.
        saved_results: the fakes of the results after the distances, from the fake of the distances and the arguments.
    """
    for op, of_op in ((name, schema), (f"{name}_backward", backward)):
        torch.library.define(f"scav::{op}", of_op, tags=torch.Tag.pt2_compliant_tag)
    register_fakes(name, saved_results)
    register_gradient(name)
    refuse_double_backward(f"{name}_backward")
    if schema.startswith(f"({SEQUENCES}"):
        _promote_under_autocast(name)
    register_batching(name, f"{name}_backward")


def _promote_under_autocast(name: str) -> None:
    """Within `torch.autocast`, convert x and y of two dtypes, as modules return them there, to the wider one."""

    def promoted(x: Tensor, y: Tensor, *rest: object) -> object:
        if x.is_floating_point() and y.is_floating_point():
            dtype = torch.promote_types(x.dtype, y.dtype)
            x, y = x.to(dtype), y.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            return find_op(name)(x, y, *rest)

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(f"scav::{name}", promoted, f"Autocast{device}")


def refuse_missing_cuda(*names: str) -> None:
    """Make ops and their gradients raise an error for CUDA tensors if there are no CUDA kernels.

    The error says why there are none and how to get them.
    """
    if build_info()["cuda_version"] is not None:
        return
    for op in (f"scav::{name}{suffix}" for name in names for suffix in ("", "_backward")):

        def refuse(*args: object, op: str = op, **kwargs: object) -> NoReturn:
            raise RuntimeError(
                f"{op}: there are no CUDA kernels of scav_kernels: {why_no_cuda}; or move the inputs to the CPU"
            )

        torch.library.impl(op, "CUDA", refuse)
