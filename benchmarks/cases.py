"""The measured workloads and ops, and their combinations."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import scav_kernels

DIRECTIONS = ("forward", "forward_backward")


@dataclass(frozen=True)
class Workload:
    """Batch sizes, steps and features of x (B1, N, D) and y (B2, M, D); lengths drawn in [shortest, N] and [.., M]."""

    name: str
    b1: int
    b2: int
    n: int
    m: int
    d: int = 512
    shortest: int | None = None
    directions: tuple[str, ...] = DIRECTIONS
    dtypes: tuple[torch.dtype, ...] = (torch.float32,)
    devices: tuple[str, ...] = ("cpu", "cuda")
    # Of as many as fit into a second, unless said.
    rounds: int | None = None
    ops: tuple[str, ...] = ("interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn", "chamfer")
    # Whether the limit is the recursion of one feature in registers, not the products.
    few_features: bool = False

    def tiny(self) -> "Workload":
        """The same kind of thing, in no time."""
        return replace(self, b1=4, b2=3, n=7, m=5, d=8, shortest=self.shortest and 2, rounds=1)


CPU, CUDA = ("cpu",), ("cuda",)
WORKLOADS = [
    Workload("paper", 32, 32, 50, 62, dtypes=(torch.float32, torch.bfloat16, torch.float64)),
    Workload("batch", 256, 256, 50, 62, devices=CPU),
    Workload("batch-1024", 1024, 1024, 50, 62, dtypes=(torch.bfloat16, torch.float32), devices=CUDA),
    Workload("batch-4096", 4096, 4096, 50, 62, dtypes=(torch.bfloat16,), devices=CUDA, rounds=3),
    Workload("square", 64, 64, 64, 64, dtypes=(torch.float32, torch.bfloat16)),
    Workload("square-1024", 1024, 1024, 64, 64, dtypes=(torch.bfloat16, torch.float32), devices=CUDA),
    Workload("ragged", 128, 128, 64, 64, shortest=8),
    # As many cells as `ragged` has valid ones, within a few per cent.
    Workload("even", 128, 128, 36, 36),
    Workload("long", 8, 8, 2048, 2048, d=64),
    *(
        Workload(name, 256, 256, 128, 128, d=d, devices=CPU, ops=("dtw", "soft_dtw"), few_features=True)
        for name, d in (("series", 1), ("series-3", 3), ("series-8", 8))
    ),
    Workload("pair", 1, 1, 2000, 2000, d=1, devices=CPU, ops=("dtw", "soft_dtw")),
    Workload("pair-64", 1, 1, 2000, 2000, d=64, devices=CPU, ops=("dtw", "soft_dtw")),
    Workload("gallery", 100, 10_000, 50, 62, directions=DIRECTIONS[:1], devices=CPU, rounds=1),
    Workload(
        "gallery-15000",
        15_000,
        15_000,
        50,
        62,
        dtypes=(torch.bfloat16,),
        directions=DIRECTIONS[:1],
        devices=CUDA,
        rounds=3,
    ),
]
SQUARE, LONG, PAIR, SERIES = (
    next(work for work in WORKLOADS if work.name == name) for name in ("square", "long", "pair", "series")
)

# The options that fix the work: Sinkhorn never stops early.
OPS: dict[str, dict[str, Any]] = {
    "interpolated_euclidean": {},
    "dtw": {},
    "soft_dtw": {},
    "sinkhorn": {"max_iterations": 100, "tolerance": 0.0},
    "chamfer": {},
}
OURS = "scav_kernels"


class Case(NamedTuple):
    op: str
    work: Workload
    direction: str
    dtype: torch.dtype
    device: str

    def __str__(self) -> str:
        return "-".join((self.op, self.work.name, self.direction, name_of(self.dtype), self.device))


CASES = [
    Case(op, work, direction, dtype, device)
    for work in WORKLOADS
    for op in work.ops
    for direction in work.directions
    for dtype in work.dtypes
    for device in work.devices
]


class Batch(NamedTuple):
    """The arguments of an op."""

    x: Tensor  # (B1, N, D)
    y: Tensor  # (B2, M, D)
    x_lengths: Tensor | None = None
    y_lengths: Tensor | None = None

    def pick(self, rows: Tensor, columns: Tensor) -> "Batch":
        """Some of the x's and some of the y's, detached."""
        parts = zip(self, (rows, columns, rows, columns), strict=True)
        return Batch(*(None if part is None else part.detach()[which.to(part.device)] for part, which in parts))

    def leaves(self, gradient: bool, dtype: torch.dtype | None = None) -> "Batch":
        x, y = (steps.detach().to(dtype).requires_grad_(gradient) for steps in self[:2])
        return self._replace(x=x, y=y)

    def given(self) -> tuple[Tensor, ...]:
        """Without lengths where there are none, for those who take none."""
        return self[:2] if self.x_lengths is None else self


def inputs(work: Workload, dtype: torch.dtype = torch.float32, device: str = "cpu", gradient: bool = False) -> Batch:
    """Seeded normal steps of expected norm one."""
    generator = torch.Generator().manual_seed(0)

    def steps(batch: int, length: int) -> Tensor:
        drawn = torch.randn(batch, length, work.d, generator=generator).div_(work.d**0.5)
        return drawn.to(device, dtype).requires_grad_(gradient)

    def lengths(batch: int, longest: int) -> Tensor | None:
        if work.shortest is None:
            return None
        return torch.randint(work.shortest, longest + 1, (batch,), generator=generator).to(device)

    return Batch(steps(work.b1, work.n), steps(work.b2, work.m), lengths(work.b1, work.n), lengths(work.b2, work.m))


def products(op: str, batch: Batch) -> tuple[int, int]:
    """(rows, columns) of the one matrix product, of depth D, that has every valid cell's: all steps of all x's against
    all of all y's, or of each x resampled to y's length only those that meet."""
    x_steps, y_steps = (
        part.shape[0] * part.shape[1] if lengths is None else int(lengths.sum())
        for part, lengths in ((batch.x, batch.x_lengths), (batch.y, batch.y_lengths))
    )
    return batch.x.shape[0] if op == "interpolated_euclidean" else x_steps, y_steps


def ours(op: str, **options: object) -> partial[Tensor]:
    """Our distance, with the options of `OPS` unless others are given."""
    return partial(scav_kernels.cdist, metric=op, **{**OPS[op], **options})


def once(distance: Callable[..., Tensor], batch: Batch, direction: str) -> object:
    """One forward, or forward and backward."""
    out = distance(*batch.given())
    return out if direction == "forward" else torch.autograd.grad(out.sum(), batch[:2])


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
