"""Padding and nonfinite steps reach no other pair."""

import pytest
import torch
from ops.cases import Case
from ops.inputs import Sequences, Shape, answer, sequences
from ops.test_padding import assert_identical, padding, poisoned

from .calls import CASES, interpreted, kernels

SHAPE = Shape(b1=3, b2=3, n=3, m=3, d=5)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("poison", [torch.nan])
@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_padding_changes_nothing(case: Case, poison: float, paired: bool) -> None:
    given = sequences(SHAPE)
    actual = answer(interpreted(case), poisoned(given, poison), paired)
    assert_identical(actual, answer(interpreted(case), given, paired))
    assert not actual.x_grad[padding(given.x, given.x_lengths).expand_as(given.x)].any()
    assert not actual.y_grad[padding(given.y, given.y_lengths).expand_as(given.y)].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", ["x", "y"])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_a_valid_step_poisons_its_pairs_alone(paired: bool, side: str, poison: float) -> None:
    case, given = CASES[0], sequences(SHAPE)
    clean = interpreted(case)(*given, paired=paired)
    getattr(given, side)[1, 0, 2] = poison
    leaves = given.leaves()
    found = interpreted(case)(*leaves, paired=paired)
    x_bad, y_bad = torch.arange(3) == (1 if side == "x" else 3), torch.arange(3) == (1 if side == "y" else 3)
    spoilt = x_bad | y_bad if paired else x_bad[:, None] | y_bad
    assert torch.equal(found[~spoilt], clean[~spoilt])
    assert (found[spoilt].isnan() if poison != poison else found[spoilt] == torch.inf).all()

    # Only one of the poisoned pairs has a gradient.
    x_hit, y_hit = (1, 1) if paired else (1, 0) if side == "x" else (0, 1)
    weight = torch.zeros_like(found)
    weight[x_hit if paired else (x_hit, y_hit)] = 1
    found.backward(weight)
    for gradient, hit, lengths in ((leaves.x.grad, x_hit, given.x_lengths), (leaves.y.grad, y_hit, given.y_lengths)):
        assert gradient[hit, : lengths[hit]].isnan().all()
        assert not gradient[hit, lengths[hit] :].any()
        assert not gradient[torch.arange(3) != hit].any()


@pytest.mark.parametrize("resample", ["x", "shorter"])
def test_memory_that_nobody_wrote_is_not_read(resample: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in CASES if case.all_options() == {"squared": False, "resample": resample})
    given = sequences(SHAPE)
    expected = answer(interpreted(case), given)
    # Fills it with NaN.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert_identical(answer(interpreted(case), given), expected)
    finally:
        torch.use_deterministic_algorithms(False)


def test_lengths_out_of_range_are_nan() -> None:
    """They cannot raise, which would take waiting for the device."""
    given = sequences(SHAPE)
    expected = kernels.forward(*given, False, "x", False)
    lengths = given.x_lengths.clone()
    lengths[0], lengths[1] = 0, 4
    found = kernels.forward(*given._replace(x_lengths=lengths), False, "x", False)
    assert found[:2].isnan().all()
    assert torch.equal(found[2], expected[2])


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize(("b1", "b2"), [(0, 3), (3, 0), (0, 0)])
def test_empty_batches(b1: int, b2: int, paired: bool) -> None:
    if paired and b1 != b2:
        return
    x, y = torch.randn(b1, 4, 3), torch.randn(b2, 5, 3)
    found = kernels.forward(x, y, None, None, False, "x", paired)
    assert found.shape == ((b1,) if paired else (b1, b2))
    gradients = kernels.backward(found, x, y, None, None, False, "x", paired, True, True)
    assert [tuple(gradient.shape) for gradient in gradients] == [tuple(x.shape), tuple(y.shape)]
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("need_x", "need_y"), [(True, False), (False, True)])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_gradients_not_needed_are_empty(paired: bool, need_x: bool, need_y: bool) -> None:
    given: Sequences = sequences(SHAPE)
    grad = torch.ones(3) if paired else torch.ones(3, 3)
    both = kernels.backward(grad, *given, False, "x", paired, True, True)
    dx, dy = kernels.backward(grad, *given, False, "x", paired, need_x, need_y)
    assert torch.equal(dx, both[0] if need_x else dx.new_empty(0))
    assert torch.equal(dy, both[1] if need_y else dy.new_empty(0))
