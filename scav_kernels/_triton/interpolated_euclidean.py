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

Not tried, because not measured: TMA, warp specialisation, persistent grids.
"""

import torch
import triton
from torch import Tensor

from scav_kernels._triton import interpolated_euclidean_kernels as kernels
from scav_kernels._triton import packing, paired_kernels, rows_kernels, squared_sums
from scav_kernels._triton.packing import Chunk, Packed, Pass, Side, passes, side, whole
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
    """(B1, N, D), (B2, M, D) -> (B1, B2) or, `paired`, (B,)."""
    shape = (len(x),) if paired else (len(x), len(y))
    out = x.new_empty(shape, dtype=accumulation_dtype(x))
    if not paired and max(shape) > packing.MOST_SEQUENCES:
        for rows, x_part, x_some in packing.parts(x, x_lengths):
            for columns, y_part, y_some in packing.parts(y, y_lengths):
                out[rows, columns] = forward(x_part, y_part, x_some, y_some, squared, resample, paired)
    elif out.numel():
        for given in passes(side(x, x_lengths), side(y, y_lengths), squared, resample, out.stride()):
            (pairs_forward if paired else all_pairs_forward)(given, out)
    return out


def all_pairs_forward(given: Pass, out: Tensor) -> None:
    packed = Packed(given)
    if squared_sums.applies(given):
        squared_sums.add_distances(given, packed, out)
        sums, splits = out, 1
    else:
        sums, splits = add_distances(given, packed, out)
    source, target = given.source, given.target
    block = 32
    packing.launch(
        kernels.finish_distances,
        (triton.cdiv(packed.sources, block) * triton.cdiv(packed.batch, block),),
        *(out, sums, source.lengths, target.lengths, source.poison, target.poison, packed.sources, packed.batch),
        *(splits, given.stride_i, given.stride_j, out.numel()),
        TAKES=given.takes,
        BM=block,
        BN=block,
        num_warps=4,
    )


def add_distances(given: Pass, packed: Packed, out: Tensor) -> tuple[Tensor, int]:
    """Sums over t, in as many parts as it returns: `out` itself where that is one."""
    tile, groups, source, target = packed.tile, packed.groups, given.source, given.target
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
            # What looks for near cells needs registers, too.
            parts = max(1, tile.targets // 32) if careful else 1
            packing.launch(
                kernels.add_distances,
                (tiles_i * tiles_j * parts, splits),
                *(sums, near_tiles, packed.rows, packed.row_norms, packed.columns, packed.column_norms),
                *(source.data, source.lengths, target.data, groups.order, groups.length, groups.tile_group),
                *(*chunk, packed.height, packed.breadth, packed.batch, packed.source_steps, packed.steps),
                *(packed.features, packed.width, given.stride_i, given.stride_j, stride_split),
                TAKES=given.takes,
                SQUARED=given.squared,
                SORTED=not target.full,
                CAREFUL=careful,
                PRECISION=packed.precision,
                BM=tile.sources,
                BN=tile.targets // parts,
                BK=tile.depth,
                PARTS=parts,
                num_warps=tile.warps,
                num_stages=tile.stages,
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
    """Gradients like x and like y, empty where not needed."""
    if not paired and max(grad.shape) > packing.MOST_SEQUENCES:
        return backward_in_parts(grad, x, y, x_lengths, y_lengths, squared, resample, need_x, need_y)
    of_x, of_y = side(x, x_lengths), side(y, y_lengths)
    dx = of_x.poison.new_zeros(x.shape) if need_x else None
    dy = of_y.poison.new_zeros(y.shape) if need_y else None
    if grad.numel():
        grad = grad.detach().to(of_x.poison.dtype)
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
    """NaN for the valid steps of sequences of which a poisoned pair has a gradient."""
    if of is None:
        return
    if paired:
        spoilt = (grad != 0) & ((side.poison + other.poison) != 0)
    else:
        found = torch.empty_like(side.lengths, dtype=torch.int8)
        rows = 16
        packing.launch(
            rows_kernels.find_spoilt,
            (triton.cdiv(len(found), rows),),
            *(found, side.poison, other.poison, grad, *strides, len(other.data), len(found)),
            ROWS=rows,
            BLOCK=128,
            num_warps=4,
        )
        spoilt = found != 0
    valid = torch.arange(of.shape[1], device=of.device) < side.lengths[:, None]
    of.masked_fill_((valid & spoilt[:, None])[..., None], torch.nan)


def all_pairs_backward(given: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Adds to the gradients, which are None where not needed."""
    packed = Packed(given)
    tile, groups = packed.tile, packed.groups
    dtype = torch.float32 if packed.dtype == torch.float16 else packed.dtype
    # Bytes of a source's step: weights, their sums, and the gradients of resampled rows.
    sums = triton.cdiv(packed.breadth, tile.targets) + triton.cdiv(packed.breadth, tile.sources)
    cell = packed.breadth * dtype.itemsize + (sums + groups.most * packed.width) * packed.sum_dtype.itemsize
    shares = pack_shares(packed, grad)
    for chunk in packed.chunks(cell):
        add_gradients(packed, chunk, shares, dtype, d_source, d_target)


def add_gradients(
    packed: Packed, chunk: Chunk, shares: Tensor, dtype: torch.dtype, d_source: Tensor | None, d_target: Tensor | None
) -> None:
    """A chunk's, by weights of a `dtype`."""
    given, tile, groups, source, target = (
        packed.given,
        packed.tile,
        packed.groups,
        packed.given.source,
        packed.given.target,
    )
    precision = "tf32" if packed.dtype == torch.float16 else packed.precision
    tiles_i, tiles_j = packed.tiles()
    weights = shares.new_empty((chunk.steps, packed.height, packed.breadth), dtype=dtype)
    row_sums = shares.new_empty((chunk.steps, packed.height, tiles_j))
    column_sums = shares.new_empty((chunk.steps, packed.breadth, tiles_i))
    near_tiles = shares.new_empty((chunk.steps, tiles_i, tiles_j), dtype=torch.int8)
    packing.launch(
        kernels.find_weights,
        (chunk.steps * tiles_i * tiles_j,),
        *(weights, row_sums, column_sums, near_tiles, shares),
        *(packed.rows, packed.row_norms, packed.columns, packed.column_norms),
        *(groups.length, groups.tile_group, chunk.first_step, chunk.steps, chunk.first),
        *(packed.height, packed.breadth, packed.width),
        SQUARED=given.squared,
        PRECISION=packed.precision,
        TF32=precision == "tf32",
        BM=tile.sources,
        BN=tile.targets,
        BK=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    for d_side, of_targets in ((d_source, False), (d_target, True)):
        if d_side is None:
            continue
        slots = chunk.steps * (1 if of_targets else groups.most)
        out = d_side if of_targets else shares.new_empty((slots, packed.height, packed.width))
        own, other = (tile.targets, tile.sources) if of_targets else (tile.sources, tile.targets)
        programs = slots * (tiles_j if of_targets else tiles_i)
        tables = groups.order, groups.length, groups.first_tile, groups.tile_group
        shape = packed.steps, packed.features, packed.width
        across = min(128 if dtype.itemsize == 2 else 64, triton.next_power_of_2(packed.width))
        packing.launch(
            kernels.add_products,
            (programs * triton.cdiv(packed.width, across),),
            *(out, weights, column_sums if of_targets else row_sums, packed.rows, packed.columns, *tables),
            *(chunk.first_step, chunk.steps, packed.height, packed.breadth, *shape),
            OF_TARGETS=of_targets,
            PRECISION=precision,
            BM=tile.sources,
            BN=tile.targets,
            BK=min(other, 128 // dtype.itemsize if packed.tensor_cores else 16),
            BD=across,
            num_warps=8 if own * across >= 128 * 64 else 4,
            num_stages=tile.stages,
        )
        at_once = min(16, own)
        packing.launch(
            kernels.add_near,
            (programs * (own // at_once),),
            *(out, weights, near_tiles, shares, source.data, source.lengths, target.data, *tables, *chunk),
            *(packed.height, packed.breadth, packed.source_steps, *shape),
            OF_TARGETS=of_targets,
            SQUARED=given.squared,
            BM=tile.sources,
            BN=tile.targets,
            BA=at_once,
            BLOCK=16,
            num_warps=4,
        )
        if not of_targets:
            at_once = 8
            packing.launch(
                rows_kernels.spread_rows,
                (chunk.sources * triton.cdiv(packed.source_steps, at_once),),
                *(d_side, out, source.lengths, groups.length, groups.most),
                *(chunk.first_step, chunk.steps, chunk.first, packed.height, packed.source_steps),
                *(packed.features, packed.width),
                ROWS=at_once,
                BLOCK=min(64, triton.next_power_of_2(packed.features)),
                num_warps=4,
            )


def pack_shares(packed: Packed, grad: Tensor) -> Tensor:
    """(sources, breadth) in whole tiles: see the kernel."""
    given, block = packed.given, 32
    padded = whole(packed.sources, packed.tile.sources)
    shares = grad.new_empty((padded, packed.breadth))
    packing.launch(
        kernels.pack_shares,
        (triton.cdiv(padded, block) * triton.cdiv(packed.breadth, block),),
        *(shares, grad, given.source.lengths, given.target.lengths, given.source.poison, given.target.poison),
        *(packed.groups.order, packed.sources, padded, packed.breadth, given.stride_i, given.stride_j),
        TAKES=given.takes,
        SQUARED=given.squared,
        BM=block,
        BN=block,
        num_warps=4,
    )
    return shares


def pairs_forward(given: Pass, out: Tensor) -> None:
    source, target = given.source, given.target
    features = target.data.shape[2]
    packing.launch(
        paired_kernels.find_distances,
        (len(out),),
        *(out, source.data, target.data, source.lengths, target.lengths, source.poison + target.poison),
        *(source.data.shape[1], target.data.shape[1], features),
        TAKES=given.takes,
        SQUARED=given.squared,
        ROWS=16,
        BLOCK=min(128, triton.next_power_of_2(features)),
        num_warps=4,
    )


def pairs_backward(given: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Adds to the gradients, which are None where not needed."""
    source, target = given.source, given.target
    features, at_once = target.data.shape[2], 16
    for out, of_targets in ((d_source, False), (d_target, True)):
        if out is None:
            continue
        packing.launch(
            paired_kernels.add_gradients,
            (len(out) * triton.cdiv(out.shape[1], at_once),),
            *(out, grad, source.data, target.data, source.lengths, target.lengths, source.poison + target.poison),
            *(source.data.shape[1], target.data.shape[1], features, given.stride_i),
            OF_TARGETS=of_targets,
            TAKES=given.takes,
            SQUARED=given.squared,
            ROWS=at_once,
            BLOCK=min(128, triton.next_power_of_2(features)),
            num_warps=4,
        )
