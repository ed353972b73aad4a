"""Padded batches of sequences of different lengths."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, pad_sequence


@overload
def pad(sequences: Sequence[Tensor | np.ndarray[Any, Any]] | PackedSequence) -> tuple[Tensor, Tensor]: ...


@overload
def pad(sequences: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]: ...


def pad(
    sequences: Sequence[Tensor | np.ndarray[Any, Any]] | PackedSequence | Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sequences of different lengths as the ops take them: a padded batch x (B, N, D) and its lengths (B,).

    Gradients flow through x to the sequences.

    Args:
        sequences: one of

            - a list of B tensors or numpy arrays (n, D), n ≥ 1, of one D, dtype and device;
            - a ``torch.nn.utils.rnn.PackedSequence`` of steps (D,), which comes back in the order before it was sorted;
            - a nested tensor, e.g. one of layout ``torch.jagged`` with components (n, D);
            - a padded tensor (B, N, D), which is returned as it is.
        mask: for a padded tensor, bool (B, N), True for valid steps, which come first in their row. A mask that is True
            for padding, like the ``key_padding_mask`` of PyTorch's attention, is passed as ``~mask``. None: all steps
            are valid.

    Returns:
        x (B, N, D) and lengths (B,), int64, on the device of x. Unless a padded tensor was passed, N is the largest
        length, and zeros follow each sequence.

    Raises:
        ValueError, TypeError, RuntimeError: for an empty sequence, for sequences of two sizes D, dtypes or devices, and
            for a mask whose valid steps do not come first. The error says which sequence it is.
    """
    if isinstance(sequences, PackedSequence):
        _refuse_mask(mask, "a PackedSequence")
        return _unpacked(sequences)
    if isinstance(sequences, Tensor) and not sequences.is_nested:
        return _masked(sequences, mask)
    _refuse_mask(mask, f"a {'nested tensor' if isinstance(sequences, Tensor) else type(sequences).__name__}")
    if isinstance(sequences, Tensor):
        return _stacked(list(sequences.unbind()))
    if not isinstance(sequences, (list, tuple)):
        raise TypeError(
            "pad: expected a list of sequences (n, D), a PackedSequence, a nested tensor or a padded tensor (B, N, D), "
            f"got {type(sequences).__name__}; pass a list, e.g. pad(list(sequences))"
        )
    return _stacked([_as_tensor(index, sequence) for index, sequence in enumerate(sequences)])


def _refuse_mask(mask: Tensor | None, kind: str) -> None:
    if mask is not None:
        raise TypeError(f"pad: expected no mask with {kind}, which has lengths of its own; leave the mask out")


def _as_tensor(index: int, sequence: object) -> Tensor:
    if isinstance(sequence, Tensor):
        return sequence
    if isinstance(sequence, np.ndarray):
        # A copy, because torch takes neither read-only memory nor negative strides.
        return torch.from_numpy(sequence.copy())
    raise TypeError(
        f"pad: expected sequences that are tensors or numpy arrays (n, D), got {type(sequence).__name__} at index "
        f"{index}; convert it, e.g. with torch.as_tensor"
    )


def _stacked(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    if not sequences:
        raise ValueError("pad: expected at least one sequence, got none; a batch of none is torch.empty(0, 1, D)")
    first = sequences[0]
    for index, sequence in enumerate(sequences):
        if sequence.dim() != 2:
            raise ValueError(
                f"pad: expected sequences of shape (n, D), got shape {tuple(sequence.shape)} at index {index}; "
                "give steps of one number a feature axis with sequence[:, None]"
            )
        if len(sequence) == 0:
            raise ValueError(
                f"pad: expected sequences of at least one step, got none at index {index}; leave it out of the batch"
            )
        if sequence.shape[1] != first.shape[1]:
            raise ValueError(
                f"pad: expected sequences of one feature size D, got {first.shape[1]} at index 0 and "
                f"{sequence.shape[1]} at index {index}"
            )
        if sequence.dtype != first.dtype:
            raise TypeError(
                f"pad: expected sequences of one dtype, got {first.dtype} at index 0 and {sequence.dtype} at index "
                f"{index}; convert them, e.g. sequence.to({first.dtype})"
            )
        if sequence.device != first.device:
            raise RuntimeError(
                f"pad: expected sequences on one device, got {first.device} at index 0 and {sequence.device} at index "
                f"{index}; move them, e.g. sequence.to('{first.device}')"
            )
    lengths = torch.tensor([len(sequence) for sequence in sequences], device=first.device)
    return pad_sequence(sequences, batch_first=True), lengths


def _unpacked(packed: PackedSequence) -> tuple[Tensor, Tensor]:
    if packed.data.dim() != 2:
        raise ValueError(
            f"pad: expected a PackedSequence of steps (D,), got steps of shape {tuple(packed.data.shape[1:])}; "
            "flatten the features of a step before packing"
        )
    x, lengths = pad_packed_sequence(packed, batch_first=True)
    return x, lengths.to(x.device)


def _masked(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    if x.dim() != 3:
        raise ValueError(
            f"pad: expected a padded tensor (B, N, D), got shape {tuple(x.shape)}; "
            "for one sequence, add the batch axis with x[None]"
        )
    if x.shape[1] == 0 and len(x):
        raise ValueError("pad: expected sequences of at least one step, got a padded tensor of none; leave them out")
    if mask is None:
        return x, torch.full((len(x),), x.shape[1], device=x.device)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"pad: expected mask to be a bool tensor (B, N), got {got}; convert it, e.g. with mask.bool()")
    if mask.shape != x.shape[:2]:
        raise ValueError(
            f"pad: expected mask of shape {tuple(x.shape[:2])}, the first two axes of x, got {tuple(mask.shape)}"
        )
    if mask.device != x.device:
        raise RuntimeError(
            f"pad: expected x and mask on one device, got {x.device} and {mask.device}; move it, e.g. mask.to(x.device)"
        )
    lengths = mask.sum(1)
    broken = (mask != (torch.arange(x.shape[1], device=x.device) < lengths[:, None])).any(1).nonzero().flatten()
    if len(broken):
        row = int(broken[0])
        raise ValueError(
            f"pad: expected a mask whose valid steps come first, got row {row} with a valid step after step "
            f"{int(mask[row].byte().argmin())}, which is not; pass ~mask if True marks padding, or "
            "pad([steps[valid] for steps, valid in zip(x, mask)]) to drop the steps that are not valid"
        )
    if len(empty := (lengths == 0).nonzero().flatten()):
        raise ValueError(
            f"pad: expected sequences of at least one valid step, got none at index {int(empty[0])}; "
            "leave it out of the batch"
        )
    return x, lengths
