"""Pack both sides of a call for the kernels of interpolated_euclidean_kernels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from scav_kernels._triton import rows_kernels
from scav_kernels.dtypes import accumulation_dtype

SCRATCH = 256 * 2**20  # bytes
# Offsets within a tile of weights, 128 rows of so many, fit 32 bits.
MAX_COLUMNS = 2**24
# Sequences of a launch: ragged batches need a tile of columns more for each length.
MAX_SEQUENCES = 2**23


def launch(kernel: Any, programs: tuple[int, ...], **arguments: Any) -> None:
    """Launch a kernel. Tests replace this function, which every launch calls."""
    kernel[programs](**arguments)


class Side(NamedTuple):
    """One batch of sequences."""

    data: Tensor  # (B, steps, D), contiguous
    lengths: Tensor  # (B,) int64, in [1, steps]
    nonfinite: Tensor  # (B,): 0, or inf or NaN, which all distances of the sequence become
    full: bool  # whether all lengths are known to be `steps`


def side(data: Tensor, lengths: Tensor | None) -> Side:
    data = data.detach().contiguous()
    batch, steps, features = data.shape
    full = lengths is None
    if lengths is None:
        lengths = torch.full((batch,), steps, dtype=torch.int64, device=data.device)
    inside = lengths.clamp(1, steps)
    rows, at_once = batch * steps, 32
    nonfinite = data.new_empty((batch, steps), dtype=accumulation_dtype(data))
    if rows:
        launch(
            rows_kernels.find_nonfinite,
            (triton.cdiv(rows, at_once),),
            found=nonfinite,
            data=data,
            lengths=inside,
            rows=rows,
            steps=steps,
            features=features,
            ROWS=at_once,
            BLOCK=min(64, triton.next_power_of_2(features)),
            num_warps=4,
        )
    return Side(data, inside, nonfinite.sum(1).masked_fill_(lengths != inside, torch.nan), full)


def parts(data: Tensor, lengths: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Yield parts of a batch, of at most MAX_SEQUENCES."""
    for first in range(0, len(data), MAX_SEQUENCES):
        part = slice(first, min(first + MAX_SEQUENCES, len(data)))
        yield part, data[part], None if lengths is None else lengths[part]


@dataclass(frozen=True)
class Tile:
    """Launch parameters of the products: a program's sources, targets, and features or cells at a time."""

    sources: int
    targets: int
    depth: int
    warps: int
    stages: int


def tile_for(sources: int, targets: int, features: int, element_size: int, tensor_cores: bool) -> Tile:
    """`targets`: of one length.

    128 × 128 cells are the most whose products and sums eight warps keep in registers, 64 and 64 of a thread's 255:
    larger tiles load less for each product. Three stages of 64 features of two bytes are 96 KiB of shared memory, which
    every GPU since Ampere has. Products without tensor cores wait for arithmetic, not for operands.
    """
    largest = 128 if tensor_cores else 64
    rows = min(largest, max(16, triton.next_power_of_2(sources)))
    columns = min(largest, max(16, triton.next_power_of_2(targets + 1) // 2))
    depth = min(128 // element_size if tensor_cores else 16, max(16, triton.next_power_of_2(features)))
    return Tile(rows, columns, depth, 8 if rows * columns == largest**2 else 4, 3 if tensor_cores else 2)


def float32_precision() -> str:
    """Return the precision of float32 products that the user allows: "ieee" or "tf32"."""
    # This one answers whether it was set itself or by torch.set_float32_matmul_precision or allow_tf32.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "ieee"


class Groups(NamedTuple):
    """Tables of the targets in groups of one length. See interpolated_euclidean_kernels."""

    max_count: int  # groups there may be
    order: Tensor  # (breadth,)
    length: Tensor  # (max_count + 1,)
    first_tile: Tensor  # (max_count + 2,)
    tile_group: Tensor  # (breadth / columns of a tile,)


def max_groups(target: Side) -> int:
    batch, steps, _ = target.data.shape
    return 1 if target.full else min(batch, steps)


def groups_of(target: Side, columns: int) -> Groups:
    """Return the tables, on the device, of a call whose tiles have `columns` targets."""
    batch, max_count = len(target.data), max_groups(target)
    tiles = triton.cdiv(batch, columns) if max_count == 1 else min(batch, batch // columns + max_count)
    number = torch.arange(max(max_count + 2, tiles * columns), device=target.data.device)
    lengths, order = torch.sort(target.lengths, stable=True)
    group = torch.nn.functional.pad(lengths.diff() > 0, (1, 0)).cumsum(0)  # (B,)
    start = torch.searchsorted(group, number[: max_count + 2])  # the first target of each
    length = torch.nn.functional.pad(lengths, (0, 1))[start[:-1]]
    first_tile = torch.nn.functional.pad(((start.diff() + columns - 1) // columns).cumsum(0), (1, 0))
    tile_group = torch.searchsorted(first_tile[1:-1], number[:tiles], right=True)
    column = number[: tiles * columns]
    group = tile_group[column // columns]
    place = start[group] + column - first_tile[group] * columns
    order = torch.where(place < start[group + 1], order[place.clamp(max=batch - 1)], -1)
    return Groups(max_count, order, length, first_tile, tile_group)


@dataclass(frozen=True)
class Pass:
    """One direction of resampling; `stride_i` and `stride_j` are the result's, in elements, by source and by target."""

    source: Side
    target: Side
    takes: str  # which pairs: see rows_kernels.takes
    squared: bool
    stride_i: int
    stride_j: int


def passes(x: Side, y: Side, squared: bool, resample: str, strides: tuple[int, ...]) -> list[Pass]:
    """Return the passes of a call; `strides` are those of its result, (B1, B2) or, of pairs, (B,)."""
    of_x, of_y = strides[0], strides[-1]
    if resample == "shorter" and x.full and y.full:
        resample = "x" if x.data.shape[1] <= y.data.shape[1] else "y"
    if resample == "shorter":
        return [Pass(x, y, "not_longer", squared, of_x, of_y), Pass(y, x, "shorter", squared, of_y, of_x)]
    if resample == "y":
        return [Pass(y, x, "all", squared, of_y, of_x)]
    return [Pass(x, y, "all", squared, of_x, of_y)]


class Chunk(NamedTuple):
    first_step: int
    steps: int
    first: int  # source
    sources: int


def chunks(steps: int, sources: int, tile: int, cell: int) -> Iterator[Chunk]:
    """Yield chunks of at most SCRATCH bytes, in whole tiles, of `cell` bytes for each source and step.

    All sources of some steps come before the next steps.
    """
    rows = min(whole(sources, tile), max(tile, SCRATCH // cell // tile * tile))
    # Even chunks, of as few as fit.
    steps_here = triton.cdiv(steps, triton.cdiv(steps, max(1, SCRATCH // (cell * rows))))
    for first_step in range(0, steps, steps_here):
        for first in range(0, sources, rows):
            yield Chunk(first_step, min(steps_here, steps - first_step), first, min(rows, sources - first))


def whole(count: int, tile: int) -> int:
    """Round `count` up to whole tiles."""
    return triton.cdiv(count, tile) * tile


class Packed:
    """Both sides of a pass, packed for the products, a chunk at a time."""

    def __init__(self, given: Pass) -> None:
        self.given, target = given, given.target
        self.batch, self.steps, self.features = target.data.shape
        self.sources, self.source_steps, _ = given.source.data.shape
        self.dtype, self.sum_dtype = target.data.dtype, target.nonfinite.dtype
        self.precision = float32_precision() if self.dtype == torch.float32 else "ieee"
        # float16 weights would overflow, or vanish.
        self.gradient_precision = "tf32" if self.dtype == torch.float16 else self.precision
        self.tensor_cores = self.dtype in (torch.bfloat16, torch.float16) or self.precision == "tf32"
        size = self.dtype.itemsize
        self.tile = tile_for(self.sources, self.batch // max_groups(target), self.features, size, self.tensor_cores)
        self.groups = groups_of(target, self.tile.targets)
        self.breadth = len(self.groups.order)
        if self.breadth > MAX_COLUMNS:
            raise ValueError(
                f"interpolated_euclidean: expected at most {MAX_COLUMNS} columns on the side that is not resampled, "
                f"got {self.batch} sequences of {max_groups(target)} lengths; compute the result in parts"
            )
        self.width = whole(self.features, self.tile.depth)
        # Bytes of a source's step in all groups.
        self.row_bytes = self.groups.max_count * (self.width * size + self.sum_dtype.itemsize)
        self.sources_in_order = torch.arange(self.sources, device=target.data.device)
        self.rows = self.row_norms = self.columns = self.column_norms = self.nothing = target.data.new_empty(0)

    def chunks(self, cell: int) -> Iterator[Chunk]:
        """Pack chunk after chunk, whose sources and steps need `cell` bytes each beyond their rows."""
        for chunk in chunks(self.steps, self.sources, self.tile.sources, self.row_bytes + cell):
            # Free the last chunk's rows first.
            self.rows = self.row_norms = self.nothing
            if chunk.first == 0:
                self.columns = self.column_norms = self.nothing
                every = chunk._replace(sources=self.breadth)
                self.columns, self.column_norms = self.pack(self.given.target, self.groups.order, every, self.breadth)
            self.height = whole(chunk.sources, self.tile.sources)
            self.rows, self.row_norms = self.pack(self.given.source, self.sources_in_order, chunk, self.height)
            yield chunk

    def pack(self, of: Side, order: Tensor, chunk: Chunk, height: int) -> tuple[Tensor, Tensor]:
        own = of is self.given.target
        slots = chunk.steps * (1 if own else self.groups.max_count)
        rows = of.data.new_empty((slots, height, self.width))
        norms = of.nonfinite.new_empty((slots, height))
        at_once = 16
        launch(
            rows_kernels.pack_rows,
            (slots * (height // at_once),),
            rows=rows,
            norms=norms,
            data=of.data,
            lengths=of.lengths,
            nonfinite=of.nonfinite,
            order=order,
            group_length=self.groups.length,
            first_step=chunk.first_step,
            steps_here=chunk.steps,
            first=chunk.first,
            count=chunk.sources,
            height=height,
            steps=of.data.shape[1],
            features=self.features,
            width=self.width,
            OWN=own,
            TF32=self.precision == "tf32",
            ROWS=at_once,
            BLOCK=min(128, triton.next_power_of_2(self.width)),
            num_warps=4,
        )
        return rows, norms

    def tiles(self) -> tuple[int, int]:
        """Return the numbers of tiles of the chunk, by rows and by columns."""
        return self.height // self.tile.sources, self.breadth // self.tile.targets
