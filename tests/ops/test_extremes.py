"""Sizes, magnitudes and smoothing that are far apart, and denormal numbers."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import scav_kernels
from scav_kernels import reference

from .cases import CASES, CORE, OPS, Case, crossed
from .inputs import Sequences, Shape, answer, sequences
from .test_closed_form import delannoy
from .tolerances import ALIGNMENT, assert_accurate, assert_close, floor

BANDED_AND_CORE = CORE + [case for case in OPS if case.options.get("band") is not None]
SMALL = Shape(b1=2, b2=3, n=7, m=6, d=5)
COSTS = ["euclidean", "sqeuclidean", "cosine"]


def check(case: Case, given: Sequences) -> None:
    oracle = answer(case.reference, given.map(Tensor.double))
    plain = [answer(formula, given) for formula in (case.reference, case.plain)]
    assert_accurate(case, answer(case.kernel, given), plain, oracle)


@pytest.mark.parametrize(("case", "size"), crossed(BANDED_AND_CORE, [(257, 1), (1, 257), (257, 3), (3, 257)]))
def test_long_against_short(case: Case, size: tuple[int, int]) -> None:
    n, m = size
    check(case, sequences(Shape(b1=1, b2=2, n=n, m=m, d=3, ragged=False)))


def cost_of(case: Case) -> str:
    squared = case.options.get("squared") or case.all_options().get("cost") == "sqeuclidean"
    return "sqeuclidean" if squared else case.all_options().get("cost", "euclidean")


def smoothed(case: Case, unit: float) -> Case:
    """Gamma and epsilon in that unit."""
    options = case.all_options()
    return replace(
        case,
        options={**case.options, **{name: options[name] * unit for name in ("gamma", "epsilon") if name in options}},
    )


@pytest.mark.parametrize(("case", "scale"), crossed(CASES, [1e-6, 1e-3, 1e3, 1e6]))
def test_magnitudes(case: Case, scale: float) -> None:
    unit = {"euclidean": scale, "sqeuclidean": scale**2, "cosine": 1.0}[cost_of(case)]
    check(smoothed(case, unit), sequences(SMALL).map(lambda x: x * scale))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_magnitudes_that_differ(case: Case) -> None:
    # Steps from 1e-6 to 1e6, in turn.
    unit = {"euclidean": 1e6, "sqeuclidean": 1e12, "cosine": 1.0}[cost_of(case)]
    magnitudes = 10.0 ** torch.tensor([-6, 6, 0, -3, 3, 5, -1])
    # Of few seeds are the shortest paths shorter than all others by more than rounding of the largest costs.
    given = sequences(SMALL, seed=24)
    check(smoothed(case, unit), given.map(lambda x: x * magnitudes[: x.shape[1], None]))


@pytest.mark.parametrize("relative", [1e-4, 1e-3, 1e-2, 1e2, 1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize(("metric", "name"), [("soft_dtw", "gamma"), ("sinkhorn", "epsilon")])
def test_smoothing(metric: str, name: str, cost: str, dtype: torch.dtype, relative: float) -> None:
    check(Case(metric, metric, {name: relative, "cost": cost}), sequences(SMALL, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 40), (40, 1)])
def test_soft_dtw_of_one_step_is_the_sum_of_costs_whatever_gamma(n: int, m: int, dtype: torch.dtype) -> None:
    case = Case("soft_dtw", "soft_dtw", {"gamma": 1e4})
    check(case, sequences(Shape(b1=1, b2=18, n=n, m=m, d=3), dtype))
    cost = torch.rand(3, 2, n, m, dtype=dtype, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(scav_kernels.soft_dtw_from_cost(cost, gamma=1e4), cost.sum((2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_soft_dtw_tends_to_dtw(dtype: torch.dtype) -> None:
    given = sequences(SMALL, dtype)
    hard = answer(Case("dtw", "dtw", {"cost": "sqeuclidean"}).kernel, given)
    soft = answer(Case("soft_dtw", "soft_dtw", {"gamma": 1e-6}).kernel, given)
    for part in hard._fields:
        assert_close(part, getattr(soft, part), getattr(hard, part))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_soft_dtw_tends_to_the_mean_over_paths(dtype: torch.dtype) -> None:
    n, m, gamma = 6, 9, 1e4
    cost = torch.rand(n, m, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = scav_kernels.soft_dtw_from_cost(cost, gamma=gamma)
    value.backward()
    # How many of all paths pass a cell.
    paths = delannoy(n - 1, m - 1)
    shares = torch.tensor(
        [[delannoy(s, t) * delannoy(n - 1 - s, m - 1 - t) / paths for t in range(m)] for s in range(n)],
        dtype=torch.float64,
    )
    expected = -gamma * math.log(paths) + (shares * cost.detach().double()).sum()
    # Hoeffding: path costs lie in [0, n + m], and rounding is in units of the largest term.
    allowed = (n + m) ** 2 / (8 * gamma) + floor(dtype) * gamma * math.log(paths)
    assert abs(value.item() - expected.item()) <= allowed
    # A share changes by its own size times the spread of path costs over gamma.
    assert (cost.grad.double() - shares).abs().max().item() <= (n + m) / gamma + ALIGNMENT


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_sinkhorn_tends_to_the_assignment(dtype: torch.dtype) -> None:
    cost = torch.rand(8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    epsilon = 1e-3
    value = scav_kernels.sinkhorn_from_cost(cost, epsilon=epsilon, max_iterations=20_000, tolerance=1e-4)
    value.backward()
    assignment = linear_sum_assignment(cost.detach().numpy())
    exact = cost.detach()[assignment].double().mean().item()
    assert exact - 1e-4 <= value.item() <= exact + epsilon * math.log(8) + floor(dtype)
    expected = torch.zeros(8, 8, dtype=dtype)
    expected[assignment] = 1 / 8
    torch.testing.assert_close(cost.grad, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("epsilon", [1e2, 1e4])
def test_sinkhorn_tends_to_the_mean_cost(epsilon: float, dtype: torch.dtype) -> None:
    cost = torch.rand(8, 11, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = scav_kernels.sinkhorn_from_cost(cost, epsilon=epsilon, tolerance=0.0)
    value.backward()
    # Hoeffding, for costs in [0, 1]; logarithms round in units of epsilon.
    rounding = floor(dtype) * epsilon
    mean = cost.detach().double().mean().item()
    assert mean - 1 / (8 * epsilon) - rounding <= value.item() <= mean + rounding
    # exp((f + g − c) / ε), whose exponent is at most 2 / ε from 0.
    assert (cost.grad.double() * 88 - 1).abs().max().item() <= 3 / epsilon + floor(dtype)


@pytest.fixture(params=[False, True], ids=["denormals", "flushed"])
def flushed(request: pytest.FixtureRequest) -> Iterator[bool]:
    assert torch.set_flush_denormal(request.param)
    yield request.param
    torch.set_flush_denormal(False)


def denormal(x: Tensor) -> Tensor:
    return x * 1e-39


@pytest.mark.parametrize("case", CASES, ids=str)
def test_denormal_steps_are_as_zero(case: Case, flushed: bool) -> None:
    torch.set_flush_denormal(False)
    given = sequences(SMALL).map(denormal)
    assert (given.x.abs() < torch.finfo(torch.float32).tiny).all()
    oracle = case.reference(*given.map(Tensor.double))
    torch.set_flush_denormal(flushed)
    found = answer(case.kernel, given)
    # Their squares are zero in float32, and so are distances below the root of the smallest normal number.
    # Logarithms round in units of epsilon.
    largest = oracle.abs().max().item() + case.all_options().get("epsilon", 0.0)
    allowed = floor(torch.float32) * largest + torch.finfo(torch.float32).tiny ** 0.5
    assert (found.value.double() - oracle).abs().max().item() <= allowed
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_denormal_steps_among_others(case: Case, flushed: bool) -> None:
    torch.set_flush_denormal(False)
    given = sequences(SMALL).map(lambda x: torch.cat([denormal(x[:, :2]), x[:, 2:]], 1))
    oracle = answer(case.reference, given.map(Tensor.double))
    plain = [answer(formula, given) for formula in (case.reference, case.plain)]
    torch.set_flush_denormal(flushed)
    assert_accurate(case, answer(case.kernel, given), plain, oracle)


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_denormal_costs(metric: str, flushed: bool) -> None:
    torch.set_flush_denormal(False)
    cost = denormal(torch.rand(2, 17, 6, 7, generator=torch.Generator().manual_seed(0)))
    oracle = getattr(reference, f"{metric}_from_cost")(cost.double())
    torch.set_flush_denormal(flushed)
    cost.requires_grad_()
    value = getattr(scav_kernels, f"{metric}_from_cost")(cost)
    value.sum().backward()
    largest = oracle.abs().max().item() + (0.05 if metric == "sinkhorn" else 0.0)
    allowed = floor(torch.float32) * largest + 13 * torch.finfo(torch.float32).tiny
    assert (value.double() - oracle).abs().max().item() <= allowed
    assert ((cost.grad >= 0) & (cost.grad <= 1 + ALIGNMENT)).all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [256, 4096])
@pytest.mark.parametrize(("gamma", "factor"), [(1e-3, 1.0), (0.1, 100.0)])
def test_alignments_lose_no_mass(n: int, gamma: float, factor: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (factor**0.5 * torch.randn(n, 8, generator=generator) for _ in range(2))
    expected = scav_kernels.soft_dtw_alignment(x, y, gamma=gamma)
    assert abs(expected[0, 0].item() - 1) <= ALIGNMENT
    assert abs(expected[-1, -1].item() - 1) <= ALIGNMENT
