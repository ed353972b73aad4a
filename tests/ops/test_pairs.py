"""Pairs of their own, x number i against y number i, at sizes around the lanes and panels of a recursion."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from .cases import OPS, Case
from .inputs import Shape, answer, sequences
from .test_padding import poisoned
from .tolerances import assert_accurate

COUNTS = (1, 15, 16, 17, 33, 65)
STEPS = ((1, 33), (15, 16), (17, 65), (33, 15), (16, 1), (65, 17))
# Few features, and products that end within a vector or with it.
FEATURES = (1, 7, 17, 64)


def assert_right(case: Case, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
    # A cosine of one feature is 1 or -1, and has no gradient to compare.
    given = sequences(replace(shape, d=max(shape.d, 2)) if case.options.get("cost") == "cosine" else shape, dtype)
    oracle = answer(case.reference, given.map(Tensor.double), paired=True)
    plain = [answer(formula, given, paired=True) for formula in (case.reference, case.plain)]
    if given.x_lengths is not None:
        given = poisoned(given, torch.nan)
    assert_accurate(case, answer(case.kernel, given, paired=True), plain, oracle)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("case", OPS, ids=str)
def test_counts(case: Case, count: int) -> None:
    dtype = (torch.float32, torch.float64)[count % 2]
    assert_right(case, Shape(b1=count, b2=count, n=5, m=6, d=FEATURES[count % 4]), dtype)


@pytest.mark.parametrize("ragged", [False, True], ids=["even", "ragged"])
@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("case", OPS, ids=str)
def test_steps(case: Case, steps: tuple[int, int], ragged: bool) -> None:
    n, m = steps
    assert_right(case, Shape(b1=18, b2=18, n=n, m=m, d=FEATURES[(n + ragged) % 4], ragged=ragged))
