"""Sinkhorn's iterations, how they end, and what a caller hears of it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import scav_kernels
from scav_kernels import Convergence, reference

from .inputs import Sequences, Shape, sequences
from .tolerances import FLOOR_ULPS

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_iterations": 7},
    {"max_iterations": 1},
    {"max_iterations": 20, "tolerance": 0.0},
    {"epsilon": 1.0, "tolerance": 1e-6},
    # Potentials are absorbed on the way.
    {"epsilon": 0.005, "max_iterations": 300, "tolerance": 1e-2},
    {"cost": "sqeuclidean", "epsilon": 0.2},
    {"cost": "cosine"},
]
RAGGED = Shape(b1=5, b2=5, n=21, m=18, d=4)
# What a call with few iterations leaves.
FEW = {"epsilon": 0.01, "max_iterations": 3}


def assert_agrees(found: tuple[Tensor, Convergence], oracle: tuple[Tensor, Convergence], options: Any) -> None:
    (value, ended), (expected, wanted) = found, oracle
    assert isinstance(ended, Convergence)
    assert ended.iterations.shape == ended.marginal_error.shape == value.shape
    assert (ended.iterations.dtype, ended.marginal_error.dtype) == (torch.int64, value.dtype)
    tolerance = options.get("tolerance", 1e-3)
    # A rounding of the costs is one of the plan's exponents.
    rounding = 40 * FLOOR_ULPS * torch.finfo(value.dtype).eps / options.get("epsilon", 0.05)
    same = ended.iterations == wanted.iterations
    near = (wanted.marginal_error - tolerance).abs() <= rounding
    assert (same | near | (value.dtype == torch.float32)).all()
    assert ((ended.iterations - wanted.iterations).abs() <= 1).all()
    error = (ended.marginal_error.double() - wanted.marginal_error.double()).abs()
    assert (error[same] <= rounding * (1 + wanted.marginal_error[same])).all()
    torch.testing.assert_close(value.double(), expected.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("paired", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_agrees_with_the_reference(options: dict[str, Any], paired: bool, dtype: torch.dtype) -> None:
    given = sequences(RAGGED, dtype)
    distance = scav_kernels.pairwise_distance if paired else scav_kernels.cdist
    found = distance(*given, metric="sinkhorn", return_convergence=True, **options)
    wide = given.map(Tensor.double)
    oracle = reference.sinkhorn(*wide, paired=paired, return_convergence=True, **options)
    assert_agrees(found, oracle, options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_of_given_costs_agrees_with_the_reference(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(3, 4, 9, 7, dtype=dtype, generator=generator)
    cost[torch.rand(cost.shape, generator=generator) < 0.1] = torch.inf
    cost[0, 0, 0, 0], cost[0, 1, 0, 0], cost[0, 2, 3] = torch.nan, -torch.inf, torch.inf
    lengths = torch.tensor([9, 5, 1]), torch.tensor([7, 7, 7, 3])
    options = {"max_iterations": 30, "epsilon": 0.1}
    found = scav_kernels.sinkhorn_from_cost(cost, *lengths, return_convergence=True, **options)
    oracle = reference.sinkhorn_from_cost(cost.double(), *lengths, return_convergence=True, **options)
    for without in (found[1], oracle[1]):
        assert without.iterations[0, :3].tolist() == [0] * 3
        assert without.marginal_error[0, :3].isnan().all()
    known = ~oracle[1].marginal_error.isnan()
    assert_agrees(
        *((value[known], Convergence(*(of[known] for of in ended))) for value, ended in (found, oracle)), options
    )
    one = scav_kernels.sinkhorn_from_cost(cost[1, 0, :5], return_convergence=True, **options)
    assert one[0].shape == one[1].iterations.shape == one[1].marginal_error.shape == ()
    assert (one[0], *one[1]) == (found[0][1, 0], found[1].iterations[1, 0], found[1].marginal_error[1, 0])


def test_of_a_pair_whose_costs_are_made_anew_in_each_iteration() -> None:
    """K of so many cells is held nowhere."""
    x, y = (torch.rand(1, 1500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    for options in ({"max_iterations": 2, "epsilon": 0.1}, {"epsilon": 1.0, "tolerance": 1e-2}):
        assert_agrees(
            scav_kernels.sinkhorn(x, y, return_convergence=True, **options),
            reference.sinkhorn(x, y, return_convergence=True, **options),
            options,
        )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_asking_changes_no_digit(options: dict[str, Any]) -> None:
    given = sequences(RAGGED).leaves()
    plain = scav_kernels.sinkhorn(*given, **options)
    value, ended = scav_kernels.sinkhorn(*given, return_convergence=True, **options)
    assert torch.equal(plain, value)
    grads = [torch.autograd.grad(of.sum(), (given.x, given.y)) for of in (plain, value)]
    assert all(map(torch.equal, *grads))
    assert not any(of.requires_grad for of in ended)
    limit, tolerance = options.get("max_iterations", 100), options.get("tolerance", 1e-3)
    assert ((ended.marginal_error < tolerance) | (ended.iterations == limit)).all()


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_the_divergence_reports_the_worst_of_its_terms(paired: bool) -> None:
    given = sequences(RAGGED, torch.float64).leaves()
    options = {"epsilon": 0.5, "max_iterations": 20, "tolerance": 1e-2}
    distance = scav_kernels.pairwise_distance if paired else scav_kernels.cdist
    value, ended = distance(*given, metric="sinkhorn_divergence", return_convergence=True, **options)
    plain = distance(*given, metric="sinkhorn_divergence", **options)
    assert torch.equal(value, plain)
    grads = [torch.autograd.grad(of.sum(), (given.x, given.y)) for of in (plain, value)]
    assert all(map(torch.equal, *grads))
    x, y, x_lengths, y_lengths = given
    _, cross = reference.sinkhorn(*given, paired=paired, return_convergence=True, **options)
    _, of_x = reference.sinkhorn(x, x, x_lengths, x_lengths, paired=True, return_convergence=True, **options)
    _, of_y = reference.sinkhorn(y, y, y_lengths, y_lengths, paired=True, return_convergence=True, **options)
    for found, whole, one, other in zip(ended, cross, of_x, of_y, strict=True):
        rows = one if paired else one[:, None]
        torch.testing.assert_close(found, torch.maximum(torch.maximum(whole, rows), other))
    assert len(ended.iterations.unique()) > 1


def test_padding_does_not_matter() -> None:
    given = sequences(RAGGED)
    poisoned = given._replace(x=given.x.clone(), y=given.y.clone())
    for steps, lengths in ((poisoned.x, given.x_lengths), (poisoned.y, given.y_lengths)):
        steps[torch.arange(steps.shape[1]) >= lengths[:, None]] = torch.nan
    (value, ended), (expected, wanted) = (
        scav_kernels.sinkhorn(*of, return_convergence=True) for of in (poisoned, given)
    )
    assert all(map(torch.equal, (value, *ended), (expected, *wanted)))


def test_a_step_that_is_not_finite() -> None:
    given = sequences(Shape(b1=3, b2=2, ragged=False))
    given.x[0, 1, 0], given.x[1, 0, 0] = torch.nan, torch.inf
    _, ended = scav_kernels.sinkhorn(*given, return_convergence=True)
    assert ended.iterations[:2].tolist() == [[0, 0], [0, 0]]
    assert ended.marginal_error[:2].isnan().all()
    assert ended.iterations[2].min() >= 1


def test_empty_batches() -> None:
    given = sequences(Shape(ragged=False))
    value, ended = scav_kernels.sinkhorn(given.x[:0], given.y, return_convergence=True)
    assert value.shape == ended.iterations.shape == ended.marginal_error.shape == (0, 4)


def test_compiled_and_fake() -> None:
    torch._dynamo.reset()
    given = sequences(Shape(ragged=False))

    def ask(x: Tensor, y: Tensor) -> tuple[Tensor, Convergence]:
        return scav_kernels.sinkhorn(x, y, return_convergence=True)

    found, expected = (
        function(given.x, given.y) for function in (torch.compile(ask, fullgraph=True, backend="aot_eager"), ask)
    )
    assert isinstance(found[1], Convergence)
    assert all(map(torch.equal, (found[0], *found[1]), (expected[0], *expected[1])))
    with FakeTensorMode() as mode:
        fake = ask(mode.from_tensor(given.x), mode.from_tensor(given.y))
    for of, real in zip((fake[0], *fake[1]), (expected[0], *expected[1]), strict=True):
        assert (of.shape, of.dtype) == (real.shape, real.dtype)


# ---- the warning ----

UNCONVERGED = sequences(Shape(b1=4, b2=3, n=8, m=9, ragged=False))


def messages(call: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        call()
    return heard


def costs(given: Sequences) -> Tensor:
    return torch.cdist(given.x[:, None], given.y[None])


def test_says_how_many_and_the_worst() -> None:
    _, ended = scav_kernels.sinkhorn(*UNCONVERGED, return_convergence=True, **FEW)
    above = ended.marginal_error >= 1e-3
    assert above.any()
    (heard,) = messages(lambda: scav_kernels.sinkhorn(*UNCONVERGED, **FEW))
    assert str(heard.message) == (
        f"sinkhorn: {int(above.sum())} of 12 pairs stopped after max_iterations = 3 with a marginal error above "
        f"tolerance = 0.001 (largest {ended.marginal_error.max():.2g}); raise max_iterations or epsilon"
    )
    assert (heard.category, heard.filename) == (UserWarning, __file__)


CALLS: dict[str, tuple[str, Callable[[], object]]] = {
    "cdist": ("sinkhorn: ", lambda: scav_kernels.cdist(*UNCONVERGED, metric="sinkhorn", **FEW)),
    "pairwise_distance": (
        "sinkhorn: ",
        lambda: scav_kernels.pairwise_distance(UNCONVERGED.x[:3], UNCONVERGED.y, metric="sinkhorn", **FEW),
    ),
    "sinkhorn_from_cost": (
        "sinkhorn_from_cost: ",
        lambda: scav_kernels.sinkhorn_from_cost(costs(UNCONVERGED), **FEW),
    ),
    "one_pair": (
        "sinkhorn_from_cost: 1 of 1 ",
        lambda: scav_kernels.sinkhorn_from_cost(costs(UNCONVERGED)[0, 0], **FEW),
    ),
    "sinkhorn_plan": (
        "sinkhorn_plan: 1 of 1 ",
        lambda: scav_kernels.sinkhorn_plan(UNCONVERGED.x[0], UNCONVERGED.y[0], **FEW),
    ),
    "sinkhorn_divergence": ("sinkhorn_divergence: ", lambda: scav_kernels.sinkhorn_divergence(*UNCONVERGED, **FEW)),
    "topk": ("topk: ", lambda: scav_kernels.topk(UNCONVERGED.x, UNCONVERGED.y, 2, metric="sinkhorn", **FEW)),
    "loss": ("sinkhorn: ", lambda: scav_kernels.nn.SinkhornLoss(**FEW)(UNCONVERGED.x[:3], UNCONVERGED.y)),
    "return_convergence": ("sinkhorn: ", lambda: scav_kernels.sinkhorn(*UNCONVERGED, return_convergence=True, **FEW)),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_call_warns_once_under_its_name(name: str) -> None:
    start, call = CALLS[name]
    (heard,) = messages(call)
    assert str(heard.message).startswith(start)
    assert heard.filename == __file__


def compiled() -> object:
    torch._dynamo.reset()
    return torch.compile(lambda: scav_kernels.sinkhorn(*UNCONVERGED, **FEW), fullgraph=True, backend="aot_eager")()


def faked() -> None:
    with FakeTensorMode() as mode:
        scav_kernels.sinkhorn(mode.from_tensor(UNCONVERGED.x), mode.from_tensor(UNCONVERGED.y), **FEW)


SILENT: dict[str, Callable[[], object]] = {
    "converged": lambda: scav_kernels.sinkhorn(*UNCONVERGED, epsilon=1.0),
    "a fixed count of iterations": lambda: scav_kernels.sinkhorn(*UNCONVERGED, **{**FEW, "tolerance": 0.0}),
    "not a number": lambda: scav_kernels.sinkhorn(UNCONVERGED.x * torch.nan, UNCONVERGED.y, **FEW),
    "no pair": lambda: scav_kernels.sinkhorn(UNCONVERGED.x[:0], UNCONVERGED.y, **FEW),
    "compiled": compiled,
    "fake": faked,
    "meta": lambda: scav_kernels.sinkhorn(UNCONVERGED.x.to("meta"), UNCONVERGED.y.to("meta"), **FEW),
}


@pytest.mark.parametrize("name", SILENT)
def test_is_silent_where(name: str) -> None:
    assert not messages(SILENT[name])


def test_a_search_does_not_return_convergence() -> None:
    with pytest.raises(ValueError, match="topk: expected return_convergence=False"):
        scav_kernels.topk(UNCONVERGED.x, UNCONVERGED.y, 2, metric="sinkhorn", return_convergence=True)
    with pytest.raises(TypeError, match="sinkhorn: expected return_convergence to be a bool"):
        scav_kernels.sinkhorn(*UNCONVERGED, return_convergence=1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("scaling", [None, 0.5])
@pytest.mark.parametrize("far", [1.0, 2.3, 3.8, 4.2, 20.0, 35.0, 40.0])
def test_a_step_far_from_all_others(far: float, scaling: float | None, dtype: torch.dtype) -> None:
    """Exponentials of its costs over epsilon, relative to those of other steps, are of all sizes down to none."""
    cost = torch.rand(2, 2, 9, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    cost[..., 3] += far
    cost[:, 1, 4] += far
    options: dict[str, Any] = {"max_iterations": 200, "tolerance": 1e-6, "scaling": scaling}
    given, wide = (cost.to(of).requires_grad_() for of in (dtype, torch.float64))
    found = scav_kernels.sinkhorn_from_cost(given, **options)
    expected = reference.sinkhorn_from_cost(wide, **options)
    assert isinstance(found, Tensor)
    assert isinstance(expected, Tensor)
    tight = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found.double(), expected, **tight)
    plans = (torch.autograd.grad(of.sum(), costs)[0] for of, costs in ((found, given), (expected, wide)))
    torch.testing.assert_close(*(plan.double() for plan in plans), **tight)
