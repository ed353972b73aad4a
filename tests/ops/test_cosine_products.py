"""Interpolated cosine as CUDA computes it, of PyTorch's operations: here on the CPU, against the reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from scav_kernels.ops import cosine_products

from .cases import OPS, Case
from .inputs import Answer, Sequences, Shape, answer, sequences
from .tolerances import assert_accurate, assert_same_up_to_rounding

CASES = [case for case in OPS if case.metric == "interpolated_cosine"]
# A product for all targets, for each length of targets, and for each target.
SHAPES = [Shape(b1=4, b2=3, n=9, m=7, ragged=False), Shape(b1=3, b2=8, n=6, m=5), Shape(b1=5, b2=3, n=4, m=11)]
cases = pytest.mark.parametrize("case", CASES, ids=str)


class Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        *tensors, resample, mode, paired = given
        ctx.save_for_backward(*tensors)
        ctx.options = resample, mode, paired
        return cosine_products.forward(*given)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        need_x, need_y, *_ = ctx.needs_input_grad
        gradients = cosine_products.backward(grad, *ctx.saved_tensors, *ctx.options, need_x, need_y)
        return *(of if needed else None for of, needed in zip(gradients, (need_x, need_y), strict=True)), *[None] * 5


def kernel(case: Case) -> Callable[..., Tensor]:
    options = case.all_options()

    def distance(*given: Tensor | None, paired: bool = False) -> Tensor:
        return Distance.apply(*given, options["resample"], options["mode"], paired)

    return distance


def ask(case: Case, given: Sequences, paired: bool = False) -> Answer:
    return answer(kernel(case), given, paired)


def check(case: Case, given: Sequences, paired: bool = False) -> None:
    oracle = answer(case.reference, given.map(Tensor.double), paired)
    formulas = [answer(formula, given, paired) for formula in (case.reference, case.plain)]
    assert_accurate(case, ask(case, given, paired), formulas, oracle)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@cases
def test_all_pairs(case: Case, shape: Shape) -> None:
    check(case, sequences(shape, torch.float32))


@pytest.mark.parametrize("shape", [Shape(b1=3, b2=3, n=9, m=5), Shape(b1=3, b2=3, n=4, m=11)], ids=str)
@cases
def test_paired(case: Case, shape: Shape) -> None:
    check(case, sequences(shape, torch.float32), paired=True)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_dtypes(dtype: torch.dtype, paired: bool) -> None:
    check(CASES[0], sequences(Shape(b1=3, b2=3, n=6, m=5), dtype), paired)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_chunks_change_nothing(shape: Shape, paired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case, given = CASES[2], sequences(shape, torch.float64)
    if paired:
        given = Sequences(*(part if part is None else part[:3] for part in given))
    whole = ask(case, given, paired)
    monkeypatch.setattr(cosine_products, "SCRATCH", 1)
    assert_same_up_to_rounding(ask(case, given, paired), whole)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
def test_nonfinite_steps_reach_their_pairs_alone(paired: bool, poison: float) -> None:
    case, given = CASES[0], sequences(Shape(b1=3, b2=3, n=5, m=4))
    clean = ask(case, given, paired)
    # Beyond a length, and within one.
    given.x[0, given.x_lengths[0] :] = given.y[1, given.y_lengths[1] :] = poison
    given.x[2, 0, 1] = poison
    found = ask(case, given, paired)
    assert found.value[2].isnan().all()
    assert torch.equal(found.value[:2], clean.value[:2])
    valid = torch.arange(5) < given.x_lengths[2]
    assert torch.equal(found.x_grad[2].isnan(), valid[:, None].expand(5, given.x.shape[2]))
    assert torch.equal(found.x_grad[:2], clean.x_grad[:2])


def test_lengths_out_of_range_are_nan() -> None:
    given = sequences(Shape(b1=3, b2=2, n=5, m=4))
    lengths = torch.tensor([0, 6, 5])
    found = cosine_products.forward(given.x, given.y, lengths, None, "x", "linear", False)
    assert found.isnan().tolist() == [[True] * 2, [True] * 2, [False] * 2]


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("shape", [(3, 3, 5, 4), (3, 3, 5, 2), (0, 0, 5, 4)])
@pytest.mark.parametrize("resample", ["x", "shorter"])
def test_nothing_waits_for_the_device(resample: str, shape: tuple[int, ...], paired: bool) -> None:
    """A call that read numbers of the meta device would raise."""
    b1, b2, n, m = shape
    x, y = torch.empty(b1, n, 6, device="meta"), torch.empty(b2, m, 6, device="meta")
    lengths = [torch.empty(batch, dtype=torch.int64, device="meta") for batch in (b1, b2)]
    out = cosine_products.forward(x, y, *lengths, resample, "linear", paired)
    assert out.shape == ((b1,) if paired else (b1, b2))
    gradients = cosine_products.backward(out, x, y, *lengths, resample, "linear", paired, True, False)
    assert [of.shape for of in gradients] == [x.shape, (0,)]
