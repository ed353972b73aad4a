"""Prints the growth in bytes of this process's resident memory, at its peak, during an op, forward and then backward.

Arguments: a metric, the name of a function of given costs, or "materialized" for a tensor of all cells; then the number
of sequences on each side and their steps, any number of times. A line for each: the two peaks.
"""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import scav_kernels

DIMENSIONS = 8


def resident(field: str) -> int:
    """VmRSS, now, or VmHWM, at most, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def peak(work: Callable[[], object]) -> int:
    # What was freed before must not serve again uncounted.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def inputs(metric: str, batch: int, steps: int) -> list[Tensor]:
    """Sequences; or costs that all pairs share, so that they take no memory themselves."""
    if metric.endswith("_from_cost"):
        return [torch.randn(1, 1, steps, steps, requires_grad=True)]
    return [torch.randn(batch, steps, DIMENSIONS, requires_grad=True) for _ in range(2)]


def distance(metric: str, given: list[Tensor], batch: int) -> Tensor:
    options = {"max_iterations": 3} if metric.startswith("sinkhorn") else {}
    if metric.endswith("_from_cost"):
        return getattr(scav_kernels, metric)(given[0].expand(batch, batch, -1, -1), **options)
    return scav_kernels.cdist(*given, metric=metric, **options)


def peaks(metric: str, batch: int, steps: int) -> tuple[int, int]:
    if metric == "materialized":
        return peak(lambda: torch.ones(batch, batch, steps, steps)), 0
    given = inputs(metric, batch, steps)
    with torch.no_grad():
        forward = peak(lambda: distance(metric, given, batch))
    return forward, peak(lambda: torch.autograd.grad(distance(metric, given, batch).sum(), given))


def main() -> None:
    metric, *sizes = sys.argv[1:]
    torch.set_num_threads(1)
    # Whatever is loaded or allocated once.
    peaks(metric, 2, 4)
    for batch, steps in zip(sizes[::2], sizes[1::2], strict=True):
        print(*peaks(metric, int(batch), int(steps)))


if __name__ == "__main__":
    main()
