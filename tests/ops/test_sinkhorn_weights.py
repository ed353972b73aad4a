"""Weights of the steps that Sinkhorn transports: what they mean, their gradients, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, jacrev, vmap

import scav_kernels
from scav_kernels import reference
from scav_kernels.search.topk import TopK

from .cases import CONVERGED, step_weights
from .inputs import Sequences, Shape, sequences, weights
from .strategies import law, problems, shapes
from .test_topk import clips
from .tolerances import assert_same_value, assert_within, floor

SHAPE = Shape(b1=3, b2=3, n=7, m=6, d=3)
METRICS = ["sinkhorn", "sinkhorn_divergence"]
NAMES = ("x_weights", "y_weights")


def positive(given: Sequences, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Weights (B1, N) and (B2, M) between 0.1 and 1.1."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        (0.1 + torch.rand(side.shape[:2], dtype=torch.float64, generator=generator)).to(side.dtype)
        for side in (given.x, given.y)
    )


def named(of: tuple[Tensor | None, Tensor | None]) -> dict[str, Any]:
    return dict(zip(NAMES, of, strict=True))


def ask(metric: str, paired: bool = False) -> Callable[..., Tensor]:
    distance = scav_kernels.pairwise_distance if paired else scav_kernels.cdist
    return lambda *given, **options: distance(*given, metric=metric, **options)


# ---- meaning ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_equal_weights_are_none(metric: str, dtype: torch.dtype) -> None:
    given = sequences(Shape(b1=3, b2=4, n=21, m=18), dtype).leaves()
    equal = given.x.new_full(given.x.shape[:2], 0.25), given.y.new_full(given.y.shape[:2], 4.0)
    values = [ask(metric)(*given, **options) for options in ({}, named(equal))]
    assert torch.equal(*values)
    gradients = [torch.autograd.grad((value * weights(value)).sum(), (given.x, given.y)) for value in values]
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("metric", METRICS)
def test_only_their_proportions_matter(metric: str) -> None:
    given = sequences(SHAPE)
    a, b = positive(given)
    torch.testing.assert_close(
        ask(metric)(*given, **named((a * 1e-30, b * 3e30))), ask(metric)(*given, **named((a, b))), rtol=1e-5, atol=1e-6
    )
    # The largest and the smallest that float64 holds.
    wide = a.double() * 1e308, b.double() * 1e-307
    torch.testing.assert_close(
        ask(metric)(*given, **named(wide)), ask(metric)(*given, **named((a, b))), rtol=1e-5, atol=1e-6
    )


@law
@drawn(data=st.data())
def test_order_of_the_steps_is_nothing_if_their_weights_go_with_them(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", shape=shapes(ragged=False)))
    (x, y, *_), (a, b) = problem.given, positive(problem.given)
    i, j = (torch.tensor(data.draw(st.permutations(range(side.shape[1])))) for side in (x, y))
    found = problem.case.kernel(x[:, i], y[:, j], x_weights=a[:, i], y_weights=b[:, j])
    assert_same_value(problem, found, problem.case.kernel(x, y, x_weights=a, y_weights=b))


@law
@drawn(data=st.data())
def test_a_step_may_be_two_copies_that_share_its_weight(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", shape=shapes(ragged=False)))
    (x, y, *_), (a, b) = problem.given, positive(problem.given)
    k, share = data.draw(st.integers(0, x.shape[1] - 1)), data.draw(st.sampled_from((0.0, 0.25, 0.5)))
    parts = a.clone(), a[:, k : k + 1] * share
    parts[0][:, k] *= 1 - share
    found = problem.case.kernel(torch.cat([x, x[:, k : k + 1]], 1), y, x_weights=torch.cat(parts, 1), y_weights=b)
    assert_same_value(problem, found, problem.case.kernel(x, y, x_weights=a, y_weights=b))


@pytest.mark.parametrize("scaling", [None, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_a_step_of_weight_zero_is_none(metric: str, dtype: torch.dtype, scaling: float | None) -> None:
    """Wherever it is, and however far from all others."""
    given = sequences(replace(SHAPE, n=40, m=33, ragged=False), dtype)
    a, b = positive(given)
    kept = [torch.arange(side.shape[1]) % 3 != first for side, first in ((a, 0), (b, 1))]
    far = [side.where(keep[:, None], side + 30) for side, keep in zip((given.x, given.y), kept, strict=True)]
    zeroed = [side * keep for side, keep in zip((a, b), kept, strict=True)]
    x, y = (side.clone().requires_grad_() for side in far)
    value = ask(metric)(x, y, scaling=scaling, **named(tuple(zeroed)))
    (value * weights(value)).sum().backward()
    u, v = (side[:, keep].clone().requires_grad_() for side, keep in zip(far, kept, strict=True))
    cut = tuple(side[:, keep] for side, keep in zip((a, b), kept, strict=True))
    expected = ask(metric)(u, v, scaling=scaling, **named(cut))
    (expected * weights(expected)).sum().backward()
    allowed = floor(dtype, 40, 1 / 0.05) * 8
    assert_within("value", value, expected, allowed, dtype)
    for whole, part, keep in ((x.grad, u.grad, kept[0]), (y.grad, v.grad, kept[1])):
        assert_within("gradient", whole[:, keep], part, allowed, dtype)
        assert not whole[:, ~keep].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0, 1e30])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_what_lies_beyond_a_length_changes_nothing(paired: bool, poison: float) -> None:
    given = sequences(replace(SHAPE, n=19, m=17))
    own = positive(given)
    beyond = [
        torch.arange(side.shape[1]) >= lengths[:, None]
        for side, lengths in zip(own, (given.x_lengths, given.y_lengths), strict=True)
    ]
    results = []
    for of in (own, tuple(side.masked_fill(past, poison) for side, past in zip(own, beyond, strict=True))):
        leaves = tuple(side.clone().requires_grad_() for side in of)
        value = ask("sinkhorn", paired)(*given, **named(leaves))
        results.append((value, *torch.autograd.grad((value * weights(value)).sum(), leaves)))
    assert all(map(torch.equal, *results))
    for gradient, past in zip(results[1][1:], beyond, strict=True):
        assert not gradient[past].any()


def test_plan_has_these_marginals() -> None:
    x, y, *_ = sequences(replace(SHAPE, ragged=False), torch.float64)
    a, b = step_weights(x)[0], step_weights(y)[0]
    plan = scav_kernels.sinkhorn_plan(x[0], y[0], x_weights=a, y_weights=b, max_iterations=5000, tolerance=1e-12)
    torch.testing.assert_close(plan.sum(0), b / b.sum(), rtol=0, atol=1e-11)
    torch.testing.assert_close(plan.sum(1), a / a.sum(), rtol=0, atol=1e-11)


# ---- against the reference ----


@pytest.mark.parametrize("options", [{}, {"scaling": 0.7}, {"max_iterations": 3, "tolerance": 0.0}], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_value_and_gradients_are_those_of_the_reference(
    dtype: torch.dtype, paired: bool, options: dict[str, Any]
) -> None:
    given = sequences(Shape(b1=4, b2=4, n=21, m=18, d=4), dtype)

    def of(distance: Callable[..., Tensor], wide: bool) -> tuple[Tensor, ...]:
        own = given.map(Tensor.double) if wide else given
        leaves = [leaf.clone().requires_grad_() for leaf in (own.x, own.y, step_weights(own.x), step_weights(own.y))]
        value = distance(*leaves[:2], *given[2:], **named(tuple(leaves[2:])), epsilon=0.3, **options)
        return value.detach(), *torch.autograd.grad((value * weights(value)).sum(), leaves)

    found = of(ask("sinkhorn", paired), False)
    expected = of(lambda *args, **kwargs: reference.sinkhorn(*args, **kwargs, paired=paired), True)
    for name, ours, theirs in zip(("value", "x", "y", *NAMES), found, expected, strict=True):
        assert_within(name, ours, theirs, floor(dtype, 21, 20), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_of_given_costs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(3, 4, 9, 7, dtype=dtype, generator=generator)
    lengths = torch.tensor([9, 5, 1]), torch.tensor([7, 7, 6, 3])
    own = step_weights(cost[:, 0]), step_weights(cost[0].mT)

    def of(distance: Callable[..., Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [leaf.to(dtype).clone().requires_grad_() for leaf in (cost, *own)]
        value = distance(leaves[0], *lengths, **named(tuple(leaves[1:])), epsilon=0.2, scaling=0.5)
        return value.detach(), *torch.autograd.grad((value * weights(value)).sum(), leaves)

    found, expected = of(scav_kernels.sinkhorn_from_cost, dtype), of(reference.sinkhorn_from_cost, torch.float64)
    for name, ours, theirs in zip(("value", "cost", *NAMES), found, expected, strict=True):
        assert_within(name, ours, theirs, floor(dtype, 9, 20), dtype)
    one = scav_kernels.sinkhorn_from_cost(
        cost[0, 2, :, :6], x_weights=own[0][0], y_weights=own[1][2, :6], epsilon=0.2, scaling=0.5
    )
    assert one.shape == ()
    assert torch.equal(one, found[0][0, 2])


def test_of_a_pair_whose_costs_are_made_anew_in_each_iteration() -> None:
    x, y = (torch.rand(1, 1500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    own = named((step_weights(x), step_weights(y)))
    for options in ({"max_iterations": 2, "epsilon": 0.1, "tolerance": 0.0}, {"scaling": 0.25, "epsilon": 0.2}):
        found = scav_kernels.sinkhorn(x, y, **own, **options)
        torch.testing.assert_close(found, reference.sinkhorn(x, y, **own, **options), rtol=1e-10, atol=0)


# ---- gradients ----


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric: str, paired: bool) -> None:
    given = sequences(replace(SHAPE, n=5, m=4), torch.float64).leaves()
    leaves = (given.x, given.y, *(side.requires_grad_() for side in positive(given)))
    options = {**CONVERGED, "scaling": 0.8}

    def distance(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ask(metric, paired)(x, y, *given[2:], **named((a, b)), **options)

    assert torch.autograd.gradcheck(distance, leaves, atol=1e-8, rtol=1e-6)


def test_gradcheck_of_given_costs() -> None:
    cost = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leaves = cost, cost[:, 0, :, 0] + 0.2, cost[0, :, 0] + 0.2

    def distance(cost: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return scav_kernels.sinkhorn_from_cost(cost, torch.tensor([5, 3]), **named((a, b)), **CONVERGED)

    leaves = tuple(leaf.clone().requires_grad_() for leaf in leaves)
    assert torch.autograd.gradcheck(distance, leaves, atol=1e-8, rtol=1e-6)


def test_gradient_at_weight_zero_is_the_slope_there() -> None:
    given = sequences(replace(SHAPE, ragged=False), torch.float64)
    own = tuple(step_weights(side).clone() for side in (given.x, given.y))

    def total(of: tuple[Tensor, Tensor]) -> Tensor:
        value = scav_kernels.sinkhorn(given.x, given.y, **named(of), **CONVERGED)
        return (value * weights(value)).sum()

    gradients = torch.autograd.grad(total(leaves := tuple(side.clone().requires_grad_() for side in own)), leaves)
    for side, gradient in enumerate(gradients):
        assert own[side][1, 3] == 0
        step = 1e-6
        ahead = [[part.clone() for part in own] for _ in range(2)]
        ahead[0][side][1, 3] += step
        ahead[1][side][1, 3] += 2 * step
        one, two = (total(tuple(of)) for of in ahead)
        slope = (4 * one - 3 * total(own) - two) / (2 * step)
        torch.testing.assert_close(gradient[1, 3], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("side", NAMES)
def test_gradient_in_one_side_alone_is_that_of_both(side: str) -> None:
    given = sequences(SHAPE)
    both = named(tuple(of.requires_grad_() for of in positive(given)))
    expected = torch.autograd.grad(ask("sinkhorn")(*given, **both).sum(), both[side])
    alone = {name: value.detach().requires_grad_(name == side) for name, value in both.items()}
    assert torch.equal(torch.autograd.grad(ask("sinkhorn")(*given, **alone).sum(), alone[side])[0], expected[0])
    only = {side: alone[side]}
    assert torch.autograd.grad(ask("sinkhorn")(*given, **only).sum(), alone[side])[0].shape == alone[side].shape


def test_a_gradient_in_the_weights_has_no_component_along_them() -> None:
    given = sequences(SHAPE, torch.float64)
    own = tuple(side.requires_grad_() for side in positive(given))
    gradients = torch.autograd.grad(ask("sinkhorn")(*given, **named(own)).sum(), own)
    for side, gradient, lengths in zip(own, gradients, given[2:], strict=True):
        along = (side * gradient * (torch.arange(side.shape[1]) < lengths[:, None])).sum(1)
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-13)


def test_half_precision() -> None:
    given = sequences(SHAPE, torch.bfloat16).leaves()
    own = tuple(side.half().requires_grad_() for side in positive(given))
    value = ask("sinkhorn")(*given, **named(own))
    assert value.dtype == torch.float32
    x, _, a, _ = torch.autograd.grad(value.sum(), (given.x, given.y, *own))
    assert (x.dtype, a.dtype) == (torch.bfloat16, torch.float16)
    wide = given.map(Tensor.float)
    assert torch.equal(value, ask("sinkhorn")(*wide, **named(tuple(side.float() for side in own))))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ask("sinkhorn")(*given, **named(own)), value)


def test_double_backward_says_that_it_is_not_supported() -> None:
    given = sequences(SHAPE)
    a, b = (side.requires_grad_() for side in positive(given))
    (gradient,) = torch.autograd.grad(ask("sinkhorn")(*given, **named((a, b))).sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match=r"sinkhorn.*gradients of gradients.*create_graph"):
        torch.autograd.grad(gradient.sum(), b)


def test_nonfinite_sequences_spoil_the_gradients_of_their_own_weights() -> None:
    given = sequences(replace(SHAPE, ragged=False))
    given.x[1, 2, 0] = torch.nan
    own = tuple(side.requires_grad_() for side in positive(given))
    value = ask("sinkhorn")(*given, **named(own))
    a, b = torch.autograd.grad(value[:, :2].sum(), own)
    assert a[1].isnan().all()
    assert a[[0, 2]].isfinite().all()
    assert b[:2].isnan().all()
    assert not b[2].any()


def test_forbidden_cells_of_steps_without_weight() -> None:
    cost = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    cost[2], cost[:, 1], cost[0, 3] = torch.inf, torch.inf, torch.inf
    a, b = torch.tensor([1.0, 2, 0, 1, 1]), torch.tensor([1.0, 0, 1, 3])
    rows, columns = torch.tensor([0, 1, 3, 4]), torch.tensor([0, 2, 3])
    options = {"epsilon": 0.5, "scaling": 0.5}
    expected = scav_kernels.sinkhorn_from_cost(
        cost[rows][:, columns], x_weights=a[rows], y_weights=b[columns], **options
    )
    leaves = [leaf.clone().requires_grad_() for leaf in (cost, a, b)]
    found = scav_kernels.sinkhorn_from_cost(leaves[0], x_weights=leaves[1], y_weights=leaves[2], **options)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert leaves[0].grad.isfinite().all()
    assert (leaves[1].grad.isinf() == (a == 0)).all()
    assert (leaves[2].grad.isinf() == (b == 0)).all()
    # A step that has weight is blocked if no other that has weight can be reached.
    cost[1, 0], cost[1, 3] = torch.inf, torch.inf
    b[2] = 0
    assert scav_kernels.sinkhorn_from_cost(cost, x_weights=a, y_weights=b).isposinf()


# ---- torch ----


@pytest.mark.parametrize("scaling", [None, pytest.param(0.5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_opcheck(paired: bool, dtype: torch.dtype, scaling: float | None) -> None:
    given = sequences(SHAPE, dtype).leaves()
    own = tuple(side.requires_grad_() for side in positive(given))
    solver = 0.5, 20, 1e-3, scaling
    torch.library.opcheck(torch.ops.scav.sinkhorn.default, (*given, *own, *solver, "euclidean", paired, True, True))
    torch.library.opcheck(
        torch.ops.scav.sinkhorn.default, (*given, own[0], None, *solver, "euclidean", paired, True, True)
    )
    cost = torch.rand(3, 3, 7, 6, dtype=dtype, requires_grad=True)
    torch.library.opcheck(torch.ops.scav.sinkhorn_from_cost.default, (cost, *given[2:], *own, *solver, True, True))


@pytest.mark.parametrize("mapped", [c for c in product((0, None), repeat=4) if 0 in c], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_vmap_and_gradients_of_each_entry(paired: bool, mapped: tuple[int | None, ...]) -> None:
    entries, b = 3, 2
    wide = sequences(Shape(b1=entries * b, b2=entries * b, n=5, m=4, d=3, ragged=False), torch.float64)
    everything = [side.unflatten(0, (entries, b)) for side in (wide.x, wide.y, *positive(wide))]
    given = [side if own == 0 else side[0] for side, own in zip(everything, mapped, strict=True)]

    def distance(x: Tensor, y: Tensor, u: Tensor, v: Tensor) -> Tensor:
        value = ask("sinkhorn", paired)(x, y, **named((u, v)), epsilon=0.5)
        return (value * torch.arange(1, value.numel() + 1).view(value.shape)).sum()

    for function in (distance, grad(distance, (0, 1, 2, 3)), grad(distance, 2), grad(distance, 3)):
        found = vmap(function, mapped)(*given)
        looped = [
            function(*(side[i] if own == 0 else side for side, own in zip(given, mapped, strict=True)))
            for i in range(entries)
        ]
        expected = (
            tuple(map(torch.stack, zip(*looped, strict=True))) if isinstance(found, tuple) else torch.stack(looped)
        )
        torch.testing.assert_close(found, expected)


def test_jacobians() -> None:
    given = sequences(replace(SHAPE, n=4, m=3), torch.float64)
    own = positive(given)
    cost = torch.rand(3, 3, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for distance in (
        lambda a, b: ask("sinkhorn")(*given, **named((a, b))),
        lambda a, b: scav_kernels.sinkhorn_from_cost(cost, **named((a, b))),
    ):
        value, jacobians = distance(*own), jacrev(distance, (0, 1))(*own)
        leaves = tuple(side.clone().requires_grad_() for side in own)
        expected = torch.autograd.grad((distance(*leaves) * weights(value)).sum(), leaves)
        for jacobian, gradient in zip(jacobians, expected, strict=True):
            torch.testing.assert_close(torch.tensordot(weights(value), jacobian, 2), gradient)
    assert all(map(torch.equal, jacrev(distance, 0)(*own), jacobians[0]))


@pytest.mark.slow
def test_compile_has_no_graph_break() -> None:
    torch._dynamo.reset()

    def loss(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return 2 * scav_kernels.sinkhorn_divergence(x, y, x_weights=a.exp(), y_weights=b.exp(), scaling=0.5).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in (SHAPE, Shape(b1=4, b2=2, n=9, m=5)):
        given = sequences(shape)
        leaves = [leaf.requires_grad_() for leaf in (given.x, given.y, *positive(given))]
        found, expected = (torch.autograd.grad(of(*leaves), leaves) for of in (compiled, loss))
        torch.testing.assert_close(found, expected)


def test_exported() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return scav_kernels.sinkhorn(x, y, x_weights=a, y_weights=b, scaling=0.5)

    given = sequences(SHAPE)
    leaves = given.x, given.y, *positive(given)
    assert torch.equal(torch.export.export(Model(), leaves).module()(*leaves), Model()(*leaves))


# ---- the other functions ----


def test_each_side_of_a_divergence_has_its_weights() -> None:
    given = sequences(SHAPE, torch.float64)
    a, b = positive(given)
    value = scav_kernels.sinkhorn_divergence(*given, **named((a, b)), **CONVERGED)
    torch.testing.assert_close(value, reference.sinkhorn_divergence(*given, **named((a, b)), **CONVERGED))
    only = scav_kernels.sinkhorn_divergence(*given, x_weights=a, **CONVERGED)
    torch.testing.assert_close(only, reference.sinkhorn_divergence(*given, x_weights=a, **CONVERGED))
    own = scav_kernels.sinkhorn_divergence(given.x, given.x, *given[2:3] * 2, x_weights=a, y_weights=a, **CONVERGED)
    torch.testing.assert_close(own.diagonal(), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)


def test_without_y_weights_are_those_of_both_sides() -> None:
    given = sequences(SHAPE)
    a, b = positive(given)
    found = scav_kernels.cdist(given.x, x_lengths=given.x_lengths, metric="sinkhorn", x_weights=a)
    lengths = given.x_lengths, given.x_lengths
    assert torch.equal(found, scav_kernels.sinkhorn(given.x, given.x, *lengths, x_weights=a, y_weights=a))
    with pytest.raises(ValueError, match="no y_weights without y; x_weights are those of both sides"):
        scav_kernels.cdist(given.x, metric="sinkhorn", y_weights=b)


@pytest.mark.parametrize("are", ["x", "y"])
@pytest.mark.parametrize("metric", METRICS)
def test_topk(metric: str, are: str) -> None:
    given = sequences(Shape(b1=4, b2=30, n=7, m=6))
    a, b = step_weights(given.x), positive(given)[1]
    sides = [(given.x, given.x_lengths, a), (given.y, given.y_lengths, b)]
    (x, x_lengths, u), (y, y_lengths, v) = sides if are == "x" else sides[::-1]
    every = ask(metric)(x, y, x_lengths, y_lengths, **named((u, v)))
    expected = (every if are == "x" else every.T).sort(dim=1, stable=True)
    lengths = given.x_lengths, given.y_lengths
    found = scav_kernels.topk(given.x, given.y, 5, *lengths, metric=metric, queries_are=are, **named((u, v)))
    assert torch.equal(found.indices, expected.indices[:, :5])
    torch.testing.assert_close(found.distances, expected.values[:, :5], rtol=1e-5, atol=1e-6)
    assert (found.report.exhaustive is None) == (metric == "sinkhorn")
    with pytest.raises(ValueError, match=r"y_weights of shape \(30, 6\)|y_weights of shape \(4, 7\)"):
        scav_kernels.topk(given.x, given.y, 5, metric=metric, queries_are=are, y_weights=u)


@pytest.mark.parametrize("are", ["x", "y"])
@pytest.mark.parametrize("sides", [NAMES, NAMES[:1], NAMES[1:]], ids="+".join)
def test_bounds_of_a_search_have_the_weights(sides: tuple[str, ...], are: str) -> None:
    steps, lengths = clips(240, 12, 48, 0)
    queries, query_lengths = steps[::12], lengths[::12]
    generator = torch.Generator().manual_seed(1)
    # Some steps have most of the weight, and some none.
    draws = torch.rand(len(steps), 12, generator=generator)
    draws = draws.pow(4).masked_fill(draws < 0.2, 0).index_fill(1, torch.tensor([0]), 0.1)
    of_queries = draws[::12].roll(1, 0)
    every = dict(zip(NAMES, (of_queries, draws) if are == "x" else (draws, of_queries), strict=True))
    options: dict[str, Any] = {name: every[name] for name in sides}

    def search(prune: str) -> TopK:
        return scav_kernels.topk(
            queries, steps, 3, query_lengths, lengths, metric="sinkhorn", queries_are=are, prune=prune, **options
        )

    pruned, every_pair = search("auto"), search("none")
    assert torch.equal(pruned.indices, every_pair.indices)
    assert torch.equal(pruned.distances, every_pair.distances)
    assert pruned.report.removed > every_pair.report.pairs / 2


# ---- what is refused ----


def set_to(value: float, *place: int) -> Callable[[Tensor], Tensor]:
    def change(weights: Tensor) -> Tensor:
        weights = weights.clone()
        weights[place] = value
        return weights

    return change


BAD: dict[str, tuple[Callable[[Tensor], object], type[Exception], list[str]]] = {
    "one row": (lambda of: of[0], ValueError, ["of shape (3, 7)", "(7,)"]),
    "too few steps": (lambda of: of[:, :6], ValueError, ["of shape (3, 7)", "(3, 6)"]),
    "too few sequences": (lambda of: of[:2], ValueError, ["of shape (3, 7)", "(2, 7)"]),
    "negative": (set_to(-0.5, 1, 0), ValueError, [">= 0", "-0.5 at step 0 of sequence 1", "replace it"]),
    "NaN": (set_to(torch.nan, 0, 6), ValueError, ["finite", "nan at step 6 of sequence 0", "replace it"]),
    "inf": (set_to(torch.inf, 0, 2), ValueError, ["finite", "inf at step 2 of sequence 0", "replace it"]),
    "zeros": (lambda of: of * 0, ValueError, ["a weight > 0", "zeros for all 7 of sequence 0", "leave the sequence"]),
    "integers": (Tensor.long, TypeError, ["float32", "x_weights.float()"]),
    "a list": (Tensor.tolist, TypeError, ["torch.Tensor", "a list of list", "torch.as_tensor(x_weights)"]),
    "another device": (lambda of: of.to("meta"), RuntimeError, ["one device", "meta"]),
}


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("change", "exception", "fragments"), BAD.values(), ids=list(BAD))
def test_bad_weights(
    change: Callable[[Tensor], object], exception: type[Exception], fragments: list[str], metric: str, paired: bool
) -> None:
    given = sequences(SHAPE)
    with pytest.raises(exception) as caught:
        ask(metric, paired)(*given, x_weights=change(torch.ones(3, 7)))
    for fragment in (f"{metric}: expected", "x_weights", "got", *fragments):
        assert fragment in str(caught.value)


def test_zeros_in_the_valid_steps_alone() -> None:
    given = sequences(SHAPE)
    own = torch.ones(3, 7)
    own[1, : given.x_lengths[1]] = 0
    with pytest.raises(ValueError, match="zeros for all 1 of sequence 1"):
        scav_kernels.sinkhorn(*given, x_weights=own)


@pytest.mark.parametrize("scaling", [0.0, 1.0, -0.5, 2.0, torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn_from_cost", "sinkhorn_plan", "sinkhorn_divergence"])
def test_bad_scaling(name: str, scaling: float) -> None:
    x = torch.rand(3, 4) if name == "sinkhorn_plan" else torch.rand(2, 3, 4)
    given = (torch.rand(3, 4),) if name == "sinkhorn_from_cost" else (x, x)
    with pytest.raises(ValueError, match="expected scaling between 0 and 1, both excluded, or None, got"):
        getattr(scav_kernels, name)(*given, scaling=scaling)
    with pytest.raises(TypeError, match="expected scaling to be a number or None, got '1' of type str"):
        getattr(scav_kernels, name)(*given, scaling="1")


# ---- scaling ----


def test_a_small_epsilon_needs_fewer_iterations_after_larger_ones() -> None:
    given = sequences(Shape(b1=3, b2=3, n=30, m=25, d=3, ragged=False), torch.float64)
    options = {"epsilon": 0.01, "max_iterations": 100_000, "tolerance": 1e-4, "return_convergence": True}
    value, ended = scav_kernels.sinkhorn(*given, **options)
    annealed, sooner = scav_kernels.sinkhorn(*given, scaling=0.9, **options)
    torch.testing.assert_close(annealed, value, rtol=1e-4, atol=1e-4)
    assert (sooner.iterations < ended.iterations).all()
    # The reference counts the same.
    wanted = reference.sinkhorn(*given, scaling=0.9, **options)[1]
    assert ((sooner.iterations - wanted.iterations).abs() <= 1).all()


def test_iterations_on_the_way_are_limited() -> None:
    x, y = (torch.rand(1, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    options = {"epsilon": 0.05, "max_iterations": 3, "tolerance": 0.0, "scaling": 1 - 1e-12}
    found, ended = scav_kernels.sinkhorn(x, y, return_convergence=True, **options)
    assert ended.iterations.item() == 3
    torch.testing.assert_close(found, reference.sinkhorn(x, y, **options))


def test_scaling_changes_nothing_where_no_cost_is_larger_than_epsilon() -> None:
    given = sequences(SHAPE)
    options = {"epsilon": 1e3}
    assert torch.equal(scav_kernels.sinkhorn(*given, scaling=0.5, **options), scav_kernels.sinkhorn(*given, **options))
