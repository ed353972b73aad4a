"""Interpolated Euclidean distance: one sequence is resampled to the other's length, then steps are compared in turn."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.checks import check_options, check_tensors, declare_options
from scav_kernels.ops.define import GRADIENTS, NEEDS, SEQUENCES, define_op
from scav_kernels.ops.registry import METRICS, Metric

define_op(
    "interpolated_euclidean",
    f"({SEQUENCES}, bool squared, str resample, bool paired) -> Tensor",
    f"(Tensor grad, {SEQUENCES}, bool squared, str resample, bool paired, {NEEDS}) -> {GRADIENTS}",
)


@declare_options
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
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("interpolated_euclidean", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    squared, resample = check_options("interpolated_euclidean", **options)
    return torch.ops.scav.interpolated_euclidean(x, y, x_lengths, y_lengths, squared, resample, paired)


def is_symmetric(lengths: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return True if neither or always the same of two sequences is resampled, whichever comes first."""
    return lengths is None or options.get("resample") == "shorter"


METRICS["interpolated_euclidean"] = Metric(
    interpolated_euclidean, partial(_distance, paired=True), is_symmetric=is_symmetric
)


def _triton() -> Any:
    """Return the launcher of the CUDA kernels, which the first CUDA tensor loads."""
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
