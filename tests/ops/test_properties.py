"""Laws of every distance, or of several, whatever the shapes, options and magnitudes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import scav_kernels
from scav_kernels.reference.ground_cost import ground_cost

from .inputs import Sequences, answer
from .strategies import CONVERGED, METRICS, Problem, law, paired_shapes, problems, shapes
from .test_padding import assert_identical, padding, poisoned
from .tolerances import assert_same_answer, assert_same_value, unconverged

Lengths = Tensor | None

every = pytest.mark.parametrize("metric", METRICS)


def cut(lengths: Lengths, first: int, end: int) -> Lengths:
    return None if lengths is None else lengths[first:end]


def drawn_matrix(problem: Problem, *shape: int) -> Tensor:
    """Normal numbers in float64, from the problem's seed."""
    generator = torch.Generator().manual_seed(problem.seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


@every
@law
@given(data=st.data())
def test_swapping_the_sides(metric: str, data: st.DataObject) -> None:
    converged = "sinkhorn" in metric
    problem = data.draw(problems(metric, **({**CONVERGED, "whole": False} if converged else {})))
    other = {"x": "y", "y": "x"}
    sides = {name: value for name, value in problem.case.options.items() if name in ("resample", "direction")}
    options = {name: other.get(value, value) for name, value in sides.items()}

    def swapped(x: Tensor, y: Tensor, x_lengths: Lengths, y_lengths: Lengths) -> Tensor:
        return problem.case.kernel(y, x, y_lengths, x_lengths, **options).T

    if converged or metric == "dtw":
        # Of equal paths DTW takes the one that is first from its own side; Sinkhorn's iterations start with one side.
        slack = unconverged(problem) if converged else 0.0
        assert_same_value(problem, swapped(*problem.given), problem.value(), slack)
    else:
        assert_same_answer(problem, answer(swapped, problem.given), problem.answer())


@every
@law
@given(data=st.data())
def test_reversing_time_on_both_sides(metric: str, data: st.DataObject) -> None:
    # The nearest step is one before, not one after.
    problem = data.draw(problems(metric, **({"mode": "linear"} if metric == "interpolated_cosine" else {})))

    def backwards(x: Tensor, lengths: Lengths) -> Tensor:
        steps = torch.arange(x.shape[1])
        last = steps.new_full((len(x), 1), x.shape[1]) if lengths is None else lengths[:, None]
        order = torch.where(steps < last, last - 1 - steps, steps)
        return x.gather(1, order[..., None].expand_as(x))

    x, y, x_lengths, y_lengths = problem.given
    reversed_ = problem.given._replace(x=backwards(x, x_lengths), y=backwards(y, y_lengths))
    assert_same_value(problem, problem.of(reversed_).value(), problem.value())


@every
@law
@given(data=st.data())
def test_a_batch_is_its_pairs_one_by_one(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric, shape=shapes(("b2", "n", "m", "d"))))

    def one_by_one(x: Tensor, y: Tensor, x_lengths: Lengths, y_lengths: Lengths) -> Tensor:
        xs = [x[i : i + 1, : None if x_lengths is None else x_lengths[i]] for i in range(len(x))]
        ys = [y[j : j + 1, : None if y_lengths is None else y_lengths[j]] for j in range(len(y))]
        return torch.cat([torch.cat([problem.case.kernel(a, b) for b in ys], 1) for a in xs])

    # Gradients, too: that of the whole is the sum of those of its pairs.
    assert_same_answer(problem, answer(one_by_one, problem.given), problem.answer())


@every
@law
@given(data=st.data())
def test_a_batch_is_its_pieces(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    b1, b2 = len(problem.given.x), len(problem.given.y)
    rows, columns = (data.draw(st.integers((size + 3) // 4, size)) for size in (b1, b2))

    def in_pieces(x: Tensor, y: Tensor, x_lengths: Lengths, y_lengths: Lengths) -> Tensor:
        def piece(i: int, j: int) -> Tensor:
            k, end = i + rows, j + columns
            return problem.case.kernel(x[i:k], y[j:end], cut(x_lengths, i, k), cut(y_lengths, j, end))

        return torch.cat([torch.cat([piece(i, j) for j in range(0, b2, columns)], 1) for i in range(0, b1, rows)])

    assert_same_answer(problem, answer(in_pieces, problem.given), problem.answer())


@every
@law
@given(data=st.data())
def test_paired_is_the_diagonal(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric, shape=paired_shapes()))

    def diagonal(*args: Tensor, **_: bool) -> Tensor:
        return problem.case.kernel(*args).diagonal()

    assert_same_answer(problem, problem.answer(paired=True), answer(diagonal, problem.given))


@every
@law
@given(data=st.data())
def test_permuting_the_batches(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    i, j = (drawn_matrix(problem, len(side)).argsort() for side in problem.given[:2])

    def permuted(x: Tensor, y: Tensor, x_lengths: Lengths, y_lengths: Lengths) -> Tensor:
        lengths = (None if x_lengths is None else x_lengths[i]), (None if y_lengths is None else y_lengths[j])
        return problem.case.kernel(x[i], y[j], *lengths)[i.argsort()][:, j.argsort()]

    assert_same_answer(problem, answer(permuted, problem.given), problem.answer())


@every
@law
@given(data=st.data())
def test_padding_is_not_read(metric: str, data: st.DataObject) -> None:
    paired = data.draw(st.booleans())
    shape = paired_shapes() if paired else shapes()
    problem = data.draw(problems(metric, shape=shape.map(lambda sizes: replace(sizes, ragged=True))))
    poison = data.draw(st.sampled_from((torch.nan, torch.inf, -torch.inf, 1e30)))
    found = answer(problem.case.kernel, poisoned(problem.given, poison), paired)
    assert_identical(found, problem.answer(paired))
    assert not found.x_grad[padding(found.x_grad, problem.given.x_lengths).expand_as(found.x_grad)].any()
    assert not found.y_grad[padding(found.y_grad, problem.given.y_lengths).expand_as(found.y_grad)].any()


@every
@law
@given(data=st.data())
def test_threads(metric: str, data: st.DataObject) -> None:
    paired = data.draw(st.booleans())
    problem = data.draw(problems(metric, shape=paired_shapes() if paired else shapes()))
    torch.set_num_threads(1)
    alone = problem.answer(paired)
    torch.set_num_threads(data.draw(st.integers(2, 3)))
    assert_same_answer(problem, problem.answer(paired), alone)
    torch.set_num_threads(1)


@every
@law
@given(data=st.data())
def test_gradients_are_linear_in_those_that_come_from_above(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric, dtypes=(torch.float64,)))
    u, v = drawn_matrix(problem, 2, len(problem.given.x), len(problem.given.y))
    leaves = problem.given.leaves()
    value = problem.case.kernel(*leaves)

    def pulled(upstream: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, (leaves.x, leaves.y), upstream, retain_graph=True)

    together = problem.answer()._replace(**dict(zip(("x_grad", "y_grad"), pulled(2 * u - v), strict=True)))
    apart = [2 * a - b for a, b in zip(pulled(u), pulled(v), strict=True)]
    assert_same_answer(problem, together, together._replace(x_grad=apart[0], y_grad=apart[1]))


@every
@law
@given(data=st.data())
def test_features_of_zeros_change_nothing(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    before, after = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))

    def padded(x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
        return problem.case.kernel(functional.pad(x, (before, after)), functional.pad(y, (before, after)), *lengths)

    assert_same_answer(problem, answer(padded, problem.given), problem.answer())


@every
@law
@given(data=st.data())
def test_rotating_and_shifting_both_sides(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    d = problem.given.x.shape[2]
    turn = torch.linalg.qr(drawn_matrix(problem, d, d)).Q
    # Angles are not kept by a shift.
    shift = 0.0 if problem.cost == "cosine" else 3 * problem.scale * drawn_matrix(problem, d)
    moved = problem.given.map(lambda x: (x.double() @ turn + shift).to(x.dtype))
    problem_moved = problem.of(moved)
    assert_same_value(problem_moved, problem_moved.value(), problem.value())


@every
@law
@given(data=st.data())
def test_scaling_both_sides(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    # The cosine's norms are at least 1e-8, at which scaling stops.
    factor = data.draw(st.sampled_from((0.3, 7.0, 1e4) if problem.cost == "cosine" else (1e-4, 0.3, 7.0, 1e4)))
    grown = {"euclidean": factor, "sqeuclidean": factor**2, "cosine": 1.0}[problem.cost]
    smoothing = {name: problem.smoothing * grown for name in ("gamma", "epsilon") if name in problem.case.options}
    scaled = problem.case.kernel(*problem.given.map(lambda x: x * factor), **smoothing)
    assert_same_value(problem, scaled / grown, problem.value())


@every
@law
@given(data=st.data())
def test_half_precision_is_read_exactly(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric, dtypes=(torch.bfloat16, torch.float16)))
    wide = problem.of(problem.given.map(torch.Tensor.float))
    assert_same_value(wide, problem.value(), wide.value())


@pytest.mark.parametrize("metric", ["soft_dtw_divergence", "sinkhorn_divergence"])
@law
@given(data=st.data())
def test_equal_sequences_do_not_diverge(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    x, _, lengths, _ = problem.given
    alike = problem.of(Sequences(x, x.clone(), lengths, lengths))
    divergences = alike.value().diagonal()
    assert_same_value(alike, divergences, torch.zeros_like(divergences))


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
@law
@given(data=st.data())
def test_a_distance_is_that_of_its_ground_costs(metric: str, data: st.DataObject) -> None:
    problem = data.draw(problems(metric))
    options = {name: value for name, value in problem.case.options.items() if name != "cost"}
    from_cost: Callable[..., Tensor] = getattr(scav_kernels, f"{metric}_from_cost")

    def of_costs(x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
        (b1, n, _), (b2, m, _) = x.shape, y.shape
        cost = ground_cost(x.flatten(0, 1), y.flatten(0, 1), problem.cost)
        return from_cost(cost.reshape(b1, n, b2, m).transpose(1, 2), *lengths, **options)

    assert_same_answer(problem, answer(of_costs, problem.given), problem.answer())
