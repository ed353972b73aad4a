"""Several processes that train as one, started by torchrun; in a single process everything here does nothing.

Each process has a share of every batch and back-propagates losses of its own. What is minimized is the mean of these
losses over the processes, and `average_gradients` gives its exact gradient: a loss that reads other processes' clips
through `gather` sends gradients back to where they were encoded, and a loss that all processes compute alike counts
once. So a loss over a whole batch needs no factor, and neither does the mean of equal shares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as collective
import torch.nn.functional as F
from torch import Tensor, nn

from scav_model.distances import Sequences

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0, the one that writes files."""
    return dist.get_rank() if world_size() > 1 else 0


def share(batch: Sequence[T]) -> Sequence[T]:
    """This process's part of a batch; the parts in the order of ranks make up the whole, and differ by one at most."""
    size, own, all_of_them = len(batch), rank(), world_size()
    return batch[size * own // all_of_them : size * (own + 1) // all_of_them]


def gather(clips: Sequences) -> Sequences:
    """All processes' clips (b, T, D), in the order of ranks, as (B, T, D), T the longest; with gradient."""
    if world_size() == 1:
        return clips
    sizes = _sizes(clips.steps, 2)
    most, longest = (max(size) for size in zip(*sizes, strict=True))
    steps, lengths = clips
    steps = F.pad(steps, (0, 0, 0, longest - steps.shape[1], 0, most - len(steps)))
    lengths = F.pad(lengths, (0, most - len(lengths)))
    counts = [count for count, _ in sizes]
    return Sequences(_join(collective.all_gather(steps), counts), _join(collective.all_gather(lengths), counts))


def gather_rows(rows: Tensor) -> Tensor:
    """All processes' rows (b, ...), in the order of ranks: (B, ...), with gradient."""
    if world_size() == 1:
        return rows
    counts = [count for (count,) in _sizes(rows, 1)]
    padding = [0, 0] * (rows.ndim - 1) + [0, max(counts) - len(rows)]
    return _join(collective.all_gather(F.pad(rows, padding)), counts)


def _sizes(tensor: Tensor, dimensions: int) -> list[list[int]]:
    """The first sizes of every process's tensor."""
    own = torch.tensor(tensor.shape[:dimensions], device=tensor.device)
    sizes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(sizes, own)
    return torch.stack(sizes).tolist()


def _join(padded: Iterable[Tensor], counts: Sequence[int]) -> Tensor:
    return torch.cat([part[:count] for part, count in zip(padded, counts, strict=True)])


def mean(values: Tensor) -> Tensor:
    """The mean of every process's values, without gradient."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces gradients by their mean over the processes, of which each must have those of the same parameters."""
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= world_size()
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def broadcast(module: nn.Module) -> None:
    """Gives every process the first one's parameters and buffers."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def from_first(value: T) -> T:
    """The first process's value, in all of them; any object that pickles."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def entered_by_first(context: AbstractContextManager[Any], *errors: type[Exception]) -> Iterator[None]:
    """Enters a context in the first process alone; where that raises one of `errors`, it is raised in all of them."""
    with ExitStack() as stack:
        refusal: Exception | None = None
        if rank() == 0:
            try:
                stack.enter_context(context)
            except errors as error:
                refusal = error
        if refusal := from_first(refusal):
            raise refusal
        yield


def from_all(value: T) -> list[T]:
    """Every process's value, in all of them; any object that pickles."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
