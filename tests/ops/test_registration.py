"""The ops as torch's dispatcher sees them: schema, fake, autograd, and the names in front of them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import scav_kernels
from scav_kernels.ops.registry import METRICS

from .cases import CORE, OPS, Case
from .inputs import Sequences, Shape, sequences, weights
from .tolerances import assert_close


def schema_arguments(case: Case, given: Sequences, paired: bool) -> tuple[Any, ...]:
    """Arguments of torch.ops.scav.<op>, in the schema's order; whatever a backward pass needs is saved."""
    values = {**given._asdict(), **case.all_options(), **case.weights(*given), "paired": paired}
    return tuple(values.get(argument.name, True) for argument in op(case)._schema.arguments)


def op(case: Case) -> torch._ops.OpOverload:
    return getattr(torch.ops.scav, case.metric).default


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("ragged", [pytest.param(False, marks=pytest.mark.slow), True], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(torch.float32, marks=pytest.mark.slow),
        pytest.param(torch.float64, marks=pytest.mark.slow),
        torch.bfloat16,
    ],
    ids=str,
)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_opcheck(case: Case, dtype: torch.dtype, ragged: bool, paired: bool) -> None:
    given = sequences(Shape(b1=3, b2=3, ragged=ragged), dtype).leaves()
    torch.library.opcheck(op(case), schema_arguments(case, given, paired))


@pytest.mark.parametrize("case", CORE, ids=str)
def test_opcheck_with_one_side_differentiable_and_strided(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=2))
    strided = given._replace(x=given.x.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_())
    torch.library.opcheck(op(case), schema_arguments(case, strided, False))


@pytest.mark.parametrize("case", OPS, ids=str)
def test_an_option_reaches_the_op(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=4))
    result = op(case)(*schema_arguments(case, given, False))
    value = result[0] if isinstance(result, tuple) else result
    assert torch.equal(value, case.kernel(*given))
    assert torch.equal(value, scav_kernels.cdist(*given, metric=case.metric, **case.weights(*given), **case.options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_fake_results_look_like_real_ones(case: Case, paired: bool, dtype: torch.dtype) -> None:
    given = sequences(Shape(b1=3, b2=3), dtype)
    real = case.kernel(*given, paired=paired)
    with FakeTensorMode() as mode:
        fake = case.kernel(*(mode.from_tensor(tensor) for tensor in given), paired=paired)
    assert (fake.shape, fake.dtype, fake.device, fake.stride()) == (real.shape, real.dtype, real.device, real.stride())


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_the_op_itself_refuses_bad_input(case: Case, mode: type) -> None:
    given = sequences(Shape())
    for bad, exception in (
        (given._replace(x=given.x[0]), ValueError),
        (given._replace(y=given.y.double()), TypeError),
        (given._replace(x_lengths=given.x_lengths - given.x_lengths), ValueError),
    ):
        with mode(), pytest.raises(exception, match=f"{case.metric}: expected .* got"):
            op(case)(*schema_arguments(case, bad, False))


@pytest.mark.parametrize("wrong", ["x", "y", "x_lengths", "y_lengths"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_the_op_itself_refuses_tensors_on_two_devices(case: Case, wrong: str) -> None:
    """A meta tensor takes the call to the fake, whose answer is memory that nobody wrote."""
    given = sequences(Shape())
    mixed = given._replace(**{wrong: getattr(given, wrong).to("meta")})
    with pytest.raises(RuntimeError, match=f"{case.metric}: expected all tensors on one device, got cpu and meta"):
        op(case)(*schema_arguments(case, mixed, False))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64], ids=str)
def test_upstream_gradients_are_floating_point(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 2, 3)
    options = False, "x", False, True, True
    with pytest.raises(TypeError, match="expected grad of dtype float32"):
        torch.ops.scav.interpolated_euclidean_backward(torch.ones(1, 1, dtype=dtype), x, x, None, None, *options)


def test_default_metric() -> None:
    given = sequences(Shape(b1=3, b2=3))
    expected = scav_kernels.interpolated_euclidean(*given)
    assert torch.equal(scav_kernels.cdist(*given), expected)
    assert_close("paired", scav_kernels.pairwise_distance(*given), expected.diagonal())


@pytest.mark.parametrize("batch", [1, 31, 32, 65, 131])
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_without_y_sequences_are_compared_with_each_other(case: Case, ragged: bool, batch: int) -> None:
    x, _, lengths, _ = sequences(Shape(b1=batch, b2=1, n=5, m=1, d=3, ragged=ragged), torch.float64)
    alone, both = (x.clone().requires_grad_() for _ in range(2))
    value = scav_kernels.cdist(alone, x_lengths=lengths, metric=case.metric, **case.options)
    expected = scav_kernels.cdist(both, both, lengths, lengths, metric=case.metric, **case.options)
    for result in (value, expected):
        (result * weights(result)).sum().backward()
    assert_close("value", value, expected)
    assert_close("gradient", alone.grad, both.grad)


def test_each_pair_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []
    dtw = METRICS["dtw"]

    def counted(x: Tensor, y: Tensor, *lengths: Tensor | None) -> Tensor:
        pairs.append(len(x) * len(y))
        return dtw.all_pairs(x, y, *lengths)

    monkeypatch.setitem(METRICS, "dtw", dtw._replace(all_pairs=counted))
    scav_kernels.cdist(torch.randn(256, 4, 2), metric="dtw")
    assert sum(pairs) == 256 * 256 * 9 // 16


def test_errors_without_y_are_those_of_the_whole_batch() -> None:
    x = torch.randn(64, 4, 2)
    lengths = torch.full((64,), 4)
    lengths[50] = 5
    with pytest.raises(ValueError, match="got 5 at index 50"):
        scav_kernels.cdist(x, x_lengths=lengths, metric="dtw")
    with pytest.raises(ValueError, match="no y_lengths without y"):
        scav_kernels.cdist(x, y_lengths=lengths, metric="dtw")


def test_build_info() -> None:
    info = scav_kernels.build_info()
    assert info["compiler"]
    assert info["simd_levels"][0] == "baseline"
    assert info["simd_level"] in info["simd_levels"]
    assert info["bfloat16_matmul"] in ("onednn", None)
    assert "cuda_version" in info
    assert "cuda_architectures" in info
