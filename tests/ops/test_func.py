"""torch.func: transforms of the distances equal loops over plain calls, and forward mode is refused."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, jacrev, vjp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import scav_kernels

from .cases import CASES, CORE, PUBLIC, Case
from .inputs import Sequences, Shape, sequences
from .test_from_cost import CORE as FROM_COST
from .test_from_cost import Case as FromCost
from .test_from_cost import costs

ENTRIES = 3
# Which of x, y, x_lengths and y_lengths have a mapped dimension: every choice but none.
MAPPED = [chosen for chosen in product((True, False), repeat=4) if any(chosen)]
# An entry's (B1, B2): one pair, one against many, and more than are put into one call.
BATCHES = [(1, 1), (1, 3), (3, 2), (3, 4)]


def mapped_sequences(chosen: tuple[bool, ...], b1: int, b2: int, dtype: torch.dtype = torch.float64) -> Sequences:
    """Sequences of which the chosen tensors have a dimension of entries, first."""
    given = sequences(Shape(b1=ENTRIES * b1, b2=ENTRIES * b2, n=5, m=4, d=3), dtype)
    sizes = (b1, b2, b1, b2)
    entries = (tensor.unflatten(0, (ENTRIES, size)) for tensor, size in zip(given, sizes, strict=True))
    return Sequences(*(tensor if own else tensor[0] for tensor, own in zip(entries, chosen, strict=True)))


def in_dims(chosen: tuple[bool, ...]) -> tuple[int | None, ...]:
    return tuple(0 if own else None for own in chosen)


def loop(function: Callable[..., Any], chosen: tuple[bool, ...], given: tuple[Tensor, ...]) -> Any:
    """Return `vmap(function, in_dims(chosen))` by its definition."""
    entries = [
        function(*(tensor[i] if own else tensor for tensor, own in zip(given, chosen, strict=True)))
        for i in range(ENTRIES)
    ]
    if isinstance(entries[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*entries, strict=True))
    return torch.stack(entries)


def distinct(value: Tensor) -> Tensor:
    """Weights that all differ; random numbers cannot be drawn under vmap."""
    return torch.arange(1, value.numel() + 1, dtype=value.dtype).cos().view(value.shape)


def weighted(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scalar to which every pair contributes differently."""

    def total(*given: Tensor | None) -> Tensor:
        value = function(*given)
        return (value * distinct(value)).sum()

    return total


class Calls(TorchDispatchMode):
    """The calls of this package's ops, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op.namespace == "scav":
            self.names.append(op._opname)
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("chosen", MAPPED, ids=lambda chosen: "".join("m" if own else "-" for own in chosen))
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_vmap_and_gradients_of_each_entry(case: Case, paired: bool, chosen: tuple[bool, ...]) -> None:
    given = mapped_sequences(chosen, 2, 2)

    def distance(*entry: Tensor) -> Tensor:
        return case.kernel(*entry, paired=paired)

    torch.testing.assert_close(vmap(distance, in_dims(chosen))(*given), loop(distance, chosen, given))
    for argnums in ((0,), (1,), (0, 1)):
        gradients = grad(weighted(distance), argnums)
        torch.testing.assert_close(vmap(gradients, in_dims(chosen))(*given), loop(gradients, chosen, given))


@pytest.mark.parametrize(("b1", "b2"), BATCHES)
@pytest.mark.parametrize("chosen", [(True,) * 4, (True, False, True, False), (False, True, False, True)], ids=str)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_vmap_of_batches_of_every_size(case: Case, chosen: tuple[bool, ...], b1: int, b2: int) -> None:
    given = mapped_sequences(chosen, b1, b2)
    torch.testing.assert_close(vmap(case.kernel, in_dims(chosen))(*given), loop(case.kernel, chosen, given))
    gradients = grad(weighted(case.kernel), (0, 1))
    torch.testing.assert_close(vmap(gradients, in_dims(chosen))(*given), loop(gradients, chosen, given))


@pytest.mark.parametrize(("b1", "b2"), [(0, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize("case", PUBLIC, ids=str)
def test_vmap_of_empty_batches(case: Case, b1: int, b2: int) -> None:
    x, y = torch.zeros(ENTRIES, b1, 5, 3), torch.zeros(ENTRIES, b2, 4, 3)
    for paired in {False, b1 == b2}:

        def distance(x: Tensor, y: Tensor, paired: bool = paired) -> Tensor:
            return case.kernel(x, y, paired=paired)

        assert vmap(distance)(x, y).shape == ((ENTRIES, b1) if paired else (ENTRIES, b1, b2))
        found = vmap(grad(lambda x, y: distance(x, y).sum(), (0, 1)))(x, y)
        assert [gradient.shape for gradient in found] == [x.shape, y.shape]


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_grad_vjp_and_jacrev(case: Case, paired: bool) -> None:
    given = sequences(Shape(b1=3, b2=3), torch.float64)
    leaves = given.leaves()
    lengths = given.x_lengths, given.y_lengths

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return case.kernel(x, y, *lengths, paired=paired)

    value = distance(leaves.x, leaves.y)
    rows = [torch.autograd.grad(number, (leaves.x, leaves.y), retain_graph=True) for number in value.flatten()]
    expected = tuple(torch.stack(parts).unflatten(0, value.shape) for parts in zip(*rows, strict=True))
    torch.testing.assert_close(jacrev(distance, (0, 1))(given.x, given.y), expected)
    torch.testing.assert_close(jacrev(distance)(given.x, given.y), expected[0])
    torch.testing.assert_close(jacrev(distance, 1, chunk_size=2)(given.x, given.y), expected[1])

    outer = distinct(value)
    total = tuple(torch.einsum("p,p...->...", outer.flatten(), part.flatten(0, value.dim() - 1)) for part in expected)
    found, pullback = vjp(distance, given.x, given.y)
    assert torch.equal(found, value.detach())
    torch.testing.assert_close(pullback(outer), total)
    torch.testing.assert_close(grad(weighted(distance), (0, 1))(given.x, given.y), total)
    batched = torch.autograd.grad(value, leaves.x, torch.stack([outer, 2 * outer]), is_grads_batched=True)[0]
    torch.testing.assert_close(batched, torch.stack([total[0], 2 * total[0]]))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_backward_through_vmap(case: Case) -> None:
    everything = (True,) * 4
    given = mapped_sequences(everything, 1, 1)
    mapped, looped = given.leaves(), given.leaves()
    value = vmap(case.kernel)(*mapped)
    (value * distinct(value)).sum().backward()
    (loop(case.kernel, everything, looped) * distinct(value)).sum().backward()
    torch.testing.assert_close(mapped.x.grad, looped.x.grad)
    torch.testing.assert_close(mapped.y.grad, looped.y.grad)
    found = grad(weighted(lambda x: vmap(case.kernel)(x, *given[1:])))(given.x)
    torch.testing.assert_close(found, looped.x.grad)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nested_vmap_is_all_pairs(case: Case) -> None:
    given = sequences(Shape(b1=4, b2=3), torch.float64)

    def pair(x: Tensor, y: Tensor, n: Tensor, m: Tensor) -> Tensor:
        return case.kernel(x[None], y[None], n[None], m[None])[0, 0]

    every_pair = vmap(vmap(pair, (None, 0, None, 0)), (0, None, 0, None))
    torch.testing.assert_close(every_pair(*given), case.kernel(*given))
    gradient = vmap(vmap(grad(pair), (None, 0, None, 0)), (0, None, 0, None))(*given)
    torch.testing.assert_close(gradient.sum(1), grad(lambda x: case.kernel(x, *given[1:]).sum())(given.x))


@pytest.mark.parametrize("case", CORE, ids=str)
def test_other_dimensions_than_the_first(case: Case) -> None:
    given = mapped_sequences((True, True, False, True), 2, 2)
    expected = loop(case.kernel, (True, True, False, True), given)
    turned = Sequences(given.x.movedim(0, 2), given.y.movedim(0, -1), given.x_lengths, given.y_lengths.T)
    found = vmap(case.kernel, in_dims=(2, -1, None, 1), out_dims=1)(*turned)
    torch.testing.assert_close(found, expected.movedim(0, 1))
    found = vmap(lambda x, y: case.kernel(x, y), in_dims=(2, -1), chunk_size=2)(turned.x, turned.y)
    torch.testing.assert_close(found, loop(case.kernel, (True, True), given[:2]))


@pytest.mark.parametrize("chosen", [(True, True), (True, False), (False, True)], ids=["both", "x", "y"])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_pairs_of_all_entries_are_one_call(case: Case, chosen: tuple[bool, ...]) -> None:
    given = mapped_sequences((*chosen, False, False), 1, 1)[:2]
    with Calls() as calls:
        vmap(case.kernel, in_dims(chosen))(*given)
    assert calls.names == [case.metric]
    with Calls() as calls:
        vmap(grad(weighted(case.kernel)), in_dims(chosen))(*given)
    assert calls.names == [case.metric, f"{case.metric}_backward"]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_half_precision(case: Case, half: torch.dtype) -> None:
    everything = (True,) * 4
    given = mapped_sequences(everything, 1, 2, half)
    gradients = grad_and_value(weighted(case.kernel))
    found, value = vmap(gradients)(*given)
    expected, value_of_loop = loop(gradients, everything, given)
    assert (found.dtype, value.dtype) == (half, torch.float32)
    torch.testing.assert_close(value, value_of_loop)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", FROM_COST, ids=str)
@pytest.mark.parametrize("chosen", [c for c in product((True, False), repeat=3) if any(c)], ids=str)
@pytest.mark.parametrize("one_pair", [False, True], ids=["batch", "one_pair"])
def test_distances_of_given_costs(case: FromCost, chosen: tuple[bool, ...], one_pair: bool) -> None:
    b1, b2 = (1, 1) if one_pair else (2, 3)
    entries = [costs(b1, b2, 5, 4, torch.float64, seed) for seed in range(ENTRIES)]
    if one_pair:
        entries = [entry._replace(cost=entry.cost[0, 0]) for entry in entries]
    stacked = [torch.stack(parts) for parts in zip(*entries, strict=True)]
    given = tuple(tensor if own else tensor[0] for tensor, own in zip(stacked, chosen, strict=True))
    torch.testing.assert_close(vmap(case.kernel, in_dims(chosen))(*given), loop(case.kernel, chosen, given))
    gradient = grad(weighted(case.kernel))
    torch.testing.assert_close(vmap(gradient, in_dims(chosen))(*given), loop(gradient, chosen, given))
    jacobian, value = jacrev(case.kernel)(*entries[0]), case.kernel(*entries[0])
    total = torch.tensordot(distinct(value), jacobian, value.dim())
    torch.testing.assert_close(total, gradient(*entries[0]))


@pytest.mark.parametrize("case", CORE, ids=str)
def test_errors_are_in_terms_of_one_entry(case: Case) -> None:
    given = mapped_sequences((True,) * 4, 2, 2)
    for bad, message in (
        (given._replace(x=given.x[:, 0]), r"expected x .*got shape \(5, 3\)"),
        (given._replace(y=given.y[:, :, :, :2]), "feature size D"),
        (given._replace(x_lengths=given.x_lengths[:, :1]), r"x_lengths .*\(2,\).*\(1,\)"),
        (given._replace(y_lengths=given.y_lengths + 4), r"y_lengths between 1 and 4 .*at index [01]$"),
    ):
        with pytest.raises(ValueError, match=message):
            vmap(case.kernel)(*bad)


def test_gradients_of_each_sample_of_a_model() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 3, dtype=torch.float64)
    loss = scav_kernels.nn.SoftDTWLoss(0.1)
    given = mapped_sequences((True,) * 4, 1, 1)

    def of_sample(parameters: dict[str, Tensor], x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
        return loss(functional_call(layer, parameters, (x,)), functional_call(layer, parameters, (y,)), *lengths)

    parameters = dict(layer.named_parameters())
    found = vmap(grad(of_sample), (None, 0, 0, 0, 0))(parameters, *given)
    for i in range(ENTRIES):
        layer.zero_grad()
        loss(layer(given.x[i]), layer(given.y[i]), given.x_lengths[i], given.y_lengths[i]).backward()
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(found[name][i], parameter.grad)
