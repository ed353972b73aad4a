"""Interpolated cosine distance: one sequence is resampled to the other's length, then steps are compared in turn."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops import cosine_products
from scav_kernels.ops.checks import check_options, check_tensors, declare_options
from scav_kernels.ops.define import GRADIENTS, NEEDS, SEQUENCES, define_op
from scav_kernels.ops.interpolated_euclidean import is_symmetric
from scav_kernels.ops.registry import METRICS, Metric

define_op(
    "interpolated_cosine",
    f"({SEQUENCES}, str resample, str mode, bool paired) -> Tensor",
    f"(Tensor grad, {SEQUENCES}, str resample, str mode, bool paired, {NEEDS}) -> {GRADIENTS}",
)


@declare_options
def interpolated_cosine(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    resample: str = "x",
    mode: str = "linear",
) -> Tensor:
    """Mean cosine distance of aligned steps, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2), each in [0, 2].

    For a pair of n and m valid steps, x is resampled to m steps over its valid steps, giving x̃ (m, D). The distance is

        1 − mean_t cos(x̃[t], y[t]), t = 0 … m−1.

    x̃ is resampled from the steps as they are, not from unit steps. A step of a norm below 1e-8 is divided by 1e-8
    and has no gradient, as ``cost="cosine"`` does it.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        resample: "x" (x to y's length), "y" (y to x's), or "shorter" (pair by pair, whichever is shorter).
        mode: "linear" interpolates as ``torch.nn.functional.interpolate(mode="linear", align_corners=False)`` does;
            "nearest" picks the steps that its ``mode="nearest"`` picks.

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, resample=resample, mode=mode)


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("interpolated_cosine", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    resample, mode = check_options("interpolated_cosine", **options)
    return torch.ops.scav.interpolated_cosine(x, y, x_lengths, y_lengths, resample, mode, paired)


def _check(
    op: str,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    resample: str,
    mode: str,
    paired: bool,
) -> None:
    torch.ops.scav.check_pairs(op, x, y, x_lengths, y_lengths, paired)
    if resample not in ("x", "y", "shorter"):
        raise ValueError(f"{op}: expected resample 'x', 'y' or 'shorter', got {resample!r}")
    if mode not in ("linear", "nearest"):
        raise ValueError(f"{op}: expected mode 'linear' or 'nearest', got {mode!r}")


@torch.library.impl("scav::interpolated_cosine", "CUDA")
def _on_cuda(x: Tensor, y: Tensor, *rest: Any) -> Tensor:
    _check("interpolated_cosine", x, y, *rest)
    return cosine_products.forward(x, y, *rest)


@torch.library.impl("scav::interpolated_cosine_backward", "CUDA")
def _backward_on_cuda(grad: Tensor, x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    op = "interpolated_cosine_backward"
    _check(op, x, y, *rest[:5])
    shape = x.shape[:1] if rest[4] else (len(x), len(y))
    if grad.shape != shape:
        raise ValueError(f"{op}: expected grad of the result's shape {tuple(shape)}, got {tuple(grad.shape)}")
    if not grad.is_floating_point():
        raise TypeError(f"{op}: expected grad of dtype {accumulation_dtype(x)}, got {grad.dtype}")
    return cosine_products.backward(grad, x, y, *rest)


METRICS["interpolated_cosine"] = Metric(interpolated_cosine, partial(_distance, paired=True), is_symmetric=is_symmetric)
