"""Bounds between DTW and soft-DTW, between their options, and by simpler distances."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import scav_kernels
from scav_kernels.reference.ground_cost import ground_cost

from .inputs import Sequences, answer
from .strategies import Problem, even_shapes, law, problems, shapes
from .test_closed_form import delannoy
from .tolerances import ALIGNMENT, assert_at_most, assert_same_value, coincidence

DISTANCES = st.sampled_from(("euclidean", "sqeuclidean"))


def repeated(problem: Problem, data: st.DataObject, side: str) -> Tensor:
    """Steps of x or y, each as many times in turn as is drawn for its place."""
    steps = getattr(problem.given, side)
    counts = data.draw(st.lists(st.integers(1, 3), min_size=steps.shape[1], max_size=steps.shape[1]))
    return steps.repeat_interleave(torch.tensor(counts), 1)


@law
@given(data=st.data())
def test_a_sequence_is_at_no_distance_from_itself_slowed_down(data: st.DataObject) -> None:
    problem = data.draw(problems("dtw", cost=DISTANCES, band=None, shape=shapes(ragged=False)))
    x = problem.given.x
    found = answer(problem.case.kernel, Sequences(x, repeated(problem, data, "x"), None, None), paired=True)
    step = coincidence(found.value.dtype) * x.norm(dim=-1).max().item()
    cells = 3 * x.shape[1]
    assert found.value.max().item() <= cells * (step**2 if problem.cost == "sqeuclidean" else step)
    for gradient in (found.x_grad, found.y_grad):
        assert not gradient.any()


@law
@given(data=st.data())
def test_repeating_steps_never_shortens_dtw(data: st.DataObject) -> None:
    # A path through the repeated steps passes, repetitions left out, for one through the steps themselves.
    problem = data.draw(problems("dtw", band=None, shape=shapes(ragged=False)))
    slower = problem.of(Sequences(repeated(problem, data, "x"), repeated(problem, data, "y"), None, None))
    assert_at_most(slower, problem.value(), slower.value())
    # And one that passes every cell of a path as often as its steps are repeated costs that much more.
    factor = data.draw(st.integers(2, 4))
    slower = problem.of(problem.given.map(lambda x: x.repeat_interleave(factor, 1)))
    assert_at_most(slower, slower.value(), factor * problem.value())


@law
@given(data=st.data())
def test_waiting_together_at_the_end_costs_nothing(data: st.DataObject) -> None:
    problem = data.draw(problems("dtw", band=None, cost=DISTANCES, shape=shapes(ragged=False)))
    end = problem.given.x[:1, :1]

    def waiting(x_steps: int, y_steps: int) -> Problem:
        x, y = (
            torch.cat([side, end.expand(len(side), steps, -1)], 1)
            for side, steps in zip(problem.given[:2], (x_steps, y_steps), strict=True)
        )
        return problem.of(Sequences(x, y, None, None))

    longer = waiting(data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20)))
    assert_same_value(longer, longer.value(), waiting(1, 1).value())


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
@law
@given(data=st.data())
def test_a_narrower_band_is_never_shorter(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric, band=None))
    before = problem.value()
    for band in (70, 5, 2, 1, 0):
        narrower = problem.asked(band=band).value()
        assert_at_most(problem, before, narrower)
        # Every pair keeps a way through: the band contains a path for whatever lengths.
        assert narrower.isfinite().all()
        before = narrower
    # No two steps of these sequences are further apart in time.
    assert_same_value(problem, problem.asked(band=70).value(), problem.value())


@law
@given(data=st.data())
def test_dtw_is_at_least_the_sum_of_the_least_costs(data: st.DataObject) -> None:
    problem = data.draw(problems("dtw"))
    for side in (0, 1):
        assert_at_most(problem, problem.over_costs(lambda cost, side=side: cost.amin(side).sum()), problem.value())


@law
@given(data=st.data())
def test_without_room_to_warp_dtw_adds_what_interpolation_averages(data: st.DataObject) -> None:
    problem = data.draw(problems("dtw", band=0, cost=DISTANCES, shape=even_shapes()))
    squared = problem.cost == "sqeuclidean"
    aligned = scav_kernels.interpolated_euclidean(*problem.given, squared=squared) * problem.given.x.shape[1]
    assert_same_value(problem, problem.value(), aligned)
    assert_at_most(problem, problem.asked(band=None).value(), aligned)


@law
@given(data=st.data())
def test_dtw_path_is_a_path_of_that_cost(data: st.DataObject) -> None:
    problem = data.draw(problems("dtw", shape=shapes(("n", "m", "d"), ragged=False)))
    x, y = problem.given.x[0], problem.given.y[0]
    cells = scav_kernels.dtw_path(x, y, **problem.case.options)
    moves = cells.diff(dim=0)
    assert cells[0].tolist() == [0, 0]
    assert cells[-1].tolist() == [len(x) - 1, len(y) - 1]
    assert ((moves >= 0) & (moves <= 1)).all()
    assert (moves.sum(1) >= 1).all()
    cost = ground_cost(x.double(), y.double(), problem.cost)
    assert_same_value(problem, problem.value()[0, 0], cost[cells[:, 0], cells[:, 1]].sum())


@law
@given(data=st.data())
def test_soft_dtw_lies_below_dtw_by_no_more_than_the_number_of_paths(data: st.DataObject) -> None:
    problem = data.draw(problems("soft_dtw", band=None))
    hard = problem.asked("dtw", cost=problem.cost).value()
    paths = problem.over_costs(lambda cost: math.log(delannoy(cost.shape[0] - 1, cost.shape[1] - 1)))
    assert_at_most(problem, problem.value(), hard)
    assert_at_most(problem, hard - problem.smoothing * paths, problem.value())


@law
@given(data=st.data())
def test_more_smoothing_never_lengthens_soft_dtw(data: st.DataObject) -> None:
    problem = data.draw(problems("soft_dtw"))
    softer = problem.asked(gamma=problem.smoothing * data.draw(st.sampled_from((1.01, 2.0, 1000.0))))
    assert_at_most(softer, softer.value(), problem.value())


@law
@given(data=st.data())
def test_alignment_is_a_distribution_over_paths(data: st.DataObject) -> None:
    problem = data.draw(problems("soft_dtw", shape=shapes(("n", "m", "d"), ragged=False)))
    expected = scav_kernels.soft_dtw_alignment(problem.given.x[0], problem.given.y[0], **problem.case.options)
    # Every path passes both corners, every row and every column, and a cell once at most.
    assert abs(expected[0, 0].item() - 1) <= ALIGNMENT
    assert abs(expected[-1, -1].item() - 1) <= ALIGNMENT
    assert (expected >= 0).all()
    assert (expected <= 1 + ALIGNMENT).all()
    for side in (0, 1):
        assert (expected.sum(side) >= 1 - ALIGNMENT).all()
