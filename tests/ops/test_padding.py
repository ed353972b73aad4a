"""Padding reaches neither a result nor a gradient."""

import pytest
import torch
from torch import Tensor

from .cases import CASES, Case
from .inputs import Answer, Sequences, Shape, answer, sequences
from .tolerances import assert_same_up_to_rounding


def poisoned(given: Sequences, poison: float) -> Sequences:
    return given._replace(
        x=given.x.masked_fill(padding(given.x, given.x_lengths), poison),
        y=given.y.masked_fill(padding(given.y, given.y_lengths), poison),
    )


def padding(steps: Tensor, lengths: Tensor) -> Tensor:
    """(B, N, D), (B,) -> (B, N, 1)."""
    return (torch.arange(steps.shape[1]) >= lengths[:, None])[..., None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_poison_changes_nothing(case: Case, poison: float, paired: bool, dtype: torch.dtype) -> None:
    given = sequences(Shape(b1=17, b2=17, n=9, m=8), dtype)
    expected = answer(case.kernel, given, paired)
    actual = answer(case.kernel, poisoned(given, poison), paired)
    assert_identical(actual, expected)
    for gradient, steps, lengths in (
        (actual.x_grad, given.x, given.x_lengths),
        (actual.y_grad, given.y, given.y_lengths),
    ):
        assert not gradient[padding(steps, lengths).expand_as(gradient)].any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_more_padding_changes_nothing_but_shapes(case: Case) -> None:
    given = sequences(Shape(b1=5, b2=18, n=9, m=8))
    longer = given._replace(
        x=torch.nn.functional.pad(given.x, (0, 0, 0, 13), value=torch.nan),
        y=torch.nn.functional.pad(given.y, (0, 0, 0, 29), value=torch.nan),
    )
    actual = answer(case.kernel, longer)
    cut = actual._replace(x_grad=actual.x_grad[:, :9], y_grad=actual.y_grad[:, :8])
    assert_same_up_to_rounding(cut, answer(case.kernel, given))


@pytest.mark.parametrize("side", ["x_lengths", "y_lengths"])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_lengths_means_full_lengths(case: Case, paired: bool, side: str) -> None:
    given = sequences(Shape(b1=4, b2=4, n=6, m=6))
    full = given._replace(**{side: torch.full((4,), 6)})
    none = given._replace(**{side: None})
    assert_identical(answer(case.kernel, none, paired), answer(case.kernel, full, paired))


def assert_identical(actual: Answer, expected: Answer) -> None:
    for part in actual._fields:
        assert torch.equal(getattr(actual, part), getattr(expected, part)), part
