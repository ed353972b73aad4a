"""Several processes that train as one, started by torchrun. In a single process, everything here does nothing.

Each process has a share of every batch and back-propagates its own losses. Training minimizes the mean of these losses
over the processes, and `average_gradients` gives its exact gradient: a loss that reads other processes' clips through
`gather` sends gradients back to where they were encoded, and a loss that all processes compute alike counts once. So a
loss over a whole batch needs no factor, and neither does the mean of equal shares.
"""

# Lightning Fabric starts the processes, chooses devices and precision, and waits at barriers (training/launch.py). The
# exchange is written here: Fabric's all_gather needs shares of one size, and its wrapper averages gradients after each
# backward of one forward, but objectives call the encoders several times a step, chunk by chunk, and accumulate.

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
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0; rank 0 writes files."""
    return dist.get_rank() if world_size() > 1 else 0


def share(batch: Sequence[T]) -> Sequence[T]:
    """Return this process's part of a batch. By rank, the parts make the whole; sizes differ by one at most."""
    size, own, all_of_them = len(batch), rank(), world_size()
    return batch[size * own // all_of_them : size * (own + 1) // all_of_them]


def gather(clips: Sequences) -> Sequences:
    """Gather all processes' clips (b, T, D), by rank, into (B, T, D), T the longest, with gradient."""
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
    """Gather all processes' rows (b, ...), by rank, into (B, ...), with gradient."""
    if world_size() == 1:
        return rows
    counts = [count for (count,) in _sizes(rows, 1)]
    padding = [0, 0] * (rows.ndim - 1) + [0, max(counts) - len(rows)]
    return _join(collective.all_gather(F.pad(rows, padding)), counts)


def _sizes(tensor: Tensor, dimensions: int) -> list[list[int]]:
    """Return the first sizes of every process's tensor."""
    own = torch.tensor(tensor.shape[:dimensions], device=tensor.device)
    sizes = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(sizes, own)
    return torch.stack(sizes).tolist()


def _join(padded: Iterable[Tensor], counts: Sequence[int]) -> Tensor:
    return torch.cat([part[:count] for part, count in zip(padded, counts, strict=True)])


def mean(values: Tensor) -> Tensor:
    """Return the mean of all processes' values, without gradient."""
    if world_size() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world_size()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their mean over the processes. All must have gradients of the same parameters."""
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
    """Give every process the parameters and buffers of the first."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def from_first(value: T) -> T:
    """Return the first process's value, in all of them; any object that pickles."""
    if world_size() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def entered_by_first(context: AbstractContextManager[Any], *errors: type[Exception]) -> Iterator[None]:
    """Enter a context in the first process alone. If that raises one of `errors`, raise it in all processes."""
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
    """Return the values of all processes, in all of them; any object that pickles."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values
