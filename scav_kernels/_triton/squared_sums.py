"""Squared interpolated Euclidean distances of all pairs where targets have one length: a cuBLAS product over (t, D).

    Σ_t ‖x̃_it − y_jt‖² = Σ_t ‖x̃_it‖² + Σ_t ‖y_jt‖² − 2 ⟨x̃_i, y_j⟩ over (t, D)

for a chunk of steps t, float32 out of 16-bit rows. Where that is below 1/256 of the norms, digits are lost: a tile with
such a pair is left out here, and add_distances takes its cells from differences, step by step. A pair that is near as a
whole is so in some chunk; one that is near in none has lost no more than 8 bits in any.
"""

import torch
from torch import Tensor

from scav_kernels._triton import interpolated_euclidean_kernels as kernels
from scav_kernels._triton import launches, packing
from scav_kernels._triton.packing import Chunk, Packed

# Bytes of the products of a block of sources; a few tensors of as many pairs exist at a time.
BLOCK = 32 * 2**20


def applies(given: packing.Pass) -> bool:
    """Return whether all targets are known, without asking the device, to have one length."""
    return given.squared and given.target.full and given.takes == "all"


def add_distances(packed: Packed, out: Tensor) -> None:
    """Add the sums over t of all pairs to `out`, by the pass's strides."""
    given = packed.given
    results = out.as_strided((packed.sources, packed.batch), (given.stride_i, given.stride_j))
    # The products need a copy of the rows, side by side.
    for chunk in packed.chunks(packed.width * packed.dtype.itemsize):
        near_tiles = add_products(packed, chunk, results)
        launches.add_distances(packed, chunk, out, near_tiles, splits=1, stride_split=0, careful=True)


def add_products(packed: Packed, chunk: Chunk, results: Tensor) -> Tensor:
    """Add a chunk's sums to `results` (sources, targets), but in tiles with near pairs; return a mark of each tile."""
    tile, (tiles_i, tiles_j) = packed.tile, packed.tiles()
    columns = flat(packed.columns).T  # (steps · width, breadth)
    column_norms = packed.column_norms.sum(0)
    near_tiles = results.new_empty((tiles_i, tiles_j), dtype=torch.int8)
    rows_at_once = max(1, BLOCK // (packed.breadth * packed.sum_dtype.itemsize) // tile.sources) * tile.sources
    for first in range(0, packed.height, rows_at_once):
        block = slice(first, min(first + rows_at_once, packed.height))
        norms = packed.row_norms[:, block].sum(0)[:, None] + column_norms
        squares = product(flat(packed.rows[:, block]), columns, packed.sum_dtype).mul_(-2).add_(norms)
        near = (squares < kernels.NEAR.value * norms).view(-1, tile.sources, tiles_j, tile.targets).any(3).any(1)
        near_tiles[first // tile.sources :][: len(near)] = near
        left_out = near.repeat_interleave(tile.sources, 0).repeat_interleave(tile.targets, 1)
        squares.masked_fill_(left_out, 0)
        to = results[chunk.first : chunk.first + chunk.sources][block]
        given = squares[: len(to), : packed.batch]
        if chunk.first_step == 0:
            to.copy_(given)
        else:
            to.add_(given)
    return near_tiles


def flat(rows: Tensor) -> Tensor:
    """(steps, B, width) -> (B, steps · width)"""
    return rows.transpose(0, 1).reshape(rows.shape[1], -1)


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    if a.dtype == dtype:
        return a @ b
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=dtype)
    # Elsewhere, as in Triton's interpreter, no product widens.
    return a.to(dtype) @ b.to(dtype)
