"""Interpolated Euclidean on CUDA.

Forward, for a chunk of the targets' steps t: the sources are resampled to them once (pack_rows), and one kernel walks
through the steps of a tile of pairs, tensor-core products over D, square root, sum (add_distances); nothing of size
B1·B2·T exists. Backward recomputes the products and writes the weights g / (m ‖x̃_t − y_t‖) of the chunk's cells
(find_weights), which two more products turn into the gradients of x̃ and y (add_products); the adjoint of resampling
gathers the former (spread_rows). Near cells are redone from differences. Every sum has an owner: there are no atomics,
and two runs are bit-identical.

Sources are resampled to each target length that occurs. Where all targets have their full length, that is one. Else
targets are sorted by length on the device, and a tile has targets of one length: no length is read back, so every chunk
has room for the most lengths there can be, min(M, B2), and launches what may turn out to be nothing. Ragged targets
are therefore slower, most of all few targets of many lengths.

`squared` of targets of one length is one product over (t, D) instead, forward (squared_sums.py). Its weights are the
same at every step, but the backward pass still writes them step by step, as near cells are found.

Extra memory, beyond the inputs, copies of them as they are packed (of y per chunk) and, for bfloat16 and float16,
gradients in float32: packing.SCRATCH bytes, or a tile's rows of the result where that is more.

A length out of [1, N] cannot raise without waiting for the device: it makes the sequence's distances NaN.

float16 weights would overflow, or vanish: its gradients are products in tf32, which has float16's digits and float32's
range.

Not tried, because not measured: TMA, warp specialization, persistent grids.
"""

import torch
import triton
from torch import Tensor

from scav_kernels._triton import launches, packing, squared_sums
from scav_kernels._triton.packing import Chunk, Packed, Pass, Side, passes, side
from scav_kernels.dtypes import accumulation_dtype

# Programs that keep a large GPU busy: two to each of its multiprocessors.
PROGRAMS = 264


def forward(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    squared: bool,
    resample: str,
    paired: bool,
) -> Tensor:
    """Return distances, (B1, N, D), (B2, M, D) -> (B1, B2) or, `paired`, (B,)."""
    shape = (len(x),) if paired else (len(x), len(y))
    out = x.new_empty(shape, dtype=accumulation_dtype(x))
    if not paired and max(shape) > packing.MAX_SEQUENCES:
        for rows, x_part, x_some in packing.parts(x, x_lengths):
            for columns, y_part, y_some in packing.parts(y, y_lengths):
                out[rows, columns] = forward(x_part, y_part, x_some, y_some, squared, resample, paired)
    elif out.numel():
        for given in passes(side(x, x_lengths), side(y, y_lengths), squared, resample, out.stride()):
            (launches.find_distances_of_pairs if paired else all_pairs_forward)(given, out)
    return out


def all_pairs_forward(given: Pass, out: Tensor) -> None:
    packed = Packed(given)
    if squared_sums.applies(given):
        squared_sums.add_distances(packed, out)
        sums, splits = out, 1
    else:
        sums, splits = add_distances(packed, out)
    launches.finish_distances(packed, out, sums, splits)


def add_distances(packed: Packed, out: Tensor) -> tuple[Tensor, int]:
    """Return sums over t, and in how many splits: in one they are `out` itself."""
    sums, stride_split, splits = out, 0, 0
    for chunk in packed.chunks(0):
        tiles_i, tiles_j = packed.tiles()
        if not splits:
            # Few pairs of many steps share the steps out.
            splits = min(chunk.steps, triton.cdiv(PROGRAMS, tiles_i * tiles_j))
            if splits > 1:
                sums, stride_split = out.new_empty((splits, *out.shape)), out.numel()
        near_tiles = out.new_empty((splits, tiles_i, tiles_j), dtype=torch.int8)
        for careful in (False, True):
            launches.add_distances(
                packed, chunk, sums, near_tiles, splits=splits, stride_split=stride_split, careful=careful
            )
    return sums, splits


def backward(
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
    """Return gradients like x and like y, empty where not needed."""
    if not paired and max(grad.shape) > packing.MAX_SEQUENCES:
        return backward_in_parts(grad, x, y, x_lengths, y_lengths, squared, resample, need_x, need_y)
    of_x, of_y = side(x, x_lengths), side(y, y_lengths)
    dx = of_x.nonfinite.new_zeros(x.shape) if need_x else None
    dy = of_y.nonfinite.new_zeros(y.shape) if need_y else None
    if grad.numel():
        grad = grad.detach().to(of_x.nonfinite.dtype)
        run = pairs_backward if paired else all_pairs_backward
        for given in passes(of_x, of_y, squared, resample, grad.stride()):
            run(given, grad, *((dx, dy) if given.source is of_x else (dy, dx)))
        finish_gradient(dx, of_x, of_y, grad, paired, grad.stride())
        finish_gradient(dy, of_y, of_x, grad, paired, grad.stride()[::-1])
    return x.new_empty(0) if dx is None else dx.to(x.dtype), y.new_empty(0) if dy is None else dy.to(y.dtype)


def backward_in_parts(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    squared: bool,
    resample: str,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    dx, dy = (
        side.new_zeros(side.shape if needed else 0, dtype=accumulation_dtype(side))
        for side, needed in ((x, need_x), (y, need_y))
    )
    for rows, x_part, x_some in packing.parts(x, x_lengths):
        for columns, y_part, y_some in packing.parts(y, y_lengths):
            given = grad[rows, columns], x_part, y_part, x_some, y_some, squared, resample, False
            of_x, of_y = backward(*given, need_x, need_y)
            if need_x:
                dx[rows] += of_x
            if need_y:
                dy[columns] += of_y
    return dx.to(x.dtype), dy.to(y.dtype)


def finish_gradient(
    of: Tensor | None, side: Side, other: Side, grad: Tensor, paired: bool, strides: tuple[int, ...]
) -> None:
    """Set the gradient to NaN at the valid steps of sequences of which a pair with inf or NaN has a gradient."""
    if of is None:
        return
    if paired:
        nonfinite_gradients = (grad != 0) & ((side.nonfinite + other.nonfinite) != 0)
    else:
        nonfinite_gradients = launches.find_nonfinite_gradients(side, other, grad, strides) != 0
    valid = torch.arange(of.shape[1], device=of.device) < side.lengths[:, None]
    of.masked_fill_((valid & nonfinite_gradients[:, None])[..., None], torch.nan)


def all_pairs_backward(given: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Add to the gradients, which are None where not needed."""
    packed = Packed(given)
    tile, groups = packed.tile, packed.groups
    dtype = torch.float32 if packed.dtype == torch.float16 else packed.dtype
    # Bytes of a source's step: weights, their sums, and the gradients of resampled rows.
    sums = triton.cdiv(packed.breadth, tile.targets) + triton.cdiv(packed.breadth, tile.sources)
    cell = packed.breadth * dtype.itemsize + (sums + groups.max_count * packed.width) * packed.sum_dtype.itemsize
    shares = launches.pack_shares(packed, grad)
    for chunk in packed.chunks(cell):
        add_gradients(packed, chunk, shares, dtype, d_source, d_target)


def add_gradients(
    packed: Packed, chunk: Chunk, shares: Tensor, dtype: torch.dtype, d_source: Tensor | None, d_target: Tensor | None
) -> None:
    """Add a chunk's gradients, from weights of a `dtype`."""
    tiles_i, tiles_j = packed.tiles()
    weights = shares.new_empty((chunk.steps, packed.height, packed.breadth), dtype=dtype)
    row_sums = shares.new_empty((chunk.steps, packed.height, tiles_j))
    column_sums = shares.new_empty((chunk.steps, packed.breadth, tiles_i))
    near_tiles = shares.new_empty((chunk.steps, tiles_i, tiles_j), dtype=torch.int8)
    launches.find_weights(packed, chunk, shares, weights, row_sums, column_sums, near_tiles)
    if d_source is not None:
        slots = chunk.steps * packed.groups.max_count
        d_rows = shares.new_empty((slots, packed.height, packed.width))
        launches.add_products(packed, chunk, weights, row_sums, d_rows, slots=slots, of_targets=False)
        launches.add_near(packed, chunk, shares, weights, near_tiles, d_rows, slots=slots, of_targets=False)
        launches.spread_rows(packed, chunk, d_rows, d_source)
        del d_rows
    if d_target is not None:
        slots = chunk.steps
        launches.add_products(packed, chunk, weights, column_sums, d_target, slots=slots, of_targets=True)
        launches.add_near(packed, chunk, shares, weights, near_tiles, d_target, slots=slots, of_targets=True)


def pairs_backward(given: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Add to the gradients, which are None where not needed."""
    for out, of_targets in ((d_source, False), (d_target, True)):
        if out is not None:
            launches.add_gradients_of_pairs(given, grad, out, of_targets=of_targets)
