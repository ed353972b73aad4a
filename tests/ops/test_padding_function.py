"""`pad` makes a padded batch and its lengths of the containers that people hold sequences in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_sequence

import scav_kernels
from scav_kernels import pad

LENGTHS = [3, 5, 1, 4]
# torch says of nested tensors that they may change.
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")


def parts(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, generator=generator).to(dtype) for n in LENGTHS]


def packed_by_length(sequences: list[Tensor]) -> PackedSequence:
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    return pack_sequence([sequences[i] for i in order])


def padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    x = pad_sequence(sequences, batch_first=True)
    return x, torch.arange(x.shape[1]) < torch.tensor([len(s) for s in sequences])[:, None]


CONTAINERS: dict[str, Callable[[list[Tensor]], tuple[Any, ...]]] = {
    "list": lambda s: (s,),
    "tuple": lambda s: (tuple(s),),
    "packed": lambda s: (pack_sequence(s, enforce_sorted=False),),
    "packed, steps first": lambda s: (
        pack_padded_sequence(pad_sequence(s), [len(part) for part in s], enforce_sorted=False),
    ),
    "jagged": lambda s: (torch.nested.as_nested_tensor(s, layout=torch.jagged),),
    "nested": lambda s: (torch.nested.as_nested_tensor(s, layout=torch.strided),),
    "tensor and mask": padded,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=list(CONTAINERS))
def test_every_container(contain: Callable[[list[Tensor]], tuple[Any, ...]], dtype: torch.dtype) -> None:
    x, lengths = pad(*contain(parts(dtype)))
    assert torch.equal(x, pad_sequence(parts(dtype), batch_first=True))
    assert lengths.dtype == torch.int64
    assert lengths.tolist() == LENGTHS


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=list(CONTAINERS))
def test_gradients_flow_to_the_sequences(contain: Callable[[list[Tensor]], tuple[Any, ...]]) -> None:
    leaves = [part.requires_grad_() for part in parts()]
    x, lengths = pad(*contain(leaves))
    scav_kernels.dtw(x, torch.ones(1, 4, 2), lengths).sum().backward()
    for leaf in leaves:
        alone = leaf.detach().requires_grad_()
        scav_kernels.dtw(alone[None], torch.ones(1, 4, 2)).sum().backward()
        torch.testing.assert_close(leaf.grad, alone.grad)


def test_arrays() -> None:
    arrays = [part.numpy() for part in parts(torch.float64)]
    arrays[1] = arrays[1][::-1]
    arrays[2].flags.writeable = False
    x, lengths = pad(arrays)
    assert x.dtype == torch.float64
    assert lengths.tolist() == LENGTHS
    assert all(np.array_equal(row[:n], array) for row, n, array in zip(x.numpy(), LENGTHS, arrays, strict=True))


def test_a_sorted_packed_sequence_keeps_its_order() -> None:
    _, lengths = pad(packed_by_length(parts()))
    assert lengths.tolist() == sorted(LENGTHS, reverse=True)


def test_a_padded_tensor_is_returned_as_it_is() -> None:
    given, mask = padded(parts())
    assert pad(given, mask)[0] is given
    x, lengths = pad(given)
    assert x is given
    assert lengths.tolist() == [5] * 4
    none, lengths = pad(torch.zeros(0, 5, 2), torch.zeros(0, 5, dtype=torch.bool))
    assert none.shape == (0, 5, 2)
    assert lengths.shape == (0,)


def test_a_jagged_tensor_with_gaps() -> None:
    starts, lengths = torch.tensor([1, 0, 2, 3]), torch.tensor([3, 5, 1, 2])
    jagged = torch.nested.narrow(torch.randn(4, 6, 2), 1, starts, lengths, layout=torch.jagged)
    x, lengths = pad(jagged)
    assert lengths.tolist() == [3, 5, 1, 2]
    assert torch.equal(x[3, :2], jagged[3])


X, MASK = padded(parts())


def changed(row: int, step: int, value: bool) -> Tensor:
    mask = MASK.clone()
    mask[row, step] = value
    return mask


@pytest.mark.parametrize(
    ("arguments", "exception", "fragments"),
    [
        (([],), ValueError, ["at least one sequence", "none"]),
        ((torch.ones(2, 0, 3),), ValueError, ["at least one step", "a padded tensor of none", "leave them out"]),
        (([torch.ones(2, 3), torch.ones(0, 3)],), ValueError, ["at least one step", "none at index 1", "leave it out"]),
        (([torch.ones(2, 3), torch.ones(2)],), ValueError, ["(n, D)", "(2,) at index 1", "[:, None]"]),
        (([torch.ones(2, 3), torch.ones(2, 4)],), ValueError, ["3 at index 0", "4 at index 1"]),
        (([torch.ones(2, 3), torch.ones(2, 3).double()],), TypeError, ["float32 at index 0", "float64 at index 1"]),
        (([torch.ones(2, 3), torch.ones(2, 3, device="meta")],), RuntimeError, ["cpu at index 0", "meta at index 1"]),
        (([torch.ones(2, 3), [1.0]],), TypeError, ["list at index 1", "torch.as_tensor"]),
        ((iter([torch.ones(2, 3)]),), TypeError, ["list_iterator", "pad(list(sequences))"]),
        ((np.ones((2, 3, 4)),), TypeError, ["ndarray", "pad(list(sequences))"]),
        ((list(X), MASK), TypeError, ["no mask with a list"]),
        ((pack_sequence(list(X)), MASK), TypeError, ["no mask with a PackedSequence"]),
        ((pack_sequence([torch.ones(3), torch.ones(2)]),), ValueError, ["steps (D,)", "shape ()"]),
        ((X[0],), ValueError, ["(B, N, D)", "(5, 2)", "x[None]"]),
        ((X, MASK.long()), TypeError, ["bool tensor", "torch.int64", "mask.bool()"]),
        ((X, LENGTHS), TypeError, ["bool tensor", "list"]),
        ((X, MASK[:, :3]), ValueError, ["(4, 5)", "(4, 3)"]),
        ((X, MASK.to("meta")), RuntimeError, ["cpu", "meta", "mask.to(x.device)"]),
        ((X, ~MASK), ValueError, ["row 0", "after step 0", "~mask"]),
        ((X, changed(2, 3, True)), ValueError, ["row 2", "after step 1", "pad([steps[valid]"]),
        ((X, changed(3, 1, False)), ValueError, ["row 3", "after step 1"]),
        ((X, changed(2, 0, False)), ValueError, ["at least one valid step", "none at index 2"]),
    ],
)
def test_bad_input(arguments: tuple[Any, ...], exception: type[Exception], fragments: list[str]) -> None:
    with pytest.raises(exception) as caught:
        pad(*arguments)
    for fragment in ("pad: expected", *fragments):
        assert fragment in str(caught.value)


def test_what_the_error_says_works() -> None:
    mask = changed(2, 3, True)
    x, lengths = pad([steps[valid] for steps, valid in zip(X, mask, strict=True)])
    assert lengths.tolist() == [3, 5, 2, 4]
    assert torch.equal(x[2, 1], X[2, 3])
