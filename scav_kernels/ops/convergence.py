"""Convergence of Sinkhorn's iterations: the report that a caller asks for, and the warning that others get."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


class Convergence(NamedTuple):
    """Convergence of the iterations of each pair, as ``sinkhorn(..., return_convergence=True)`` returns it.

    Both have the shape of the distances. A pair that holds inf or NaN has run no iteration, and its error is NaN.
    """

    iterations: Tensor
    """int64: iterations completed. Those of a pair below ``tolerance`` stopped early."""
    marginal_error: Tensor
    """Σ_s |Σ_t P[s, t] − a| of the potentials returned, as a share of the mass 1, in the dtype of the distances."""


@dataclass
class _Unconverged:
    """Pairs of some calls with the same options, and how many of them stopped above `tolerance`."""

    pairs: int = 0
    above: int = 0
    largest: float = 0.0
    max_iterations: int = 0
    tolerance: float = 0.0

    def add(self, error: Tensor, max_iterations: int, tolerance: float) -> None:
        self.pairs += error.numel()
        self.max_iterations, self.tolerance = max_iterations, tolerance
        if not error.numel() or error.max().item() < tolerance:
            return
        above = error[error >= tolerance]
        if above.numel():
            self.above += above.numel()
            self.largest = max(self.largest, above.max().item())

    def warn(self, op: str) -> None:
        warnings.warn(
            f"{op}: {self.above} of {self.pairs} pairs stopped after max_iterations = {self.max_iterations} with a "
            f"marginal error above tolerance = {self.tolerance:g} (largest {self.largest:.2g}); "
            "raise max_iterations or epsilon",
            UserWarning,
            stacklevel=_frames_inside(),
        )


_COUNTED: ContextVar[_Unconverged | None] = ContextVar("unconverged", default=None)


def can_look(*inputs: Tensor) -> bool:
    """Return whether the values of a result can be read here and now.

    They cannot on a GPU, for which the host would have to wait, nor where the call is traced or mapped.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch._C._is_tracing()
        and all(tensor.device.type == "cpu" for tensor in inputs)
        and torch._C._functorch.peek_interpreter_stack() is None
        and not is_in_torch_dispatch_mode()
        and not any(isinstance(tensor, torch._subclasses.FakeTensor) for tensor in inputs)
    )


def warn_of_unconverged(op: str, error: Tensor, max_iterations: int, tolerance: float) -> None:
    """Warn of marginal errors that are not below `tolerance`, or count those pairs for the context that is open."""
    counted = _COUNTED.get()
    found = _Unconverged() if counted is None else counted
    found.add(error, max_iterations, tolerance)
    if counted is None and found.above:
        found.warn(op)


class OneWarning:
    """A context in which calls of Sinkhorn do not warn: at its end comes one warning for all, in the name of `op`.

    The object can be used again, and warns the first time only.
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.warned = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        if _COUNTED.get() is not None:
            # The context around this one counts.
            yield
            return
        found = _Unconverged()
        token = _COUNTED.set(found)
        try:
            yield
        finally:
            _COUNTED.reset(token)
        if found.above and not self.warned:
            self.warned = True
            found.warn(self.op)


def _frames_inside() -> int:
    """Return the `stacklevel` of the first caller outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    return level


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("scav_kernels", "contextlib", "torch")
