"""Bounds of the Chamfer distance, its zeros, and its invariances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scav_kernels import pairwise_distance
from scav_kernels.reference.pairs import valid_steps

from .inputs import Sequences, answer
from .strategies import Problem, law, problems, shapes
from .tolerances import assert_at_most, assert_same_answer, assert_same_value, coincidence


def lengths_of_x(problem: Problem) -> Tensor:
    """(B1, 1)"""
    return torch.tensor([len(x) for x in valid_steps(problem.given.x, problem.given.x_lengths)])[:, None]


@law
@given(data=st.data())
def test_a_path_is_at_least_as_long_as_its_nearest_steps(data: st.DataObject) -> None:
    problem = data.draw(problems("chamfer", direction="x"))
    dtw = problem.asked("dtw", cost=problem.cost)
    assert_at_most(dtw, problem.value() * lengths_of_x(problem), dtw.value())


@law
@given(data=st.data())
def test_a_plan_costs_at_least_its_nearest_steps(data: st.DataObject) -> None:
    problem = data.draw(problems("chamfer", direction="x"))
    scale = {"euclidean": problem.scale, "sqeuclidean": problem.scale**2, "cosine": 1.0}[problem.cost]
    sinkhorn = problem.asked("sinkhorn", cost=problem.cost, epsilon=scale, max_iterations=2000, tolerance=1e-7)
    # An entropic cost is that of a plan, and a divergence from the uniform one; both marginals of the plan hold.
    slack = 1e-6 * 4 * max(scale, sinkhorn.value().abs().max().item())
    assert_at_most(problem, problem.value(), sinkhorn.value(), slack)


@law
@given(data=st.data())
def test_both_is_the_mean_of_the_directions(data: st.DataObject) -> None:
    problem = data.draw(problems("chamfer", direction="both"))

    def mean(*given: Tensor) -> Tensor:
        return sum(problem.case.kernel(*given, direction=direction) for direction in ("x", "y")) / 2

    assert_same_answer(problem, answer(mean, problem.given), problem.answer())


@law
@given(data=st.data())
def test_a_sequence_is_at_no_distance_from_itself(data: st.DataObject) -> None:
    problem = data.draw(problems("chamfer", cost=st.sampled_from(("euclidean", "sqeuclidean"))))
    x, _, lengths, _ = problem.given
    found = answer(problem.case.kernel, Sequences(x, x.clone(), lengths, lengths), paired=True)
    step = coincidence(found.value.dtype) * x.norm(dim=-1).max().item()
    assert found.value.max().item() <= (step**2 if problem.cost == "sqeuclidean" else step)
    for gradient in (found.x_grad, found.y_grad):
        assert not gradient.any()


@law
@given(data=st.data())
def test_the_order_of_steps_changes_nothing(data: st.DataObject) -> None:
    problem = data.draw(problems("chamfer", shape=shapes(ragged=False)))
    generator = torch.Generator().manual_seed(problem.seed)
    i, j = (torch.randperm(side.shape[1], generator=generator) for side in problem.given[:2])
    shuffled = problem.of(problem.given._replace(x=problem.given.x[:, i], y=problem.given.y[:, j]))
    assert_same_value(problem, shuffled.value(), problem.value())


@pytest.mark.parametrize("direction", ["x", "y", "both"])
def test_steps_beyond_the_first_block_of_rows(direction: str) -> None:
    # More rows than the kernel computes at a time, and nearest steps in all of them.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 600, 24, dtype=torch.float64, generator=generator)
    order = torch.randperm(600, generator=generator)
    y = (x[:, order] + 1e-3).requires_grad_()
    value = pairwise_distance(x, y, metric="chamfer", direction=direction)
    torch.testing.assert_close(value, torch.full((2,), 1e-3 * 24**0.5, dtype=torch.float64))
    value.sum().backward()
    # Each step has exactly one partner.
    torch.testing.assert_close(y.grad.norm(dim=-1), torch.full((2, 600), 1 / 600, dtype=torch.float64))
