# mypy: ignore-errors
# The bodies are in Triton's language, which only looks like Python.
"""Kernels over the steps of one side: resampling and its adjoint, packing, and values that are inf or NaN.

Shapes: data (B, steps, D) as given, contiguous; `lengths`, `nonfinite` (B,). Every index into them is int64.
"""

import triton
import triton.language as tl


@triton.jit
def place(t, n, m):
    """Step t of n steps resampled to m lies `rest` / 2m of the way from step `left` to step `right`.

    In integers, (2t+1) n/2m − 1/2 is exact for any length.
    """
    twice = tl.maximum((2 * t + 1) * n - m, 0)
    left = twice // (2 * m)
    rest = twice - left * 2 * m
    return left, tl.minimum(left + (rest > 0), n - 1), rest


@triton.jit
def resampled(data, b, t, n, m, k, steps, features, ACC: tl.constexpr):
    """Features k (K,) of step t (R,) of sequences b (R,), resampled from n to m steps (R,) or () -> (R, K)."""
    left, right, rest = place(t, n, m)
    weight = rest.to(ACC) / (2 * m).to(ACC)
    inside = (k < features)[None, :]
    low = tl.load(data + ((b * steps + left) * features)[:, None] + k[None, :], mask=inside, other=0).to(ACC)
    high = tl.load(data + ((b * steps + right) * features)[:, None] + k[None, :], mask=inside, other=0).to(ACC)
    return low + weight[:, None] * (high - low)


@triton.jit
def rounded_to_tf32(value):
    """Tensor cores would truncate. Norms and sums of what is rounded before are those of what is multiplied."""
    return ((value.to(tl.int32, bitcast=True) + 4096) & -8192).to(tl.float32, bitcast=True)


@triton.jit
def takes(n, m, TAKES: tl.constexpr):
    """Return whether a pass resamples n steps to m."""
    if TAKES == "shorter":
        taken = n < m
    elif TAKES == "not_longer":
        taken = n <= m
    else:
        taken = n == n
    return taken


@triton.jit
def find_nonfinite(found, data, lengths, rows, steps, features, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """found (B, steps), `rows` in all: squared norms of valid steps that are inf or NaN, else 0."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists = row < rows
    valid = exists & (row % steps < tl.load(lengths + row // steps, mask=exists, other=0))
    norm = tl.zeros((ROWS,), found.dtype.element_ty)
    for start in range(0, features, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = valid[:, None] & (k < features)[None, :]
        value = tl.load(data + (row * features)[:, None] + k[None, :], mask=inside, other=0)
        value = value.to(found.dtype.element_ty)
        norm += tl.sum(value * value, 1)
    # inf - inf and NaN - NaN are not zero.
    tl.store(found + row, tl.where(norm - norm == 0, 0, norm), mask=exists)


@triton.jit
def pack_rows(
    rows,  # (slots, height, width), zero beyond the features, and where there is no step or its sequence has inf or NaN
    norms,  # (slots, height): squared norms of what is in `rows`
    data,
    lengths,
    nonfinite,
    order,  # which sequence is row `first` + r, of `count`; -1 where there is none
    group_length,
    first_step,
    steps_here,
    first,
    count,
    height,
    steps,
    features,
    width,
    OWN: tl.constexpr,
    TF32: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Slot (group, step): that step of each sequence resampled to the group's length, or to its `OWN`."""
    ACC: tl.constexpr = norms.dtype.element_ty
    blocks = height // ROWS
    slot = (tl.program_id(0) // blocks).to(tl.int64)
    r = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    b = tl.load(order + first + r, mask=r < count, other=-1)
    exists = b >= 0
    b = tl.maximum(b, 0)
    n = tl.load(lengths + b)
    t = first_step + slot % steps_here + tl.zeros((ROWS,), tl.int64)
    m = n
    if not OWN:
        m = tl.load(group_length + slot // steps_here) + tl.zeros((ROWS,), tl.int64)
    valid = exists & (t < m) & (tl.load(nonfinite + b) == 0)
    # Rows that nobody reads must still point into the data.
    t = tl.where(valid, t, 0)
    m = tl.where(valid, m, n)
    norm = tl.zeros((ROWS,), ACC)
    for start in range(0, width, BLOCK):
        k = start + tl.arange(0, BLOCK)
        value = tl.where(valid[:, None], resampled(data, b, t, n, m, k, steps, features, ACC), 0)
        if TF32:
            value = rounded_to_tf32(value)
        packed = value.to(rows.dtype.element_ty)
        value = packed.to(ACC)
        norm += tl.sum(value * value, 1)
        at = rows + ((slot * height + r) * width)[:, None] + k[None, :]
        tl.store(at, packed, mask=(k < width)[None, :])
    tl.store(norms + slot * height + r, norm)


@triton.jit
def spread_rows(
    grad,  # (B, steps, D), added to
    resampled_grad,  # (groups, steps_here, height, width)
    lengths,
    group_length,
    groups,
    first_step,
    steps_here,
    first,
    height,
    steps,
    features,
    width,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the adjoint of resampling. One program owns some steps of one sequence, and adds in the order of t."""
    ACC: tl.constexpr = grad.dtype.element_ty
    blocks = tl.cdiv(steps, ROWS)
    r = (tl.program_id(0) // blocks).to(tl.int64)
    s = (tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    b = first + r
    n = tl.load(lengths + b)
    for start in range(0, features, BLOCK):
        k = start + tl.arange(0, BLOCK)
        total = tl.zeros((ROWS, BLOCK), ACC)
        longest = 0
        for group in range(groups):
            m = tl.load(group_length + group)
            low, high = touching(s, n, m)
            low, high = tl.maximum(low, first_step), tl.minimum(high, first_step + steps_here)
            high = tl.where(s < n, high, low)
            most = tl.maximum(tl.max(high - low, 0), 0).to(tl.int32)
            longest = tl.maximum(longest, most)
            for turn in range(most):
                t = low + turn
                inside = (t < high)[:, None] & (k < features)[None, :]
                at = resampled_grad + ((group * steps_here + t - first_step) * height + r)[:, None] * width + k[None, :]
                total += share(s, t, n, m, ACC)[:, None] * tl.load(at, mask=inside, other=0)
        if longest > 0:
            at = grad + ((b * steps + s) * features)[:, None] + k[None, :]
            inside = (s < n)[:, None] & (k < features)[None, :]
            tl.store(at, tl.load(at, mask=inside, other=0) + total, mask=inside)


@triton.jit
def touching(s, n, m):
    """A range that holds every t resampled from step s, among n steps resampled to m."""
    low = tl.where(s > 0, ((2 * s - 1) * m - n) // (2 * n), 0)
    high = tl.where(s < n - 1, ((2 * s + 3) * m - n) // (2 * n) + 1, m)
    return tl.maximum(low, 0), tl.minimum(high, m)


@triton.jit
def share(s, t, n, m, ACC: tl.constexpr):
    """Return the share of step s in step t, resampled from n to m steps."""
    left, right, rest = place(t, n, m)
    weight = rest.to(ACC) / (2 * m).to(ACC)
    return tl.where(left == s, 1 - weight, 0) + tl.where(right == s, weight, 0)


@triton.jit
def find_nonfinite_gradients(
    nonfinite_gradients,  # (B,) int8
    nonfinite,
    other_nonfinite,
    grad,
    stride,
    other_stride,
    others,
    batch,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Find sequences of which a pair has a gradient, and inf or NaN in either sequence."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    exists = row < batch
    bad = tl.load(nonfinite + row, mask=exists, other=0) != 0
    found = tl.zeros((ROWS,), tl.int32)
    for start in range(0, others, BLOCK):
        column = start + tl.arange(0, BLOCK).to(tl.int64)
        inside = column < others
        other_bad = tl.load(other_nonfinite + column, mask=inside, other=0) != 0
        at = grad + row[:, None] * stride + column[None, :] * other_stride
        given = tl.load(at, mask=exists[:, None] & inside[None, :], other=0)
        hit = (given != 0) & (bad[:, None] | other_bad[None, :])
        found = tl.maximum(found, tl.max(hit.to(tl.int32), 1))
    tl.store(nonfinite_gradients + row, found.to(tl.int8), mask=exists)
