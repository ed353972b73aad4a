"""Every op gives what other libraries give, in value and gradient."""

from collections.abc import Callable

import pytest
import torch
from ops.cases import Case
from ops.inputs import Answer, Sequences, Shape, answer, sequences
from ops.tolerances import assert_within, floor, magnification
from torch import Tensor

from .rows import ROWS, Row

QUESTIONS = [(row, case, shape) for row in ROWS for case in row.cases for shape in row.shapes]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("row", "case", "shape"), QUESTIONS, ids=[f"{case}-{row.peer}-{shape}" for row, case, shape in QUESTIONS]
)
def test_same_answer(row: Row, case: Case, shape: Shape, dtype: torch.dtype) -> None:
    given = sequences(shape, dtype)
    ours = ask(row, lambda given: row.ours(case, given), given)
    # The very same numbers, in float64.
    theirs = ask(row, lambda given: row.theirs(given, **case.options), given.map(Tensor.double))
    rounding = 0.0 if dtype == torch.float64 else floor(dtype, max(shape.n, shape.m), magnification(case, theirs))
    for part, ours_part, theirs_part in zip(Answer._fields, ours, theirs, strict=True):
        if theirs_part is not None:
            tolerance = row.tolerance.value if part == "value" else row.tolerance.gradient
            assert_within(part, ours_part, theirs_part, max(tolerance, rounding), ours_part.dtype)


def ask(row: Row, distance: Callable[[Sequences], Tensor], given: Sequences) -> Answer:
    if row.tolerance.gradient is None:
        return Answer(distance(given), None, None)
    return answer(lambda *given: distance(Sequences(*given)), given)
