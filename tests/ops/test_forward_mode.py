"""Forward-mode differentiation is refused, however it is asked for: a derivative is never silently zero."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, grad_and_value, hessian, jacfwd, jvp, linearize, vmap

import scav_kernels

from .cases import CORE, PUBLIC, Case
from .inputs import Sequences, Shape, sequences
from .test_from_cost import CORE as FROM_COST
from .test_from_cost import costs
from .test_registration import op, schema_arguments

# Torch itself uses torch.jit for the first tangent of a process.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

GIVEN = sequences(Shape(b1=3, b2=3))
COST = costs().cost
Function = Callable[[Tensor], Tensor]


@contextmanager
def refused(*words: str) -> Iterator[None]:
    with pytest.raises(RuntimeError) as caught:
        yield
    for word in ("forward-mode", "reverse mode", "torch.func.vjp", *words):
        assert word in str(caught.value)


def dual(function: Function, value: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return function(forward_ad.make_dual(value, torch.ones_like(value)))


def dual_without_grad(function: Function, value: Tensor) -> Tensor:
    with torch.no_grad():
        return dual(function, value)


WAYS: dict[str, Callable[[Function, Tensor], Any]] = {
    "jvp": lambda function, value: jvp(function, (value,), (value,)),
    "jacfwd": lambda function, value: jacfwd(function)(value),
    "linearize": lambda function, value: linearize(function, value),
    "hessian": lambda function, value: hessian(lambda v: function(v).sum())(value),
    "jvp of grad": lambda function, value: jvp(grad(lambda v: function(v).sum()), (value,), (value,)),
    "jvp of a value beside a gradient": lambda function, value: jvp(
        lambda v: grad_and_value(lambda w: function(w).sum())(v)[1], (value,), (value,)
    ),
    "vmap of jvp": lambda function, value: vmap(lambda v: jvp(function, (v,), (v,)))(torch.stack([value, value])),
    "jvp of vmap": lambda function, value: jvp(vmap(function), (value[None],), (value[None],)),
    "a dual tensor": dual,
    "a dual tensor that requires a gradient": lambda function, value: dual(function, value.clone().requires_grad_()),
    "a dual tensor without grad": dual_without_grad,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_of_sequences(case: Case, paired: bool, way: Callable[[Function, Tensor], Any]) -> None:
    parent = case.metric.removesuffix("_divergence")
    with refused(f"scav::{parent}"):
        way(lambda x: case.kernel(x, *GIVEN[1:], paired=paired), GIVEN.x)
    with refused(f"scav::{parent}"):
        way(lambda y: case.kernel(GIVEN.x, y, *GIVEN[2:], paired=paired), GIVEN.y)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("case", FROM_COST, ids=str)
def test_of_costs(case: Any, way: Callable[[Function, Tensor], Any]) -> None:
    with refused(f"scav::{case.parent}_from_cost"):
        way(case.kernel, COST)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_by_name_and_of_modules(way: Callable[[Function, Tensor], Any]) -> None:
    for function in (
        lambda x: scav_kernels.cdist(x, GIVEN.y),
        lambda x: scav_kernels.pairwise_distance(x, GIVEN.y, metric="dtw"),
        lambda x: scav_kernels.nn.SequenceDistance("soft_dtw")(x, GIVEN.y),
        lambda x: scav_kernels.nn.SoftDTWLoss(debias=True)(x, GIVEN.y),
        lambda x: scav_kernels.nn.SinkhornLoss()(x, GIVEN.y),
    ):
        with refused():
            way(function, GIVEN.x)


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("case", CORE, ids=str)
def test_of_the_op_itself(case: Case, way: Callable[[Function, Tensor], Any]) -> None:
    def distance(x: Tensor) -> Tensor:
        result = op(case)(*schema_arguments(case, Sequences(x, *GIVEN[1:]), False))
        return result[0] if isinstance(result, tuple) else result

    with refused(f"scav::{case.metric}"):
        way(distance, GIVEN.x)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_of_the_backward_pass(case: Case) -> None:
    """The derivative of a gradient in the gradient that comes from above."""
    given = GIVEN.leaves()
    value = case.kernel(*given)
    with forward_ad.dual_level():
        outer = forward_ad.make_dual(torch.ones_like(value), torch.ones_like(value))
        with refused(f"scav::{case.metric}_backward"):
            torch.autograd.grad(value, given.x, outer)


@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_constants_may_be_used_within_it(case: Case) -> None:
    """Distances are numbers if only other tensors have tangents."""
    scale = torch.tensor(2.0)
    value = case.kernel(*GIVEN).sum()
    found, tangent = jvp(lambda factor: factor * case.kernel(*GIVEN).sum(), (scale,), (torch.ones(()),))
    torch.testing.assert_close(found, 2 * value)
    torch.testing.assert_close(tangent, value)
