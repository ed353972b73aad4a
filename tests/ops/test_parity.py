"""Values and gradients against the float64 reference, across every lane and tile edge."""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch

from .cases import CASES, CORE, Case, crossed
from .inputs import Shape, answer, sequences
from .tolerances import assert_accurate, assert_same_up_to_rounding

# Around the widths of a vector (4 to 16 lanes) and of a panel of pairs (64).
EDGES = [1, 7, 15, 16, 17, 33, 65]
SMALL = Shape(b1=2, b2=3, n=6, m=5, d=4)
SWEEP = [replace(SMALL, **{axis: size}) for axis in ("b2", "n", "m", "d") for size in EDGES]
SWEEP += [
    replace(SMALL, b1=1),
    replace(SMALL, b1=17),
    Shape(b1=1, b2=1, n=1, m=1, d=1, ragged=False),
    Shape(b1=1, b2=5, n=17, m=16, d=16, ragged=False),
    Shape(b1=2, b2=2, n=65, m=33, d=17),
    Shape(b1=2, b2=17, n=3, m=4, d=7, ragged=False),
    Shape(b1=2, b2=66, n=3, m=4, d=7, ragged=False),
    Shape(b1=1, b2=129, n=2, m=3, d=3),
]
DTYPES = [torch.float32, torch.float64]


class Form(NamedTuple):
    """Sizes and dtype of the inputs."""

    shape: Shape
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.shape}-{self.dtype}"


FORMS = [
    Form(shape, dtype)
    for shape in (Shape(b1=3, b2=5, n=9, m=7), Shape(b1=2, b2=18, n=5, m=8, d=17))
    for dtype in DTYPES
]
PAIRED_FORMS = [Form(Shape(b1=b, b2=b, n=9, m=7), dtype) for b in (1, 4, 17) for dtype in DTYPES]


def check(case: Case, shape: Shape, dtype: torch.dtype, paired: bool = False) -> None:
    given = sequences(shape, dtype)
    oracle = answer(case.reference, given.map(torch.Tensor.double), paired)
    of_reference = oracle if dtype == torch.float64 else answer(case.reference, given, paired)
    plain = [of_reference, answer(case.plain, given, paired)]
    assert_accurate(case, answer(case.kernel, given, paired), plain, oracle)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(("case", "shape"), crossed(CORE, SWEEP))
def test_every_size(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    check(case, shape, dtype)


@pytest.mark.parametrize(("case", "form"), crossed(CASES, FORMS))
def test_every_option(case: Case, form: Form) -> None:
    check(case, *form)


@pytest.mark.parametrize(("case", "form"), crossed(CASES, PAIRED_FORMS))
def test_paired(case: Case, form: Form) -> None:
    check(case, *form, paired=True)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_accumulated_in_float32(case: Case, half: torch.dtype) -> None:
    given = sequences(Shape(d=33), half)
    wide = given.map(torch.Tensor.float)
    actual, expected = answer(case.kernel, given), answer(case.kernel, wide)
    # Rounded once, at the end, to the dtype of the input.
    expected = expected._replace(x_grad=expected.x_grad.to(half), y_grad=expected.y_grad.to(half))
    assert_same_up_to_rounding(actual, expected)
