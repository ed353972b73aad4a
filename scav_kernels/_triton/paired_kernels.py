# mypy: ignore-errors
# The bodies are in Triton's language, which only looks like Python.
"""Interpolated Euclidean of pairs of one batch each, from differences: there is nothing to multiply.

Shapes: x (B, N, D), y (B, M, D), contiguous; lengths, nonfinite (B,). x is resampled.
"""

import triton
import triton.language as tl

from scav_kernels._triton.rows_kernels import resampled, share, takes, touching


@triton.jit
def squares_of_steps(x, y, b, t, n, m, x_steps, y_steps, features, ACC: tl.constexpr, BLOCK: tl.constexpr):
    """Squared distances of steps t (R,) of pairs b (R,), of n and m steps."""
    square = tl.zeros((t.shape[0],), ACC)
    for start in range(0, features, BLOCK):
        k = start + tl.arange(0, BLOCK)
        apart = resampled(x, b, t, n, m, k, x_steps, features, ACC)
        at = y + ((b * y_steps + t) * features)[:, None] + k[None, :]
        apart -= tl.load(at, mask=(k < features)[None, :], other=0).to(ACC)
        square += tl.sum(apart * apart, 1)
    return square


@triton.jit
def find_distances(
    out,  # (B,)
    x,
    y,
    x_lengths,
    y_lengths,
    nonfinite,
    x_steps,
    y_steps,
    features,
    TAKES: tl.constexpr,
    SQUARED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    ACC: tl.constexpr = out.dtype.element_ty
    pair = tl.program_id(0).to(tl.int64)
    n, m = tl.load(x_lengths + pair), tl.load(y_lengths + pair)
    if takes(n, m, TAKES) == 0:
        return
    total = tl.zeros((ROWS,), ACC)
    same = tl.zeros((ROWS,), tl.int64)
    for start in range(0, m, ROWS):
        t = start + tl.arange(0, ROWS)
        valid = t < m
        t = tl.minimum(t, m - 1)
        square = squares_of_steps(x, y, same + pair, t, n, m, x_steps, y_steps, features, ACC, BLOCK)
        total += tl.where(valid, square if SQUARED else tl.sqrt(square), 0)
    bad = tl.load(nonfinite + pair)
    tl.store(out + pair, tl.where(bad == 0, tl.sum(total, 0) / m.to(ACC), bad))


@triton.jit
def add_gradients(
    out,  # (B, steps, D) like x or, OF_TARGETS, like y: added to
    grad,  # (B,)
    x,
    y,
    x_lengths,
    y_lengths,
    nonfinite,
    x_steps,
    y_steps,
    features,
    stride,
    OF_TARGETS: tl.constexpr,
    TAKES: tl.constexpr,
    SQUARED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program owns some steps of one sequence: of y, or of x with all that is resampled from them."""
    ACC: tl.constexpr = out.dtype.element_ty
    steps = y_steps if OF_TARGETS else x_steps
    blocks = tl.cdiv(steps, ROWS)
    pair = (tl.program_id(0) // blocks).to(tl.int64)
    s = (tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    n, m = tl.load(x_lengths + pair), tl.load(y_lengths + pair)
    if (takes(n, m, TAKES) == 0) | (tl.load(nonfinite + pair) != 0):
        return
    low, high = touching(s, n, m)
    if OF_TARGETS:
        low, high = s, tl.minimum(s + 1, m)
    else:
        high = tl.where(s < n, high, low)
    given = tl.load(grad + pair * stride) / m.to(ACC)
    if SQUARED:
        given *= 2
    same = tl.zeros((ROWS,), tl.int64)
    for turn in range(tl.maximum(tl.max(high - low, 0), 0).to(tl.int32)):
        t = low + turn
        valid = t < high
        t = tl.where(valid, t, 0)
        factor = tl.where(valid, given, 0)
        if not SQUARED:
            square = squares_of_steps(x, y, same + pair, t, n, m, x_steps, y_steps, features, ACC, BLOCK)
            factor = tl.where(square > 0, factor / tl.sqrt(square), 0)
        factor = -factor if OF_TARGETS else factor * share(s, t, n, m, ACC)
        for start in range(0, features, BLOCK):
            k = start + tl.arange(0, BLOCK)
            apart = resampled(x, same + pair, t, n, m, k, x_steps, features, ACC)
            inside = (k < features)[None, :]
            apart -= tl.load(y + ((pair * y_steps + t) * features)[:, None] + k[None, :], mask=inside, other=0).to(ACC)
            at = out + ((pair * steps + s) * features)[:, None] + k[None, :]
            mask = valid[:, None] & inside
            tl.store(at, tl.load(at, mask=mask, other=0) + factor[:, None] * apart, mask=mask)
        # Another thread may read what this one wrote.
        tl.debug_barrier()
