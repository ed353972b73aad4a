"""The cosine of steps that are zero or nearly so: its value, and its gradient, which is 0 where a norm is too small."""

from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference

from .inputs import Answer, Sequences, Shape, answer, sequences

OPS = [
    ("dtw", {}),
    ("soft_dtw", {"gamma": 0.5}),
    ("sinkhorn", {"epsilon": 1.0, "max_iterations": 500}),
    ("chamfer", {"direction": "both"}),
]
# Norms, below and from 1e-8 on.
BELOW, FROM = [0.0, 1e-30, 1e-12, 0.99e-8], [1.01e-8, 1e-7, 1e-5, 1e-3]
# float16 does not hold gradients of about 1 / norm, which are 0 then.
LARGEST = torch.finfo(torch.float16).max
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def with_short_steps(norm: float, dtype: torch.dtype, sides: str) -> Sequences:
    """Step 1 of each sequence of `sides` has that norm."""
    given = sequences(Shape(b1=2, b2=2, n=4, m=5, d=8, ragged=False), torch.float64)
    for side in sides:
        step = getattr(given, side)[:, 1]
        step *= norm / step.norm(dim=-1, keepdim=True)
    return given.map(lambda steps: steps.to(dtype))


def both(metric: str, given: Sequences, options: dict[str, Any]) -> tuple[Answer, Answer]:
    found = answer(lambda *of: getattr(scav_kernels, metric)(*of, cost="cosine", **options), given)
    wide = given.map(Tensor.double)
    return found, answer(lambda *of: getattr(reference, metric)(*of, cost="cosine", **options), wide)


@pytest.mark.parametrize("sides", ["x", "y", "xy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", BELOW, ids=str)
@pytest.mark.parametrize(("metric", "options"), OPS, ids=[op for op, _ in OPS])
def test_below_the_smallest_norm(metric: str, options: Any, norm: float, dtype: torch.dtype, sides: str) -> None:
    given = with_short_steps(norm, dtype, sides)
    found, oracle = both(metric, given, options)
    for side in "xy":
        grad, wanted = getattr(found, f"{side}_grad"), getattr(oracle, f"{side}_grad")
        if side in sides:
            assert (wanted[:, 1] == 0).all()
            assert (grad[:, 1] == 0).all()
        assert_close(grad, wanted, dtype)
    assert_close(found.value, oracle.value, torch.float32 if dtype != torch.float64 else dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("norm", FROM, ids=str)
@pytest.mark.parametrize(("metric", "options"), OPS, ids=[op for op, _ in OPS])
def test_from_the_smallest_norm_on(metric: str, options: Any, norm: float, dtype: torch.dtype) -> None:
    given = with_short_steps(norm, dtype, "xy")
    found, oracle = both(metric, given, options)
    for side in "xy":
        grad, wanted = getattr(found, f"{side}_grad"), getattr(oracle, f"{side}_grad")
        assert grad.isfinite().all()
        if dtype == torch.float16:
            wanted = wanted.masked_fill((wanted.abs() > LARGEST).any(-1, keepdim=True), 0)
        else:
            assert (grad[:, 1].double().norm(dim=-1) > 1e-3 / norm).all()
        # Of its own size each.
        for step in range(wanted.shape[1]):
            assert_close(grad[:, step], wanted[:, step], dtype)


def test_float16_keeps_a_large_gradient_that_it_holds() -> None:
    given = with_short_steps(1e-5, torch.float16, "x").leaves()
    wide = given.map(Tensor.double).leaves()
    for scale, zero in ((1e-3, False), (1.0, True)):
        (found,), (expected,) = (
            torch.autograd.grad(scale * op.dtw(of.x, of.y, cost="cosine").sum(), of.x)
            for op, of in ((scav_kernels, given), (reference, wide))
        )
        assert (expected[:, 1].abs().amax() > LARGEST) == zero
        assert bool((found[:, 1] == 0).all()) == zero
        if not zero:
            assert_close(found[:, 1], expected[:, 1], torch.float16)


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    scale = max(expected.abs().max().item(), 1e-3)
    allowed = 2e4 * torch.finfo(torch.float64).eps if dtype == torch.float64 else max(1e-4, 4 * torch.finfo(dtype).eps)
    assert (found.double() - expected).abs().max().item() <= allowed * scale


@pytest.mark.parametrize("norm", [*BELOW, *FROM], ids=str)
def test_the_cost_to_look_at_is_that_of_the_kernels(norm: float) -> None:
    given = with_short_steps(norm, torch.float64, "xy")
    plan = scav_kernels.sinkhorn_plan(given.x[0], given.y[0], cost="cosine", epsilon=1.0)
    cost = reference.ground_cost.ground_cost(given.x[0], given.y[0], "cosine")
    torch.testing.assert_close(plan, torch.autograd.grad(transport(cost), cost)[0])


def transport(cost: Tensor) -> Tensor:
    return scav_kernels.sinkhorn_from_cost(cost.requires_grad_(), epsilon=1.0)
