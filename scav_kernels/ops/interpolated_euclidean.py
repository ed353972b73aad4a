"""Interpolated Euclidean distance: one sequence is resampled to the other's length, then steps are compared in turn."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    check_options,
    check_tensors,
    new_gradients,
    new_result,
    promote_under_autocast,
    register_fake,
)
from scav_kernels.ops.registry import METRICS, Metric

torch.library.define(
    "scav::interpolated_euclidean",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool squared, str resample, bool paired) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::interpolated_euclidean_backward",
    "(Tensor grad, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, bool squared, str resample, bool paired, "
    "bool need_x, bool need_y) -> (Tensor dx, Tensor dy)",
    tags=torch.Tag.pt2_compliant_tag,
)


def interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    squared: bool = False,
    resample: str = "x",
) -> Tensor:
    """Mean Euclidean distance of aligned steps, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps, x is resampled to m steps by linear interpolation over its valid steps, as
    ``torch.nn.functional.interpolate(mode="linear", align_corners=False)`` does, giving x̃ (m, D). The distance is

        mean_t ‖x̃[t] − y[t]‖₂, t = 0 … m−1, in the features' unit.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        squared: mean_t ‖x̃[t] − y[t]‖₂² instead.
        resample: "x" (x to y's length), "y" (y to x's), or "shorter" (pair by pair, whichever is shorter).

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Tsiamas et al., "Sequential Contrastive Audio-Visual Learning", arXiv 2407.05782.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, squared=squared, resample=resample)


def _distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    squared: bool = False,
    resample: str = "x",
) -> Tensor:
    check_tensors("interpolated_euclidean", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("interpolated_euclidean", squared=squared, resample=resample)
    return torch.ops.scav.interpolated_euclidean(x, y, x_lengths, y_lengths, squared, resample, paired)


METRICS["interpolated_euclidean"] = Metric(interpolated_euclidean, partial(_distance, paired=True))


@register_fake("scav::interpolated_euclidean")
def _fake(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    squared: bool,
    resample: str,
    paired: bool,
) -> Tensor:
    return new_result(x, y, paired)


@register_fake("scav::interpolated_euclidean_backward")
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    squared: bool,
    resample: str,
    paired: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    return new_gradients(x, y, need_x, need_y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, squared, resample, paired = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = squared, resample, paired


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    need_x, need_y, *_ = ctx.needs_input_grad
    dx, dy = torch.ops.scav.interpolated_euclidean_backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
    return dx if need_x else None, dy if need_y else None, None, None, None, None, None


register_autograd("scav::interpolated_euclidean", _backward, setup_context=_setup_context)
promote_under_autocast("scav::interpolated_euclidean")
refuse_double_backward("scav::interpolated_euclidean_backward")
register_batching("scav::interpolated_euclidean", "scav::interpolated_euclidean_backward")


def _triton() -> Any:
    """The kernels for CUDA tensors, loaded by the first."""
    try:
        from scav_kernels._triton import interpolated_euclidean as kernels
    except ImportError as error:
        raise RuntimeError(
            f"interpolated_euclidean: its CUDA kernels need Triton, which cannot be imported ({error}); "
            "pip install triton, or move the inputs to the CPU"
        ) from error
    return kernels


def _check(
    op: str, x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, resample: str, paired: bool
) -> None:
    torch.ops.scav.check_pairs(op, x, y, x_lengths, y_lengths, paired)
    if resample not in ("x", "y", "shorter"):
        raise ValueError(f"{op}: expected resample 'x', 'y' or 'shorter', got {resample!r}")


@torch.library.impl("scav::interpolated_euclidean", "CUDA")
def _on_cuda(x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *options: Any) -> Tensor:
    _check("interpolated_euclidean", x, y, x_lengths, y_lengths, *options[1:])
    with torch.cuda.device_of(x):
        return _triton().forward(x, y, x_lengths, y_lengths, *options)


@torch.library.impl("scav::interpolated_euclidean_backward", "CUDA")
def _backward_on_cuda(
    grad: Tensor, x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    op = "interpolated_euclidean_backward"
    _check(op, x, y, x_lengths, y_lengths, *options[1:3])
    shape = x.shape[:1] if options[2] else (len(x), len(y))
    if grad.shape != shape:
        raise ValueError(f"{op}: expected grad of the result's shape {tuple(shape)}, got {tuple(grad.shape)}")
    if not grad.is_floating_point():
        raise TypeError(f"{op}: expected grad of dtype {accumulation_dtype(x)}, got {grad.dtype}")
    with torch.cuda.device_of(x):
        return _triton().backward(grad, x, y, x_lengths, y_lengths, *options)
