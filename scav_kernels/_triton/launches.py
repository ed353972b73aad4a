"""Launches of the kernels: one function for each, which passes every argument by its name."""

from typing import Any

import torch
import triton
from torch import Tensor

from scav_kernels._triton import interpolated_euclidean_kernels as kernels
from scav_kernels._triton import packing, paired_kernels, rows_kernels
from scav_kernels._triton.packing import Chunk, Packed, Pass, Side, whole

# Rows and columns of a program that reads results.
BLOCK = 32


def add_distances(
    packed: Packed, chunk: Chunk, sums: Tensor, near_tiles: Tensor, *, splits: int, stride_split: int, careful: bool
) -> None:
    """Add the sums over a chunk's steps; the careful way adds those of tiles with near cells."""
    tile, groups, given = packed.tile, packed.groups, packed.given
    tiles_i, tiles_j = packed.tiles()
    # The careful way needs registers for its search of near cells.
    parts = max(1, tile.targets // 32) if careful else 1
    packing.launch(
        kernels.add_distances,
        (tiles_i * tiles_j * parts, splits),
        out=sums,
        near_tiles=near_tiles,
        **_products(packed),
        **_sequences(given),
        order=groups.order,
        group_length=groups.length,
        tile_group=groups.tile_group,
        **_place(chunk),
        count=chunk.sources,
        height=packed.height,
        breadth=packed.breadth,
        targets=packed.batch,
        source_steps=packed.source_steps,
        target_steps=packed.steps,
        features=packed.features,
        width=packed.width,
        stride_i=given.stride_i,
        stride_j=given.stride_j,
        stride_split=stride_split,
        TAKES=given.takes,
        SQUARED=given.squared,
        SORTED=not given.target.full,
        CAREFUL=careful,
        PRECISION=packed.precision,
        BM=tile.sources,
        BN=tile.targets // parts,
        BK=tile.depth,
        PARTS=parts,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def finish_distances(packed: Packed, out: Tensor, sums: Tensor, splits: int) -> None:
    """Write means of the sums, which may be `out` itself, or inf or NaN of pairs that have it."""
    given = packed.given
    packing.launch(
        kernels.finish_distances,
        (triton.cdiv(packed.sources, BLOCK) * triton.cdiv(packed.batch, BLOCK),),
        out=out,
        sums=sums,
        **_sides(given),
        B1=packed.sources,
        B2=packed.batch,
        splits=splits,
        stride_i=given.stride_i,
        stride_j=given.stride_j,
        stride_split=out.numel(),
        TAKES=given.takes,
        BM=BLOCK,
        BN=BLOCK,
        num_warps=4,
    )


def pack_shares(packed: Packed, grad: Tensor) -> Tensor:
    """Return the gradient of one step's distance, (sources, breadth) in whole tiles."""
    given = packed.given
    padded = whole(packed.sources, packed.tile.sources)
    shares = grad.new_empty((padded, packed.breadth))
    packing.launch(
        kernels.pack_shares,
        (triton.cdiv(padded, BLOCK) * triton.cdiv(packed.breadth, BLOCK),),
        shares=shares,
        grad=grad,
        **_sides(given),
        order=packed.groups.order,
        sources=packed.sources,
        padded=padded,
        breadth=packed.breadth,
        stride_i=given.stride_i,
        stride_j=given.stride_j,
        TAKES=given.takes,
        SQUARED=given.squared,
        BM=BLOCK,
        BN=BLOCK,
        num_warps=4,
    )
    return shares


def find_weights(
    packed: Packed,
    chunk: Chunk,
    shares: Tensor,
    weights: Tensor,
    row_sums: Tensor,
    column_sums: Tensor,
    near_tiles: Tensor,
) -> None:
    """Write the weights of a chunk's cells, their sums, and which tiles have near cells."""
    tile, groups = packed.tile, packed.groups
    tiles_i, tiles_j = packed.tiles()
    packing.launch(
        kernels.find_weights,
        (chunk.steps * tiles_i * tiles_j,),
        weights=weights,
        row_sums=row_sums,
        column_sums=column_sums,
        near_tiles=near_tiles,
        shares=shares,
        **_products(packed),
        group_length=groups.length,
        tile_group=groups.tile_group,
        **_place(chunk),
        height=packed.height,
        breadth=packed.breadth,
        width=packed.width,
        SQUARED=packed.given.squared,
        PRECISION=packed.precision,
        TF32=packed.gradient_precision == "tf32",
        BM=tile.sources,
        BN=tile.targets,
        BK=tile.depth,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


def add_products(
    packed: Packed, chunk: Chunk, weights: Tensor, sums: Tensor, out: Tensor, *, slots: int, of_targets: bool
) -> None:
    """Add the gradients of one side, of `slots` times its rows, from the weights' products with the other side."""
    tile, groups = packed.tile, packed.groups
    tiles_i, tiles_j = packed.tiles()
    itemsize = weights.dtype.itemsize
    rows, other_rows = (tile.targets, tile.sources) if of_targets else (tile.sources, tile.targets)
    across = min(128 if itemsize == 2 else 64, triton.next_power_of_2(packed.width))
    packing.launch(
        kernels.add_products,
        (slots * (tiles_j if of_targets else tiles_i) * triton.cdiv(packed.width, across),),
        out=out,
        weights=weights,
        sums=sums,
        rows=packed.rows,
        columns=packed.columns,
        order=groups.order,
        group_length=groups.length,
        group_tile=groups.first_tile,
        tile_group=groups.tile_group,
        first_step=chunk.first_step,
        steps_here=chunk.steps,
        height=packed.height,
        breadth=packed.breadth,
        target_steps=packed.steps,
        features=packed.features,
        width=packed.width,
        OF_TARGETS=of_targets,
        PRECISION=packed.gradient_precision,
        BM=tile.sources,
        BN=tile.targets,
        BK=min(other_rows, 128 // itemsize if packed.tensor_cores else 16),
        BD=across,
        num_warps=8 if rows * across >= 128 * 64 else 4,
        num_stages=tile.stages,
    )


def add_near(
    packed: Packed,
    chunk: Chunk,
    shares: Tensor,
    weights: Tensor,
    near_tiles: Tensor,
    out: Tensor,
    *,
    slots: int,
    of_targets: bool,
) -> None:
    """Add the gradients of near cells of one side, of `slots` times its rows, from differences."""
    tile, groups, given = packed.tile, packed.groups, packed.given
    at_once = min(16, tile.targets if of_targets else tile.sources)
    packing.launch(
        kernels.add_near,
        (slots * ((packed.breadth if of_targets else packed.height) // at_once),),
        out=out,
        weights=weights,
        near_tiles=near_tiles,
        shares=shares,
        **_sequences(given),
        order=groups.order,
        group_length=groups.length,
        group_tile=groups.first_tile,
        tile_group=groups.tile_group,
        **_place(chunk),
        count=chunk.sources,
        height=packed.height,
        breadth=packed.breadth,
        source_steps=packed.source_steps,
        target_steps=packed.steps,
        features=packed.features,
        width=packed.width,
        OF_TARGETS=of_targets,
        SQUARED=given.squared,
        BM=tile.sources,
        BN=tile.targets,
        BA=at_once,
        BLOCK=16,
        num_warps=4,
    )


def spread_rows(packed: Packed, chunk: Chunk, resampled_grad: Tensor, grad: Tensor) -> None:
    """Add the gradients of resampled rows to those of the sources."""
    groups = packed.groups
    at_once = 8
    packing.launch(
        rows_kernels.spread_rows,
        (chunk.sources * triton.cdiv(packed.source_steps, at_once),),
        grad=grad,
        resampled_grad=resampled_grad,
        lengths=packed.given.source.lengths,
        group_length=groups.length,
        groups=groups.max_count,
        **_place(chunk),
        height=packed.height,
        steps=packed.source_steps,
        features=packed.features,
        width=packed.width,
        ROWS=at_once,
        BLOCK=min(64, triton.next_power_of_2(packed.features)),
        num_warps=4,
    )


def find_nonfinite_gradients(side: Side, other: Side, grad: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Return (B,) int8: whether a pair with inf or NaN has a gradient; `strides` are by own and by other side."""
    nonfinite_gradients = torch.empty_like(side.lengths, dtype=torch.int8)
    stride, other_stride = strides
    rows = 16
    packing.launch(
        rows_kernels.find_nonfinite_gradients,
        (triton.cdiv(len(nonfinite_gradients), rows),),
        nonfinite_gradients=nonfinite_gradients,
        nonfinite=side.nonfinite,
        other_nonfinite=other.nonfinite,
        grad=grad,
        stride=stride,
        other_stride=other_stride,
        others=len(other.data),
        batch=len(nonfinite_gradients),
        ROWS=rows,
        BLOCK=128,
        num_warps=4,
    )
    return nonfinite_gradients


def find_distances_of_pairs(given: Pass, out: Tensor) -> None:
    """Write the distances (B,) of pairs."""
    packing.launch(
        paired_kernels.find_distances,
        (len(out),),
        out=out,
        **_pairs(given),
        TAKES=given.takes,
        SQUARED=given.squared,
        ROWS=16,
        num_warps=4,
    )


def add_gradients_of_pairs(given: Pass, grad: Tensor, out: Tensor, *, of_targets: bool) -> None:
    """Add the gradients of one side of pairs."""
    at_once = 16
    packing.launch(
        paired_kernels.add_gradients,
        (len(out) * triton.cdiv(out.shape[1], at_once),),
        out=out,
        grad=grad,
        **_pairs(given),
        stride=given.stride_i,
        OF_TARGETS=of_targets,
        TAKES=given.takes,
        SQUARED=given.squared,
        ROWS=at_once,
        num_warps=4,
    )


def _products(packed: Packed) -> dict[str, Any]:
    """Return the operands of the products."""
    return {
        "rows": packed.rows,
        "row_norms": packed.row_norms,
        "columns": packed.columns,
        "column_norms": packed.column_norms,
    }


def _place(chunk: Chunk) -> dict[str, int]:
    """Return the chunk's place among the steps and the sources."""
    return {"first_step": chunk.first_step, "steps_here": chunk.steps, "first": chunk.first}


def _sequences(given: Pass) -> dict[str, Tensor]:
    """Return the sequences as given, before packing."""
    return {"source": given.source.data, "source_lengths": given.source.lengths, "target": given.target.data}


def _sides(given: Pass) -> dict[str, Tensor]:
    """Return the lengths of both sides, and which sequences have inf or NaN."""
    source, target = given.source, given.target
    return {
        "source_lengths": source.lengths,
        "target_lengths": target.lengths,
        "source_nonfinite": source.nonfinite,
        "target_nonfinite": target.nonfinite,
    }


def _pairs(given: Pass) -> dict[str, Any]:
    """Return both sides of pairs, of which x is resampled, and the features that a program reads at a time."""
    source, target = given.source, given.target
    features = target.data.shape[2]
    return {
        "x": source.data,
        "y": target.data,
        "x_lengths": source.lengths,
        "y_lengths": target.lengths,
        "nonfinite": source.nonfinite + target.nonfinite,
        "x_steps": source.data.shape[1],
        "y_steps": target.data.shape[1],
        "features": features,
        "BLOCK": min(128, triton.next_power_of_2(features)),
    }
