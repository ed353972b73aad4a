"""Ground costs as products of bfloat16 numbers: of bfloat16 steps always, of float32 ones where the user allows it."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import scav_kernels

from .cases import CASES, CORE, OPS, Case
from .inputs import Answer, Sequences, Shape, answer, sequences
from .test_near_steps import SHARP, around_one_sequence
from .test_padding import assert_identical, poisoned
from .tolerances import assert_accurate, assert_same_up_to_rounding

multiplies = pytest.mark.skipif(
    scav_kernels.build_info()["bfloat16_matmul"] is None, reason="no bfloat16 products on this CPU at this SIMD level"
)
ALIGNED = [case for case in CASES if not case.metric.startswith("interpolated")]
ALIGNED_CORE = [case for case in CORE if case in ALIGNED]
# Steps as they are given, not as unit vectors.
DIRECT = [case for case in ALIGNED if case.options.get("cost") != "cosine"]
WITH_COST = [case for case in OPS if case.options.get("cost") == "cosine" and case.metric != "chamfer"]
SHAPES = [Shape(b1=3, b2=18, n=9, m=8, d=d) for d in (1, 3, 17, 65)]


@pytest.fixture(autouse=True)
def precision() -> Iterator[Callable[[str], None]]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def rounded(steps: Tensor) -> Tensor:
    return steps.bfloat16().to(steps.dtype)


def assert_that_of_rounded_steps(case: Case, given: Sequences, paired: bool = False) -> None:
    """`given` has no padding other than finite."""
    near = given.map(rounded)
    oracle = answer(case.reference, near.map(Tensor.double), paired)
    plain = [answer(formula, near, paired) for formula in (case.reference, case.plain)]
    if given.x_lengths is not None:
        given = poisoned(given, torch.nan)
    assert_accurate(case, answer(case.kernel, given, paired), plain, oracle)


@pytest.mark.slow
@multiplies
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", DIRECT, ids=str)
def test_medium_is_the_answer_for_rounded_steps(case: Case, shape: Shape, precision: Callable[[str], None]) -> None:
    precision("medium")
    assert_that_of_rounded_steps(case, sequences(shape))


@multiplies
@pytest.mark.parametrize("case", DIRECT, ids=str)
def test_medium_paired(case: Case, precision: Callable[[str], None]) -> None:
    precision("medium")
    assert_that_of_rounded_steps(case, sequences(Shape(b1=17, b2=17, n=9, m=7, d=33)), paired=True)


@multiplies
@pytest.mark.parametrize(("b1", "b2", "paired"), [(2, 3, False), (2, 18, False), (18, 18, True)])
@pytest.mark.parametrize("case", [case for case in SHARP if case in DIRECT], ids=str)
def test_near_steps(case: Case, b1: int, b2: int, paired: bool, precision: Callable[[str], None]) -> None:
    """Many of their features are the same number once rounded."""
    precision("medium")
    given = around_one_sequence(b1, b2)
    near = given.map(rounded)
    oracle = answer(case.reference, near.map(Tensor.double), paired)
    assert_accurate(case, answer(case.kernel, given, paired), [answer(case.reference, near, paired)], oracle)


@multiplies
@pytest.mark.parametrize("case", WITH_COST, ids=str)
def test_medium_rounds_unit_steps_of_the_cosine(case: Case, precision: Callable[[str], None]) -> None:
    options = {name: value for name, value in case.options.items() if name != "cost"}
    from_cost = getattr(scav_kernels, f"{case.metric}_from_cost")

    def units(steps: Tensor) -> Tensor:
        unit = steps * (1 / steps.double().norm(dim=-1, keepdim=True)).to(steps.dtype)
        # Rounding changes the value, and passes the gradient through.
        return unit + (rounded(unit) - unit).detach()

    def distance(x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None) -> Tensor:
        cost = 1 - torch.einsum("ind, jmd -> ijnm", units(x), units(y))
        return from_cost(cost, x_lengths, y_lengths, **options)

    given = sequences(Shape(b1=3, b2=18, n=9, m=8, d=17))
    expected = answer(distance, given)
    precision("medium")
    assert_same_up_to_rounding(answer(case.kernel, given), expected)


@multiplies
@pytest.mark.parametrize("shape", SHAPES, ids=str)
# A divergence adds gradients that are bfloat16 already.
@pytest.mark.parametrize("case", [case for case in DIRECT if case in OPS], ids=str)
def test_bfloat16_steps_need_no_permission(case: Case, shape: Shape, precision: Callable[[str], None]) -> None:
    given = sequences(shape, torch.bfloat16)
    actual = answer(case.kernel, given)
    precision("medium")
    expected = answer(case.kernel, given.map(Tensor.float))
    narrow = Answer(expected.value, expected.x_grad.bfloat16(), expected.y_grad.bfloat16())
    assert_identical(actual, narrow)


@multiplies
@pytest.mark.parametrize("case", ALIGNED_CORE, ids=str)
def test_the_newer_setting_means_the_same(case: Case, precision: Callable[[str], None]) -> None:
    given = sequences(SHAPES[-1])
    precision("medium")
    expected = answer(case.kernel, given)
    precision("highest")
    setting = torch.backends.mkldnn.matmul
    before, setting.fp32_precision = setting.fp32_precision, "bf16"
    try:
        actual = answer(case.kernel, given)
    finally:
        setting.fp32_precision = before
    assert_identical(actual, expected)


@multiplies
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("case", ALIGNED_CORE, ids=str)
def test_poison_in_a_valid_step_stays_in_its_pairs(case: Case, poison: float, precision: Callable[[str], None]) -> None:
    precision("medium")
    given = sequences(Shape(b1=3, b2=18, n=9, m=8, d=17))
    clean = case.kernel(*given)
    given.x[1, 0, 3] = given.y[16, 0, 16] = poison
    found = case.kernel(*given)
    spoilt = torch.zeros_like(found, dtype=torch.bool)
    spoilt[1] = spoilt[:, 16] = True
    assert torch.equal(~found.isfinite(), spoilt)
    assert torch.equal(found[~spoilt], clean[~spoilt])


def assert_changes_nothing(case: Case, dtype: torch.dtype, setting: str, precision: Callable[[str], None]) -> None:
    given = sequences(SHAPES[-1], dtype)
    expected = answer(case.kernel, given)
    precision(setting)
    assert_identical(answer(case.kernel, given), expected)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_high_is_the_highest(case: Case, precision: Callable[[str], None]) -> None:
    assert_changes_nothing(case, torch.float32, "high", precision)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_medium_is_about_float32(case: Case, dtype: torch.dtype, precision: Callable[[str], None]) -> None:
    assert_changes_nothing(case, dtype, "medium", precision)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ALIGNED], ids=str)
def test_resampled_steps_are_not_rounded(case: Case, precision: Callable[[str], None]) -> None:
    assert_changes_nothing(case, torch.float32, "medium", precision)


@pytest.mark.skipif(
    scav_kernels.build_info()["bfloat16_matmul"] is not None, reason="bfloat16 products on this CPU at this SIMD level"
)
@pytest.mark.parametrize("case", ALIGNED, ids=str)
def test_medium_changes_nothing_without_bfloat16_products(case: Case, precision: Callable[[str], None]) -> None:
    assert_changes_nothing(case, torch.float32, "medium", precision)


@pytest.mark.parametrize("case", ALIGNED_CORE, ids=str)
def test_onednn_switched_off(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(SHAPES[-1], torch.bfloat16)
    expected = answer(case.kernel, given)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert_same_up_to_rounding(answer(case.kernel, given), expected)
