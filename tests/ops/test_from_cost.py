"""The distances of given costs: as their namesakes on sequences, and as the reference on costs of any kind."""

import inspect
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_kernels.reference.ground_cost import ground_cost

from .cases import CONVERGED
from .inputs import Shape, sequences, weights
from .tolerances import assert_close, assert_within, floor, magnification
from .tolerances import error as relative_error


@dataclass(frozen=True, eq=False)
class Case:
    """A distance of given costs, with one choice of options."""

    name: str
    parent: str
    options: dict[str, Any] = field(default_factory=dict)
    # Options under which the gradient is that of the value.
    converged: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def kernel(self, *given: Tensor | None, **options: Any) -> Tensor:
        return getattr(scav_kernels, f"{self.parent}_from_cost")(*given, **{**self.options, **options})

    def reference(self, *given: Tensor | None, **options: Any) -> Tensor:
        return getattr(reference, f"{self.parent}_from_cost")(*given, **{**self.options, **options})

    def op(self) -> torch._ops.OpOverload:
        return getattr(torch.ops.scav, f"{self.parent}_from_cost").default

    def all_options(self) -> dict[str, Any]:
        """Defaults included."""
        parameters = inspect.signature(getattr(scav_kernels, f"{self.parent}_from_cost")).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
        return {**defaults, **self.options}

    def op_arguments(self, *given: Tensor | None) -> tuple[Any, ...]:
        """In the schema's order; whatever a backward pass needs is saved."""
        options = self.all_options()
        return *given, *(options.get(argument.name, True) for argument in self.op()._schema.arguments[3:])


CORE = [
    Case("dtw", "dtw"),
    Case("soft_dtw", "soft_dtw"),
    Case("sinkhorn", "sinkhorn", converged=CONVERGED),
]
CASES = [
    *CORE,
    Case("dtw-band-0", "dtw", {"band": 0}),
    Case("dtw-band-2", "dtw", {"band": 2}),
    Case("dtw-open-symmetric2", "dtw", {"open_begin": True, "open_end": True, "diagonal_weight": 2.0}),
    Case("dtw-penalty-path", "dtw", {"step_penalty": 0.2, "diagonal_weight": 0.7, "normalize": "path"}),
    Case("soft_dtw-sharp", "soft_dtw", {"gamma": 0.01}),
    Case("soft_dtw-open", "soft_dtw", {"open_begin": True, "open_end": True}),
    Case("soft_dtw-band-1", "soft_dtw", {"gamma": 0.1, "band": 1}),
    Case("sinkhorn-fixed", "sinkhorn", {"max_iterations": 20, "tolerance": 0.0}, CONVERGED),
    Case("sinkhorn-blurred", "sinkhorn", {"epsilon": 1.0, "tolerance": 1e-5}, CONVERGED),
]


class Costs(NamedTuple):
    cost: Tensor  # (B1, B2, N, M)
    x_lengths: Tensor | None
    y_lengths: Tensor | None


class Answer(NamedTuple):
    value: Tensor
    gradient: Tensor


def costs(b1: int = 3, b2: int = 4, n: int = 6, m: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> Costs:
    """Uniform in [0, 1), with ragged lengths, of which the first are full."""
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(b1, b2, n, m, dtype=torch.float64, generator=generator).to(dtype)
    rows = torch.randint(1, n + 1, (b1,), generator=generator)
    columns = torch.randint(1, m + 1, (b2,), generator=generator)
    rows[:1], columns[:1] = n, m
    return Costs(cost, rows, columns)


def answer(distance: Any, given: Costs) -> Answer:
    cost = given.cost.detach().clone().requires_grad_()
    value = distance(cost, *given[1:])
    (gradient,) = torch.autograd.grad((value * weights(value)).sum(), cost)
    return Answer(value.detach(), gradient)


def valid(given: Costs) -> Tensor:
    """(B1, B2, N, M), true within the lengths."""
    n, m = given.cost.shape[2:]
    rows = torch.arange(n) < given.x_lengths[:, None]  # (B1, N)
    columns = torch.arange(m) < given.y_lengths[:, None]  # (B2, M)
    return rows[:, None, :, None] & columns[None, :, None, :]


def assert_accurate(case: Case, given: Costs) -> None:
    """Errors at most twice those of the reference in the same dtype."""
    oracle = answer(case.reference, given._replace(cost=given.cost.double()))
    plain, actual = answer(case.reference, given), answer(case.kernel, given)
    steps = max(given.cost.shape[2:])
    for part in actual._fields:
        expected, ours, theirs = (getattr(found, part) for found in (oracle, actual, plain))
        allowed = max(2 * relative_error(theirs, expected), floor(ours.dtype, steps, magnification(case, oracle)))
        assert_within(part, ours, expected, allowed, given.cost.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 16), (17, 1), (15, 17), (16, 33), (33, 15), (7, 65)])
@pytest.mark.parametrize(("b1", "b2"), [(1, 1), (3, 6), (1, 17), (17, 1)])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_every_size(case: Case, b1: int, b2: int, n: int, m: int, dtype: torch.dtype) -> None:
    if b1 * b2 * n * m > 3000 and case.parent == "soft_dtw":
        b1, b2 = min(b1, 3), min(b2, 3)  # the reference takes cell after cell
    assert_accurate(case, costs(b1, b2, n, m, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_option(case: Case, dtype: torch.dtype) -> None:
    assert_accurate(case, costs(5, 4, 9, 8, dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_negative_costs(case: Case) -> None:
    given = costs(3, 4, 9, 8)
    assert_accurate(case, given._replace(cost=given.cost - 0.5))


@pytest.mark.parametrize("kind", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_namesake_on_sequences(case: Case, kind: str) -> None:
    given = sequences(Shape(b1=3, b2=18, n=9, m=8), torch.float64)
    cost = torch.stack([torch.stack([ground_cost(x, y, kind) for y in given.y]) for x in given.x])
    expected = getattr(scav_kernels, case.parent)(*given, cost=kind, **case.options)
    found = case.kernel(cost, given.x_lengths, given.y_lengths)
    assert_within("value", found, expected, floor(torch.float64, 9, 1 / 0.01), torch.float64)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_pair(case: Case) -> None:
    given = costs(1, 1, 9, 8)
    cost = given.cost[0, 0].clone().requires_grad_()
    lengths = torch.tensor([7]), torch.tensor([8])
    alone, batch = case.kernel(cost, *lengths), answer(case.kernel, Costs(given.cost, *lengths))
    assert alone.shape == ()
    assert torch.equal(alone, batch.value[0, 0])
    (gradient,) = torch.autograd.grad(alone, cost)
    assert gradient.shape == (9, 8)
    assert_close("gradient", gradient * weights(batch.value)[0, 0], batch.gradient[0, 0])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradcheck(case: Case) -> None:
    given = costs(2, 3, 5, 4, torch.float64)
    assert torch.autograd.gradcheck(
        lambda cost: case.kernel(cost, *given[1:], **case.converged), (given.cost.requires_grad_(),)
    )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_accumulated_in_float32(case: Case, half: torch.dtype) -> None:
    given = costs(dtype=half)
    actual, wide = answer(case.kernel, given), answer(case.kernel, given._replace(cost=given.cost.float()))
    assert torch.equal(actual.value, wide.value)
    assert torch.equal(actual.gradient, wide.gradient.to(half))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_padding_changes_nothing(case: Case, poison: float) -> None:
    given = costs(5, 4, 18, 17)
    expected = answer(case.kernel, given)
    actual = answer(case.kernel, given._replace(cost=given.cost.where(valid(given), poison)))
    assert torch.equal(actual.value, expected.value)
    assert torch.equal(actual.gradient, expected.gradient)
    assert not actual.gradient[~valid(given)].any()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_autograd(case: Case, mode: type) -> None:
    given = costs()
    given.cost.requires_grad_()
    with mode():
        value = case.kernel(*given)
    assert not value.requires_grad
    assert torch.equal(value, case.kernel(*given).detach())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_lengths_means_full_lengths(case: Case) -> None:
    given = costs()
    full = Costs(given.cost, torch.full((3,), 6), torch.full((4,), 5))
    for none in (Costs(given.cost, None, None), full._replace(x_lengths=None), full._replace(y_lengths=None)):
        for found, expected in zip(answer(case.kernel, none), answer(case.kernel, full), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("poison", [torch.nan, -torch.inf])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_cell_spoils_its_own_pair_only(case: Case, poison: float) -> None:
    given = costs(3, 18, 7, 7)._replace(x_lengths=None, y_lengths=None)
    clean = answer(case.kernel, given)
    cost = given.cost.clone()
    cost[1, 2, 3, 3] = poison
    found = answer(case.kernel, given._replace(cost=cost))
    others = torch.ones(3, 18, dtype=torch.bool)
    others[1, 2] = False
    torch.testing.assert_close(found.value[1, 2], torch.tensor(poison), equal_nan=True)
    assert torch.equal(found.value[others], clean.value[others])
    assert torch.equal(found.gradient[others], clean.gradient[others])
    assert found.gradient[1, 2].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", [0.1, 0.4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_infinite_costs_forbid_their_cells(case: Case, share: float, dtype: torch.dtype) -> None:
    given = costs(5, 6, 9, 8, dtype)
    forbidden = torch.rand(given.cost.shape, generator=torch.Generator().manual_seed(2)) < share
    given = given._replace(cost=given.cost.masked_fill(forbidden, torch.inf))
    found, expected = answer(case.kernel, given), answer(case.reference, given._replace(cost=given.cost.double()))
    blocked = expected.value.isinf()
    assert torch.equal(found.value.isinf(), blocked)
    assert blocked.any()
    assert not blocked.all()
    assert found.gradient.isfinite().all()
    assert not found.gradient[forbidden | blocked[..., None, None]].any()
    # Plans that would need a forbidden cell never converge; they sway with every rounding.
    if case.parent != "sinkhorn":
        allowed = floor(dtype, 9, 1 / 0.01)
        assert_within("value", found.value[~blocked], expected.value[~blocked], allowed, dtype)
        assert_within("gradient", found.gradient, expected.gradient, allowed, dtype)


def test_forbidden_cells_are_those_of_an_assignment() -> None:
    # Off the diagonal nothing may move: the plan is the identity, whatever epsilon.
    cost = torch.full((5, 5), torch.inf).fill_diagonal_(2.0).requires_grad_()
    value = scav_kernels.sinkhorn_from_cost(cost, epsilon=0.1)
    # KL(P ‖ a ⊗ b) = log 5 for P = I / 5.
    assert_close("value", value.detach(), torch.tensor(2 + 0.1 * torch.log(torch.tensor(5.0)).item()))
    value.backward()
    assert_close("plan", cost.grad, torch.eye(5) / 5)


def expanded(cost: Tensor) -> Tensor:
    return cost[:1, :1].expand(3, 4, 6, 5)


def transposed(cost: Tensor) -> Tensor:
    return cost.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)


def every_second(cost: Tensor) -> Tensor:
    wide = torch.full((6, 8, 12, 10), torch.nan)
    wide[::2, ::2, ::2, ::2] = cost
    return wide[::2, ::2, ::2, ::2]


def rows_apart(cost: Tensor) -> Tensor:
    wide = torch.full((3, 4, 12, 9), torch.nan)
    wide[:, :, ::2, 3:8] = cost
    return wide[:, :, ::2, 3:8]


@pytest.mark.parametrize("layout", [expanded, transposed, every_second, rows_apart])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_layout(case: Case, layout: Any) -> None:
    given = costs()
    laid_out = layout(given.cost)
    assert not laid_out.is_contiguous()
    contiguous = answer(case.kernel, given._replace(cost=laid_out.contiguous()))
    cost = laid_out.detach().requires_grad_()
    value = case.kernel(cost, *given[1:])
    (gradient,) = torch.autograd.grad((value * weights(value)).sum(), cost)
    assert torch.equal(value, contiguous.value)
    assert torch.equal(gradient, contiguous.gradient)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pair_does_not_depend_on_its_batch(case: Case) -> None:
    given = costs(3, 18, 8, 9)
    together = case.kernel(*given)
    for i in range(3):
        alone = case.kernel(given.cost[i : i + 1, 5:6], given.x_lengths[i : i + 1], given.y_lengths[5:6])
        assert_close(f"pair {i}", alone, together[i : i + 1, 5:6])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_threads_and_runs_agree(case: Case, threads: Any) -> None:
    given = costs(9, 17, 17, 16)
    one = answer(case.kernel, given)
    threads(2)
    for found, expected in zip(answer(case.kernel, given), one, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels round denormal results on x86-64 alone")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("metric", "options"), [("soft_dtw", {"gamma": 0.01}), ("sinkhorn", {"epsilon": 0.01})])
def test_weights_are_zero_instead_of_denormal(
    metric: str, options: dict[str, float], count: int, threads: Callable[[int], None]
) -> None:
    """Operations with denormal numbers are slow on some CPUs."""
    threads(count)
    cost = torch.rand(8, 8, 33, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    getattr(scav_kernels, f"{metric}_from_cost")(cost, **options).sum().backward()
    tiny = torch.finfo(torch.float32).tiny
    assert (cost.grad[cost.grad != 0] >= tiny).all()
    assert (cost.grad < 1e3 * tiny).any()
    # The caller's own arithmetic is as before.
    assert (torch.full((4,), tiny) / 2 != 0).all()


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow), torch.bfloat16], ids=str
)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_opcheck(case: Case, dtype: torch.dtype, ragged: bool) -> None:
    given = costs(dtype=dtype)
    lengths = given[1:] if ragged else (None, None)
    torch.library.opcheck(case.op(), case.op_arguments(given.cost.requires_grad_(), *lengths))


@pytest.mark.parametrize("case", CORE, ids=str)
def test_double_backward_says_that_it_is_not_supported(case: Case) -> None:
    cost = costs().cost.requires_grad_()
    (gradient,) = torch.autograd.grad(case.kernel(cost).sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match=rf"{case.parent}_from_cost.*gradients of gradients.*create_graph"):
        torch.autograd.grad(gradient.sum(), cost)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_the_op_itself_saves_what_backward_needs(case: Case) -> None:
    given = costs()
    cost = given.cost.clone().requires_grad_()
    arguments = case.op_arguments(cost, *given[1:])
    named = zip(case.op()._schema.arguments, arguments, strict=True)
    result = case.op()(*(False if argument.name.startswith("save_") else value for argument, value in named))
    out = result[0] if isinstance(result, tuple) else result
    (gradient,) = torch.autograd.grad((out * weights(out)).sum(), cost)
    assert torch.equal(gradient, answer(case.kernel, given).gradient)


@pytest.mark.parametrize(("b", "n", "m"), [(1, 6, 5), (7, 6, 5), (19, 17, 16), (2, 70, 66)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_ops_take_costs_of_pairs(case: Case, b: int, n: int, m: int) -> None:
    """(B, N, M) with B lengths on each side, as if each pair were passed alone."""
    given = costs(b, b, n, m)
    given = given._replace(cost=given.cost.diagonal().movedim(-1, 0).requires_grad_())
    result = case.op()(*case.op_arguments(*given))
    out, *saved = result if isinstance(result, tuple) else (result,)
    assert all(part.shape[0] in (b, 0) for part in (out, *saved))
    (gradient,) = torch.autograd.grad((out * weights(out)).sum(), given.cost)
    assert gradient.shape == (b, n, m)
    for i, weight in enumerate(weights(out)):
        cost = given.cost[i].detach().requires_grad_()
        alone = case.kernel(cost, given.x_lengths[i : i + 1], given.y_lengths[i : i + 1])
        assert_close("value", out[i].detach(), alone.detach())
        (expected,) = torch.autograd.grad(weight * alone, cost)
        assert_close("gradient", gradient[i], expected)
        assert not gradient[i, given.x_lengths[i] :].any()
        assert not gradient[i, :, given.y_lengths[i] :].any()


@pytest.mark.parametrize("case", CORE, ids=str)
def test_opcheck_of_pairs(case: Case) -> None:
    given = costs(4, 4)
    torch.library.opcheck(case.op(), case.op_arguments(given.cost[:, 0].requires_grad_(), *given[1:]))


@pytest.mark.parametrize(("b1", "b2"), [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_empty_batches_are_no_error(case: Case, b1: int, b2: int) -> None:
    found = answer(case.kernel, Costs(torch.zeros(b1, b2, 6, 5), None, None))
    assert found.value.shape == (b1, b2)
    assert found.gradient.shape == (b1, b2, 6, 5)


GIVEN = costs()
BAD = {
    "rank 3": ({"cost": GIVEN.cost[0]}, ValueError, ["cost", "(B1, B2, N, M)", "(4, 6, 5)", "cost[:, None]"]),
    "rank 5": ({"cost": GIVEN.cost[None]}, ValueError, ["cost", "(B1, B2, N, M)", "(1, 3, 4, 6, 5)"]),
    "integers": ({"cost": GIVEN.cost.long()}, TypeError, ["cost", "float32", "cost.float()"]),
    "N = 0": ({"cost": GIVEN.cost[:, :, :0], "x_lengths": None}, ValueError, ["at least one step", "(3, 4, 0, 5)"]),
    "an array": ({"cost": GIVEN.cost.numpy()}, TypeError, ["cost", "torch.Tensor", "ndarray", "as_tensor"]),
    "lengths of x": ({"x_lengths": GIVEN.y_lengths}, ValueError, ["x_lengths", "(3,)", "(4,)"]),
    "lengths of y": ({"y_lengths": GIVEN.x_lengths}, ValueError, ["y_lengths", "(4,)", "(3,)"]),
    "float lengths": ({"x_lengths": GIVEN.x_lengths.float()}, TypeError, ["x_lengths", "int64", "x_lengths.long()"]),
    "too long": ({"y_lengths": GIVEN.y_lengths + 1}, ValueError, ["y_lengths", "between 1 and 5", "got 6 at index 0"]),
    "zero": ({"x_lengths": 0 * GIVEN.x_lengths}, ValueError, ["x_lengths", "between 1 and 6", "got 0 at index 0"]),
    "another device": ({"cost": GIVEN.cost.to("meta")}, RuntimeError, ["one device", "meta", "cpu"]),
}


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
@pytest.mark.parametrize("case", CORE, ids=str)
@pytest.mark.parametrize(("change", "exception", "fragments"), BAD.values(), ids=list(BAD))
def test_bad_input(
    change: dict[str, Any], exception: type[Exception], fragments: list[str], case: Case, mode: type
) -> None:
    given = {**GIVEN._asdict(), **change}
    with mode(), pytest.raises(exception) as caught:
        case.kernel(given["cost"], given["x_lengths"], given["y_lengths"])
    for fragment in (f"{case.parent}_from_cost", "expected", "got", *fragments):
        assert fragment in str(caught.value)
