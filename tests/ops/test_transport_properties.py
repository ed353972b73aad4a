"""Bounds and invariances of Sinkhorn's transport cost and divergence."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import scav_kernels

from .inputs import answer
from .strategies import CONVERGED, even_shapes, law, problems, shapes
from .tolerances import assert_at_most, assert_same_answer, floor, largest_cost, unconverged


@law
@given(data=st.data())
def test_order_of_the_steps_is_nothing_to_transport(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", shape=shapes(ragged=False)))
    n, m = problem.given.x.shape[1], problem.given.y.shape[1]
    i, j = (torch.tensor(data.draw(st.permutations(range(size)))) for size in (n, m))

    def shuffled(x: Tensor, y: Tensor, *_: Tensor) -> Tensor:
        return problem.case.kernel(x[:, i], y[:, j])

    assert_same_answer(problem, answer(shuffled, problem.given), problem.answer())


def wasserstein(cost: Tensor) -> float:
    """(n, m) -> the least cost of carrying n equal weights to m: so many times repeated that each goes to one place."""
    n, m = cost.shape
    each = cost.repeat_interleave(m // math.gcd(n, m), 0).repeat_interleave(n // math.gcd(n, m), 1)
    rows, columns = linear_sum_assignment(each.numpy())
    return each[rows, columns].mean().item()


@law
@given(data=st.data())
def test_sinkhorn_lies_between_wasserstein_and_its_entropy_above(data: st.DataObject) -> None:
    shape = st.one_of(shapes(("b2", "d")), even_shapes())
    problem = data.draw(problems("sinkhorn", shape=shape, whole=False, **CONVERGED))
    exact = problem.over_costs(wasserstein)
    # The mutual information of the exact plan is at most either side's entropy.
    entropy = problem.over_costs(lambda cost: math.log(min(cost.shape)))
    assert_at_most(problem, exact, problem.value(), unconverged(problem))
    assert_at_most(problem, problem.value(), exact + problem.smoothing * entropy)


@law
@given(data=st.data())
def test_sinkhorn_is_at_most_the_mean_cost_and_grows_with_every_iteration(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn"))
    more = problem.asked(max_iterations=problem.case.options["max_iterations"] + data.draw(st.integers(1, 9)))
    assert_at_most(problem, problem.value(), more.value())
    assert_at_most(problem, more.value(), problem.over_costs(torch.mean))


@law
@given(data=st.data())
def test_more_smoothing_never_cheapens_transport(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", whole=False, **CONVERGED))
    blurred = problem.asked(epsilon=problem.smoothing * data.draw(st.sampled_from((1.01, 2.0, 1000.0))))
    assert_at_most(blurred, problem.value(), blurred.value(), unconverged(blurred))


@law
@given(data=st.data())
def test_sinkhorn_is_at_least_the_mean_of_the_least_costs(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", whole=False, **CONVERGED))
    for side in (0, 1):
        least = problem.over_costs(lambda cost, side=side: cost.amin(side).mean())
        assert_at_most(problem, least, problem.value(), unconverged(problem))


@law
@given(data=st.data())
def test_sinkhorn_is_at_least_the_distance_of_the_means(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn", whole=False, **{**CONVERGED, "cost": "euclidean"}))
    means = problem.over_pairs(lambda x, y: (x.mean(0) - y.mean(0)).norm())
    assert_at_most(problem, means, problem.value(), unconverged(problem))


@law
@given(data=st.data())
def test_plan_carries_all_mass(data: st.DataObject) -> None:
    options = {**CONVERGED, "tolerance": 1e-4}
    problem = data.draw(problems("sinkhorn", shape=shapes(("n", "m", "d"), ragged=False), whole=False, **options))
    plan = scav_kernels.sinkhorn_plan(problem.given.x[0], problem.given.y[0], **problem.case.options)
    n, m = plan.shape
    allowed = floor(plan.dtype, max(n, m), largest_cost(problem) / problem.smoothing)
    assert (plan >= 0).all()
    assert (plan.sum(0) * m - 1).abs().max().item() <= allowed
    assert (plan.sum(1) - 1 / n).abs().sum().item() <= 1e-4 + allowed


@law
@given(data=st.data())
def test_sinkhorn_divergence_is_never_negative(data: st.DataObject) -> None:
    problem = data.draw(problems("sinkhorn_divergence", whole=False, **CONVERGED))
    value = problem.value()
    assert_at_most(problem, torch.zeros_like(value), value, unconverged(problem))
