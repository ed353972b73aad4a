"""Values and gradients against the float64 reference, at sizes that cross the edges of blocks."""

from typing import Any

import pytest
import torch
from ops.cases import Case
from ops.inputs import Sequences, Shape, answer, sequences
from ops.test_near_steps import around_one_sequence
from ops.tolerances import assert_accurate, assert_same_up_to_rounding
from torch import Tensor

from scav_kernels._triton import packing, squared_sums
from scav_kernels.reference.ground_cost import root
from scav_kernels.reference.interpolated_euclidean import resampled
from scav_kernels.reference.pairs import over_pairs

from .calls import CASES, interpreted

# Blocks hold 16 to 64 sequences, and 16 features or steps.
EDGES = [
    Shape(b1=1, b2=1, n=1, m=1, d=1),
    Shape(b1=15, b2=16, n=2, m=3, d=17),
    Shape(b1=17, b2=15, n=3, m=2, d=16),
    Shape(b1=16, b2=33, n=3, m=2, d=15),
    Shape(b1=33, b2=17, n=2, m=2, d=33, ragged=False),
    Shape(b1=65, b2=2, n=2, m=1, d=3, ragged=False),
    Shape(b1=3, b2=66, n=1, m=2, d=3),
    Shape(b1=2, b2=1, n=17, m=9, d=65, ragged=False),
    Shape(b1=1, b2=2, n=33, m=16, d=5),
]


def check(case: Case, given: Sequences, paired: bool = False) -> None:
    actual = answer(interpreted(case), given, paired)
    oracle = answer(case.reference, given.map(Tensor.double), paired)
    formulas = [case.reference, case.plain]
    if given.x.dtype == torch.float16:
        formulas.append(with_rounded_operands)
    assert_accurate(case, actual, [answer(formula, given, paired) for formula in formulas], oracle)


def with_rounded_operands(
    x: Tensor, y: Tensor, x_lengths: Tensor, y_lengths: Tensor, *, paired: bool = False
) -> Tensor:
    """Return the distance by plain PyTorch with operands rounded to float16."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return root((resampled(a, len(b)).half().to(a.dtype) - b).square().sum(-1)).mean()

    return over_pairs(distance, x, y, x_lengths, y_lengths, paired)


@pytest.mark.parametrize("shape", EDGES, ids=str)
def test_edges(shape: Shape) -> None:
    check(CASES[0], sequences(shape))


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_options(case: Case, ragged: bool) -> None:
    check(case, sequences(Shape(b1=3, b2=18, n=4, m=3, d=17, ragged=ragged), torch.float64))


@pytest.mark.parametrize("shape", [Shape(b1=3, b2=3, n=17, m=9, d=33), Shape(b1=2, b2=2, n=5, m=33, d=1)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_paired(case: Case, shape: Shape) -> None:
    check(case, sequences(shape), paired=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_dtypes(dtype: torch.dtype, paired: bool) -> None:
    check(CASES[0], sequences(Shape(b1=3, b2=3, n=6, m=5, d=17), dtype), paired)


def test_batches_larger_than_a_launch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(Shape(b1=3, b2=3, n=2, m=2, d=2))
    whole = answer(interpreted(CASES[0]), given)
    monkeypatch.setattr(packing, "MAX_SEQUENCES", 2)
    assert_same_up_to_rounding(answer(interpreted(CASES[0]), given), whole)


def test_strided() -> None:
    given = sequences(Shape(b1=3, b2=4, n=5, m=4, d=6))
    strided = given._replace(
        x=given.x.transpose(0, 1).contiguous().transpose(0, 1), y=given.y.repeat_interleave(2, -1)[..., ::2]
    )
    assert torch.equal(interpreted(CASES[0])(*strided), interpreted(CASES[0])(*given))


@pytest.mark.parametrize(("b1", "b2", "paired"), [(2, 18, False), (3, 3, True)])
@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_near_steps_are_compared_by_their_difference(case: Case, b1: int, b2: int, paired: bool) -> None:
    given = around_one_sequence(b1, b2)
    oracle = answer(case.reference, given.map(Tensor.double), paired)
    # The reference takes differences; a product is no yardstick here.
    assert_accurate(case, answer(interpreted(case), given, paired), [answer(case.reference, given, paired)], oracle)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_near_steps_of_sequences_of_two_lengths(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=2, n=2, m=3, d=4))
    # All steps are near: one step, and a small part of their own.
    given = given._replace(x=given.x[:1, :1] + given.x * 1e-3, y=given.x[:1, :1] + given.y * 1e-3)
    oracle = answer(case.reference, given.map(Tensor.double))
    assert_accurate(case, answer(interpreted(case), given), [answer(case.reference, given)], oracle)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_a_batch_against_itself(case: Case) -> None:
    x = sequences(Shape(b1=17, n=2, d=17, ragged=False)).x
    found = answer(interpreted(case), Sequences(x, x, None, None))
    assert not found.value.diagonal().any()
    assert found.x_grad.isfinite().all()
    alone = answer(interpreted(case), Sequences(x[:1], x[:1], None, None))
    assert not alone.x_grad.any()
    assert not alone.y_grad.any()


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_gradients_are_those_of_the_value(case: Case, paired: bool) -> None:
    given = sequences(Shape(b1=2, b2=2, n=3, m=2, d=3), torch.float64).leaves()
    assert torch.autograd.gradcheck(
        lambda *leaves: interpreted(case)(*leaves, *given[2:], paired=paired), given[:2], fast_mode=True
    )


@pytest.mark.parametrize("scratch", [1, 10_000], ids=["a_step_and_tile_at_a_time", "a_step_at_a_time"])
def test_chunks_change_nothing(scratch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(Shape(b1=65, b2=2, n=2, m=3, d=5))
    # Near, at one step of a tile.
    given.y[:, 1] = given.x[:2, 1] = given.x[0, 0]
    expected = answer(interpreted(CASES[0]), given)
    monkeypatch.setattr(packing, "SCRATCH", scratch)
    assert_same_up_to_rounding(answer(interpreted(CASES[0]), given), expected)


def products_and_kernels(given: Sequences, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Return the number of library products and of fast launches of add_distances in a squared forward."""
    counts = [0, 0]
    product, launch = squared_sums.product, packing.launch

    def counted_product(*args: Any) -> Tensor:
        counts[0] += 1
        return product(*args)

    def counted_launch(kernel: Any, programs: tuple[int, ...], **arguments: Any) -> None:
        counts[1] += arguments.get("CAREFUL") is False
        launch(kernel, programs, **arguments)

    monkeypatch.setattr(squared_sums, "product", counted_product)
    monkeypatch.setattr(packing, "launch", counted_launch)
    interpreted(CASES[1])(*given)
    return counts[0], counts[1]


@pytest.mark.parametrize(("ragged", "expected"), [(False, (1, 0)), (True, (0, 1))], ids=["full", "ragged"])
def test_squared_is_one_product_where_targets_have_one_length(
    ragged: bool, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert products_and_kernels(sequences(Shape(b1=3, b2=3, n=4, m=2, d=5, ragged=ragged)), monkeypatch) == expected


def test_squared_in_chunks_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(Shape(b1=65, b2=3, n=2, m=3, d=5))._replace(y_lengths=None)
    # Pairs that are near as a whole, and pairs that are near at one step alone.
    given.x[:2] = given.y[:2, :2] = given.y[0, 0]
    given.y[:2, 2] = given.y[0, 0]
    given.y[2, 1] = given.x[40, 1]
    expected = answer(interpreted(CASES[1]), given)
    assert_accurate(
        CASES[1],
        expected,
        [answer(CASES[1].reference, given)],
        answer(CASES[1].reference, given.map(Tensor.double)),
    )
    monkeypatch.setattr(packing, "SCRATCH", 10_000)
    monkeypatch.setattr(squared_sums, "BLOCK", 1)
    assert_same_up_to_rounding(answer(interpreted(CASES[1]), given), expected)
