"""Right answers for a few pairs: wrong is not timed."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.cases import Batch, Workload, inputs
from scav_kernels import reference

# Largest deviation of distances, and of gradients, which have the inputs' dtype, relative to their largest entry.
TOLERANCES = {torch.float64: (1e-12, 1e-10), torch.float32: (1e-4, 1e-3), torch.bfloat16: (1e-4, 1e-2)}
# After as many iterations, not all Sinkhorns have come equally far.
PEER_TOLERANCES = (1e-3, 2e-2)
# Cells that a check computes, or little more: where there are more, of the first sequences on both sides.
COMPUTED = 2**24
# Cells of a pair that the reference, which takes them one by one, gets through in time. Beyond, plain PyTorch in
# float64 stands in: it is among the peers, and compared with the reference there.
SHORT = 64 * 64
LONG = {
    reference.dtw: plain.dtw,
    reference.soft_dtw: plain.soft_dtw,
    # As many as change anything.
    reference.sinkhorn: lambda x, y, **_: plain.sinkhorn(x, y, iterations=10),
}
# Iterations that change nothing any more need not be waited for.
CONVERGED = {reference.sinkhorn: {"tolerance": 1e-12}}


class Question(NamedTuple):
    """A distance, its options, and what it is asked about: the first and last x's and y's of a workload."""

    distance: Callable[..., Tensor]
    options: tuple[tuple[str, Any], ...]
    work: Workload
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

    def computed(self) -> Batch:
        most = math.isqrt(COMPUTED // (self.work.n * self.work.m))
        sides = (torch.arange(min(size, most)) for size in (self.work.b1, self.work.b2))
        return inputs(self.work, self.dtype, self.device).pick(*sides)


def check(distance: Callable[..., Tensor], question: Question, direction: str, tolerances: tuple[float, float]) -> None:
    """Raises where `distance` gives another answer than the reference."""
    backward = direction == "forward_backward"
    batch = question.computed().leaves(backward)
    corners = [corner(steps) for steps in batch[:2]]
    value = distance(*batch.given())[corners[0]][:, corners[1]]
    right, right_gradients = answer(question)
    assert_close("distances", value, right, tolerances[0])
    if not backward or has_near_ties(question):
        return
    gradients = torch.autograd.grad(value.sum(), batch[:2])
    for name, gradient, rows, expected in zip("xy", gradients, corners, right_gradients, strict=True):
        assert_close(f"gradients of {name}", gradient[rows], expected, tolerances[1])


def corner(steps: Tensor) -> Tensor:
    """The first and the last, which may be one."""
    return torch.tensor([0, len(steps) - 1]).unique()


@cache
def answer(question: Question) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Distances (2, 2) and the gradients of their sum in x (2, N, D) and y (2, M, D), by the reference in float64."""
    batch = question.computed()
    batch = batch.pick(*map(corner, batch[:2])).leaves(True, torch.float64)
    long = question.work.n * question.work.m > SHORT
    distance = LONG.get(question.distance, question.distance) if long else question.distance
    value = distance(*batch.given(), **dict(question.options) | CONVERGED.get(distance, {}))
    return value.detach(), torch.autograd.grad(value.sum(), batch[:2])


def has_near_ties(question: Question) -> bool:
    """Return True if rounding may choose another path of nearly the same cost, and so another gradient."""
    return question.distance is reference.dtw and question.work.n * question.work.m > SHORT


def assert_close(name: str, actual: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = (actual.detach().cpu().double() - expected.cpu()).abs().max() / expected.abs().max().cpu()
    assert difference <= tolerance, f"{name}: relative difference {difference:.1e}, allowed {tolerance:.0e}"
