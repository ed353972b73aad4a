"""Checks of the arguments of public functions, before the dispatcher sees them."""

import inspect
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

# Options that belong to the sequences of a call, and not to the distance.
WEIGHTS = ("x_weights", "y_weights")


def check_tensors(op: str, **tensors: Tensor | None) -> None:
    """Check that arguments are dense tensors on one device; the kernels check everything else.

    `tensors` are the arguments by name. The first decides the device. Those named `*lengths` or `*weights` may be None.
    """
    first, *_ = tensors
    for name, value in tensors.items():
        if value is None and name.endswith(("lengths", "weights")):
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{op}: expected {name} to be a torch.Tensor, got {_describe(value)}; {_as_tensor(name, value)}"
            )
        if value.is_nested:
            raise TypeError(f"{op}: expected {name} to be a padded tensor, got a nested one; {_as_padded(name)}")
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
    """Say how to make a tensor of the value that was passed as `name`."""
    if isinstance(value, PackedSequence):
        return _as_padded(name)
    parts = value if isinstance(value, (list, tuple)) else ()
    if not any(isinstance(part, (Tensor, np.ndarray)) and part.ndim for part in parts):
        return f"use torch.as_tensor({name})"
    if name == "cost":
        return "use torch.stack(cost)[:, None] for costs (B1, 1, N, M)"
    return _as_padded(name)


def _as_padded(name: str) -> str:
    return f"scav_kernels.pad({name}) makes a padded tensor and its lengths"


class _Option(NamedTuple):
    types: tuple[type, ...]
    words: str  # the types, as an error names them
    default: Any


_INTEGERS = (int, np.integer, torch.SymInt)
_NUMBERS = (float, np.floating, torch.SymFloat, *_INTEGERS)
# The types of values that an annotation accepts, where they are more than its own, and its name in an error.
_ANNOTATIONS: dict[type, tuple[tuple[type, ...], str]] = {
    int: (_INTEGERS, "an int"),
    float: (_NUMBERS, "a number"),
    NoneType: ((NoneType,), "None"),
}
# The options of each public function, by its name.
_OPTIONS: dict[str, dict[str, _Option]] = {}

Function = TypeVar("Function", bound=Callable[..., Any])


def declare_options(function: Function) -> Function:
    """Decorate a public function whose keyword-only arguments are options, for `check_options` of its name.

    An option is annotated with a class or a union of classes, e.g. `int | None`.
    """
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    _OPTIONS[function.__name__] = {
        parameter.name: _Option(*_accepted(parameter.annotation), parameter.default)
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return function


def _accepted(annotation: Any) -> tuple[tuple[type, ...], str]:
    """Return the types that an annotation accepts, and their names."""
    classes = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if annotation is inspect.Parameter.empty or not all(isinstance(kind, type) for kind in classes):
        raise TypeError(
            f"expected an option annotated with a class or a union of classes, got {annotation}; "
            "annotate it, e.g. with int | None"
        )
    accepted = [_ANNOTATIONS.get(kind, ((kind,), f"a {kind.__name__}")) for kind in classes]
    return tuple(kind for kinds, _ in accepted for kind in kinds), " or ".join(words for _, words in accepted)


def check_options(op: str, **options: object) -> tuple[Any, ...]:
    """Check the types of options of the public function `op`; the kernels check their values.

    Return the values of all its options, in the order of its signature.
    """
    declared = _OPTIONS.get(op, {})
    if torch.compiler.is_compiling():
        options = {name: _as_number(value, declared.get(name)) for name, value in options.items()}
    for name, value in options.items():
        if name not in declared:
            raise TypeError(
                f"{op}: expected an option of {op}, got {name!r}; it takes {', '.join(declared) or 'none'}, "
                "the keyword arguments of the function that @declare_options decorates"
            )
        types, words, _ = declared[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(
                f"{op}: expected {name} to be {words}, got {value!r} of type {type(value).__name__}; "
                f"see help(scav_kernels.{op})"
            )
        if isinstance(value, int) and value.bit_length() > (1023 if float in types else 63):
            raise ValueError(
                f"{op}: expected {name} to be {words} of 64 bits, got an int of {value.bit_length()} bits; "
                f"see help(scav_kernels.{op})"
            )
    return tuple([options.get(name, option.default) for name, option in declared.items()])


def _as_number(value: object, option: _Option | None) -> object:
    """Return the number that torch.compile with ``dynamic=True`` takes for a tensor, where it looks it up once more."""
    is_float = option is not None and float in option.types
    return value.item() if is_float and isinstance(value, Tensor) else value


def check_pair(op: str, x: Tensor, y: Tensor) -> None:
    """Check that the arguments are one pair, x (N, D) and y (M, D)."""
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
