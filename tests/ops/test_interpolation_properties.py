"""Bounds of the interpolated Euclidean distance, and its zeros."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from scav_kernels.reference.interpolated_euclidean import resampled

from .inputs import Sequences, answer
from .strategies import even_shapes, law, problems
from .tolerances import assert_at_most, assert_same_value, coincidence


@law
@given(data=st.data())
def test_interpolation_leaves_equal_sequences_at_no_distance(data: st.DataObject) -> None:
    problem = data.draw(problems("interpolated_euclidean"))
    x, _, lengths, _ = problem.given
    found = answer(problem.case.kernel, Sequences(x, x.clone(), lengths, lengths), paired=True)
    step = coincidence(found.value.dtype) * x.norm(dim=-1).max().item()
    assert found.value.max().item() <= (step**2 if problem.cost == "sqeuclidean" else step)
    for gradient in (found.x_grad, found.y_grad):
        assert not gradient.any()


@law
@given(data=st.data())
def test_shorter_is_one_of_the_two_sides(data: st.DataObject) -> None:
    problem = data.draw(problems("interpolated_euclidean", resample="shorter"))
    x_is_shorter = problem.over_costs(lambda cost: cost.shape[0] <= cost.shape[1]).bool()
    sides = (problem.asked(resample=side).value() for side in ("x", "y"))
    assert_same_value(problem, problem.value(), torch.where(x_is_shorter, *sides))


@law
@given(data=st.data())
def test_triangles(data: st.DataObject) -> None:
    # Without resampling, a mean of distances in space.
    problem = data.draw(problems("interpolated_euclidean", squared=False, shape=even_shapes()))
    x, y, *_ = problem.given
    x_to_y, y_to_x = problem.value(), problem.case.kernel(y, x)
    x_to_x = problem.case.kernel(x, x)
    through_y = (x_to_y[:, :, None] + y_to_x[None]).amin(1)
    assert_at_most(problem, x_to_x, through_y)


@law
@given(data=st.data())
def test_interpolated_is_at_least_the_distance_of_the_means(data: st.DataObject) -> None:
    problem = data.draw(problems("interpolated_euclidean", squared=False, resample="x"))
    means = problem.over_pairs(lambda x, y: (resampled(x, len(y)).mean(0) - y.mean(0)).norm())
    assert_at_most(problem, means, problem.value())
