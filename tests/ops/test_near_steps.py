"""Steps that nearly coincide, where ‖x‖² + ‖y‖² − 2⟨x, y⟩ keeps few digits and a difference keeps them all."""

import pytest
import torch

from .cases import CASES, Case
from .inputs import Sequences, answer
from .tolerances import assert_accurate

STEPS, DIMENSIONS = 9, 33
DISTANCE = 1e-3  # of the norms, so that far steps do not count beside near ones in a sharp minimum
SHARP = [case for case in CASES if case.metric in ("interpolated_euclidean", "dtw") or case.name == "soft_dtw-sharp"]
SHARP += [Case("sinkhorn-sharp", "sinkhorn", {"epsilon": DISTANCE / 10})]


def around_one_sequence(b1: int, b2: int) -> Sequences:
    generator = torch.Generator().manual_seed(0)
    shared, *near = (
        torch.randn(batch, STEPS, DIMENSIONS, generator=generator) / DIMENSIONS**0.5 for batch in (1, b1, b2)
    )
    x, y = (shared + DISTANCE * steps for steps in near)
    return Sequences(x, y, None, None)


# Few sequences are compared one by one, more as one product, and pairs of a batch each by itself.
@pytest.mark.parametrize(("b1", "b2", "paired"), [(2, 3, False), (2, 18, False), (18, 18, True)])
@pytest.mark.parametrize("case", [case for case in SHARP if case.options.get("cost") != "cosine"], ids=str)
def test_near_steps_are_compared_by_their_difference(case: Case, b1: int, b2: int, paired: bool) -> None:
    given = around_one_sequence(b1, b2)
    oracle = answer(case.reference, given.map(torch.Tensor.double), paired)
    # The reference takes differences; a product is no yardstick here.
    assert_accurate(case, answer(case.kernel, given, paired), [answer(case.reference, given, paired)], oracle)
