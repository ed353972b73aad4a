"""Dynamic time warping."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.autograd import refuse_double_backward, register_autograd
from scav_kernels.ops.batching import register_batching
from scav_kernels.ops.common import (
    check_options,
    check_pair,
    check_tensors,
    new_gradients,
    new_result,
    promote_under_autocast,
    refuse_missing_cuda,
    register_fake,
)
from scav_kernels.ops.registry import METRICS, Metric

# `path` (B1, B2, N + M) uint8, empty unless save_path: the steps of an optimal path from its end to its start,
# 0 for (s-1, t-1), 1 for s-1, 2 for t-1, then 3.
torch.library.define(
    "scav::dtw",
    "(Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, str cost, int? band, bool paired, bool save_path) "
    "-> (Tensor out, Tensor path)",
    tags=torch.Tag.pt2_compliant_tag,
)
torch.library.define(
    "scav::dtw_backward",
    "(Tensor grad, Tensor x, Tensor y, Tensor? x_lengths, Tensor? y_lengths, Tensor out, Tensor path, str cost, "
    "bool paired, bool need_x, bool need_y) -> (Tensor dx, Tensor dy)",
    tags=torch.Tag.pt2_compliant_tag,
)


def dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    cost: str = "euclidean",
    band: int | None = None,
) -> Tensor:
    """Dynamic time warping, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m), 0 ≤ s < n, 0 ≤ t < m,

        r[s, t] = c[s, t] + min(r[s−1, t−1], r[s−1, t], r[s, t−1]),   r[0, 0] = c[0, 0],

    and the distance is r[n−1, m−1]: a sum along the path, in the cost's unit, not divided by the path's length. The
    gradient is that of the costs along one optimal path; ties take the diagonal, then s−1, then t−1.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).
        band: Sakoe-Chiba radius in steps, ≥ 0: t − s stays in [−band − max(n−m, 0), band + max(m−n, 0)], the band
            that ``tslearn.metrics`` builds. Cells outside are not computed. None: no band.

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    return _distance(x, y, x_lengths, y_lengths, paired=False, cost=cost, band=band)


def dtw_path(x: Tensor, y: Tensor, *, cost: str = "euclidean", band: int | None = None) -> Tensor:
    """The optimal path of one pair, to look at: x (N, D), y (M, D) -> (L, 2) int64.

    Rows are the cells (s, t) from (0, 0) to (N−1, M−1) whose costs ``dtw`` sums and through which its gradient flows;
    ties, ``cost`` and ``band`` are as there. Only where every cost is finite is there such a path.
    """
    check_pair("dtw_path", x, y)
    check_options("dtw_path", cost=cost, band=band)
    with torch.no_grad():
        _, path = torch.ops.scav.dtw(x[None], y[None], None, None, cost, band, True, True)
    s, t = x.shape[0] - 1, y.shape[0] - 1
    cells = [(s, t)]
    for step in path[0].tolist():
        if step == 3:
            break
        s, t = s - (step != 2), t - (step != 1)
        cells.append((s, t))
    return torch.tensor(cells[::-1], dtype=torch.int64)


def _distance(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    *,
    paired: bool,
    cost: str = "euclidean",
    band: int | None = None,
) -> Tensor:
    check_tensors("dtw", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    check_options("dtw", cost=cost, band=band)
    out, _ = torch.ops.scav.dtw(x, y, x_lengths, y_lengths, cost, band, paired, False)
    return out


METRICS["dtw"] = Metric(dtw, partial(_distance, paired=True), sums_along_path=True)


@register_fake("scav::dtw")
def _fake(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    cost: str,
    band: int | None,
    paired: bool,
    save_path: bool,
) -> tuple[Tensor, Tensor]:
    out = new_result(x, y, paired)
    path = x.new_empty((*out.shape, x.shape[1] + y.shape[1]) if save_path else (0,), dtype=torch.uint8)
    return out, path


@register_fake("scav::dtw_backward")
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    out: Tensor,
    path: Tensor,
    cost: str,
    paired: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    return new_gradients(x, y, need_x, need_y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, cost, _band, paired, _save_path = inputs
    out, path = output
    ctx.mark_non_differentiable(path)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, out, path)
    ctx.options = cost, paired


def _backward(ctx: Any, grad: Tensor | None, _path: Tensor | None) -> tuple[Tensor | None, ...]:
    need_x, need_y, *_ = ctx.needs_input_grad
    if grad is None:
        return (None,) * 8
    dx, dy = torch.ops.scav.dtw_backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
    return dx if need_x else None, dy if need_y else None, None, None, None, None, None, None


register_autograd("scav::dtw", _backward, setup_context=_setup_context)
promote_under_autocast("scav::dtw")
refuse_double_backward("scav::dtw_backward")
register_batching("scav::dtw", "scav::dtw_backward")
refuse_missing_cuda("scav::dtw", "scav::dtw_backward")
