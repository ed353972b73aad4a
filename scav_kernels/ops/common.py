"""What the ops share on the Python side: checks before dispatch, metadata of results, and what other modes do."""

from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from scav_kernels import _C
from scav_kernels.dtypes import accumulation_dtype

LIBRARY = torch.library.Library("scav", "FRAGMENT")


def find_op(name: str) -> torch._ops.OpOverload:
    """The op of a qualified name, "scav::dtw"."""
    return getattr(torch.ops.scav, name.removeprefix("scav::")).default


def check_tensors(op: str, **tensors: Tensor | None) -> None:
    """What the dispatcher would answer in its own words, or not at all; everything else is checked by the kernels.

    Tensors by name of argument, the one whose device decides first; those named `*_lengths` may be None.
    """
    first, *_ = tensors
    for name, value in tensors.items():
        if value is None and name.endswith("lengths"):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: expected {name} to be a torch.Tensor, got {_describe(value)}; {_as_tensor(name, value)}"
            )
        if value.is_nested:
            raise TypeError(
                f"{op}: expected {name} to be a padded tensor, got a nested one; "
                f"use torch.nested.to_padded_tensor({name}, 0.0), and torch.tensor([len(s) for s in {name}.unbind()]) "
                f"as the lengths"
            )
        if value.layout is not torch.strided:
            raise TypeError(f"{op}: expected {name} to be dense, got layout {value.layout}; use {name}.to_dense()")
        if value.dtype is torch.bool and name.endswith("lengths"):
            raise TypeError(
                f"{op}: expected {name} to be int64 numbers of valid steps, got a bool mask of shape "
                f"{tuple(value.shape)}; use {name}.sum(-1), or (~{name}).sum(-1) where True marks padding"
            )
    device = cast(Tensor, tensors[first]).device
    for name, value in tensors.items():
        if value is not None and value.device != device:
            raise RuntimeError(
                f"{op}: expected {first} and {name} on one device, got {device} and {value.device}; "
                f"move one, e.g. {name}.to({first}.device)"
            )


def _describe(value: object) -> str:
    kind = type(value).__name__
    if isinstance(value, (list, tuple)) and value and not isinstance(value, PackedSequence):
        return f"a {kind} of {type(value[0]).__name__}"
    return kind


def _as_tensor(name: str, value: object) -> str:
    """How to make a tensor of what was passed as `name`."""
    if isinstance(value, PackedSequence):
        return f"use {name}, lengths = torch.nn.utils.rnn.pad_packed_sequence({name}, batch_first=True)"
    parts = value if isinstance(value, (list, tuple)) else ()
    if not any(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in parts):
        return f"use torch.as_tensor({name})"
    if not all(isinstance(part, Tensor) for part in parts):
        return f"use [torch.as_tensor(s) for s in {name}], and torch.nn.utils.rnn.pad_sequence(..., batch_first=True)"
    if name == "cost":
        return "use torch.stack(cost)[:, None] for costs (B1, 1, N, M)"
    return (
        f"use torch.nn.utils.rnn.pad_sequence({name}, batch_first=True), "
        f"and torch.tensor([len(s) for s in {name}]) as the lengths"
    )


_INTEGERS = (int, np.integer, torch.SymInt)
_NUMBERS = (float, np.floating, torch.SymFloat, *_INTEGERS)
# What each option may be, and how an error says so.
_OPTIONS: dict[str, tuple[tuple[type, ...], str]] = {
    "cost": ((str,), "a str"),
    "band": ((*_INTEGERS, NoneType), "an int or None"),
    "gamma": (_NUMBERS, "a number"),
    "epsilon": (_NUMBERS, "a number"),
    "max_iterations": (_INTEGERS, "an int"),
    "tolerance": (_NUMBERS, "a number"),
    "squared": ((bool,), "a bool"),
    "resample": ((str,), "a str"),
    "return_convergence": ((bool,), "a bool"),
}


def check_options(op: str, **options: object) -> None:
    """Types of options, by name; their values are checked by the kernels."""
    for name, value in options.items():
        kinds, words = _OPTIONS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(
                f"{op}: expected {name} to be {words}, got {value!r} of type {type(value).__name__}; "
                f"see help(scav_kernels.{op})"
            )
        if isinstance(value, int) and value.bit_length() > (1023 if float in kinds else 63):
            raise ValueError(
                f"{op}: expected {name} to be {words} of 64 bits, got an int of {value.bit_length()} bits; "
                f"see help(scav_kernels.{op})"
            )


def check_pair(op: str, x: Tensor, y: Tensor) -> None:
    """One pair to look at, x (N, D) and y (M, D)."""
    check_tensors(op, x=x, y=y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise ValueError(
            f"{op}: expected one pair, x (N, D) and y (M, D) of at least one step and feature, "
            f"got {tuple(x.shape)} and {tuple(y.shape)}; pass one sequence of each batch, cut to its length"
        )
    if x.dtype != y.dtype or not x.is_floating_point():
        raise TypeError(
            f"{op}: expected x and y of one floating-point dtype, got {x.dtype} and {y.dtype}; "
            "convert them, e.g. y.to(x.dtype)"
        )


def ground_cost(x: Tensor, y: Tensor, cost: str) -> Tensor:
    """Costs of one pair, x (N, D) and y (M, D) -> (N, M), from differences: to look at, more exact than fast."""
    dtype = accumulation_dtype(x)
    x, y = x.detach().to(dtype), y.detach().to(dtype)
    if cost == "cosine":
        return 1 - functional.normalize(x, eps=1e-8) @ functional.normalize(y, eps=1e-8).T
    if cost not in ("euclidean", "sqeuclidean"):
        raise ValueError(f"expected cost 'euclidean', 'sqeuclidean' or 'cosine', got {cost!r}")
    distance = torch.cdist(x[None], y[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
    return distance if cost == "euclidean" else distance.square()


def register_fake(op: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`torch.library.register_fake`, refusing tensors on several devices.

    A meta tensor among others brings a call here, and the answer would be memory that nobody wrote.
    """

    def register(fake: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fake)
        def on_one_device(*args: object) -> Any:
            devices = {str(value.device) for value in args if isinstance(value, Tensor)}
            if len(devices) > 1:
                raise RuntimeError(
                    f"{op}: expected all tensors on one device, got {' and '.join(sorted(devices))}; "
                    "move them, e.g. with .to(x.device)"
                )
            return fake(*args)

        torch.library.register_fake(op, on_one_device)
        return fake

    return register


def new_result(x: Tensor, y: Tensor, paired: bool, *tail: int | torch.SymInt) -> Tensor:
    """Metadata of a result: (B1, B2, *tail), or (B, *tail) where `paired`, in the dtype of accumulation."""
    batch = (x.shape[0],) if paired else (x.shape[0], y.shape[0])
    return x.new_empty((*batch, *tail), dtype=accumulation_dtype(x))


def as_batch(cost: Tensor) -> Tensor:
    """(N, M) costs as (1, 1, N, M), others as they are."""
    return cost[None, None] if cost.dim() == 2 else cost


def new_result_of_costs(cost: Tensor) -> Tensor:
    """Metadata of a result: (B1, B2, N, M) -> (B1, B2), in the dtype of accumulation."""
    return cost.new_empty(cost.shape[:2], dtype=accumulation_dtype(cost))


def new_convergence(out: Tensor, saved: bool) -> tuple[Tensor, Tensor]:
    """Metadata of Sinkhorn's iterations and marginal errors, one for each distance; empty unless `saved`."""
    shape = out.shape if saved else (0,)
    return out.new_empty(shape, dtype=torch.int64), out.new_empty(shape)


def new_gradients(x: Tensor, y: Tensor, need_x: bool, need_y: bool) -> tuple[Tensor, Tensor]:
    """Metadata of gradients: contiguous, like x and y; empty where not needed."""
    return (
        x.new_empty(x.shape) if need_x else x.new_empty(0),
        y.new_empty(y.shape) if need_y else y.new_empty(0),
    )


def promote_under_autocast(op: str) -> None:
    """Within `torch.autocast`, x and y of two dtypes, as modules leave them there, meet in the wider one."""

    def promoted(x: Tensor, y: Tensor, *rest: object) -> object:
        if x.is_floating_point() and y.is_floating_point():
            dtype = torch.promote_types(x.dtype, y.dtype)
            x, y = x.to(dtype), y.to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            return find_op(op)(x, y, *rest)

    for device in ("CPU", "CUDA"):
        LIBRARY.impl(op, promoted, f"Autocast{device}")


def refuse_missing_cuda(*ops: str) -> None:
    """In a build without CUDA kernels, CUDA tensors get an error that says how to get them."""
    if _C.build_info()["cuda_version"] is not None:
        return

    for op in ops:

        def refuse(*args: object, op: str = op, **kwargs: object) -> NoReturn:
            raise RuntimeError(
                f"{op}: this build of scav_kernels has no CUDA kernels; move the inputs to the CPU, or rebuild with "
                "SCAV_BUILD_CUDA=1 where torch and a CUDA toolkit are installed"
            )

        torch.library.impl(op, "CUDA", refuse)
