"""Batching rules for `torch.vmap`: one call of an op for all entries of a mapped dimension.

The rules are the same for every op. They tell tensors apart by their names in the schema, for V entries of B1 x's and
B2 y's each. Per entry,

- "x" tensors are (B1, ...): `x`, `x_lengths`, `x_weights`, the results `dx` and `dx_weights`;
- "y" tensors are (B2, ...): `y`, `y_lengths`, `y_weights`, the results `dy` and `dy_weights`;
- "pair" tensors are (B1, B2, ...): `out`, `grad`, `cost` and all others; or (B, ...) where the op is `paired`, or its
  costs are those of pairs, (B, N, M).

A mapped tensor has one more dimension, of size V, first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.library import find_op

# All-pairs entries of at most so many pairs share one paired call, which repeats each sequence for each of its pairs.
# Larger entries take less time in a call of their own, because the pairs of a sequence share its loads.
_MOST_PAIRS = 8


class _Layout(NamedTuple):
    """Functions that turn the tensors of V entries into those of one call, and its results into those of V entries."""

    # (V, ...) -> the argument of the call, by kind. A kind that is left out is not mapped, and passed as it is.
    fold: dict[str, Callable[[Tensor], Tensor]]
    # A result of the call -> (V, ...), by kind.
    unfold: dict[str, Callable[[Tensor], Tensor]]


def _side_by_side(v: int, b: int) -> _Layout:
    """Lay the pairs of all entries one after the other, in a paired call."""
    kinds = ("x", "y", "pair")
    return _Layout(
        {kind: lambda value: value.flatten(0, 1) for kind in kinds},
        {kind: lambda value: value.unflatten(0, (v, b)) for kind in kinds},
    )


def _along_x(v: int, b1: int) -> _Layout:
    """Compare V · B1 x's with the y's that all entries share."""
    layout = _side_by_side(v, b1)
    del layout.fold["y"]
    return layout


def _along_y(v: int, b2: int) -> _Layout:
    """Compare the x's that all entries share with V · B2 y's."""
    layout = _side_by_side(v, b2)
    del layout.fold["x"]
    layout.fold["pair"] = lambda value: value.movedim(0, 1).flatten(1, 2)
    layout.unfold["pair"] = lambda value: value.unflatten(1, (v, b2)).movedim(1, 0)
    return layout


def _pair_by_pair(v: int, b1: int, b2: int) -> _Layout:
    """Lay out V · B1 · B2 pairs in a paired call, and sum gradients over the pairs of a sequence."""

    def entries(value: Tensor) -> Tensor:
        return value.unflatten(0, (v, b1, b2))

    def repeat(value: Tensor, dim: int) -> Tensor:
        return value.unsqueeze(dim).expand(v, b1, b2, *value.shape[2:]).flatten(0, 2)

    return _Layout(
        {
            "x": lambda value: repeat(value, 2),
            "y": lambda value: repeat(value, 1),
            "pair": lambda value: value.flatten(0, 2),
        },
        {
            "x": lambda value: entries(value).sum(2),
            "y": lambda value: entries(value).sum(1),
            "pair": entries,
        },
    )


class _Rule:
    """The batching rule of one op: rule(info, in_dims, *arguments) -> results, out_dims."""

    def __init__(self, name: str) -> None:
        self._op = find_op(name)
        self._names = [argument.name for argument in self._op._schema.arguments]
        self._kinds = [_kind(name) for name in self._names]
        self._results = [result.name for result in self._op._schema.returns]
        self._result_kinds = [_kind(name) for name in self._results]

    def __call__(self, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        mapped = [dim is not None for dim in in_dims]
        values = [
            value if dim is None else value.movedim(dim, 0) for value, dim in zip(arguments, in_dims, strict=True)
        ]
        try:
            results = self._together(info.batch_size, values, mapped)
        except (IndexError, TypeError, ValueError):
            # Raises the error again, in terms of the entry that it is about.
            results = self._one_by_one(info.batch_size, values, mapped)
        # (0,) stands for a result that was not asked for.
        out_dims = tuple(None if result.shape == (0,) else 0 for result in results)
        return (results, out_dims) if len(results) > 1 else (results[0], out_dims[0])

    def _together(self, v: int, values: list[Any], mapped: list[bool]) -> tuple[Tensor, ...]:
        options = dict(zip(self._names, values, strict=True))
        paired = self._is_paired(values, mapped)
        b1, b2 = self._batches(values, mapped, paired)
        if paired:
            return self._once(_side_by_side(v, b1), v, values, mapped)
        # The kinds of which each entry has its own, as an argument or as a gradient.
        arguments = {kind for kind, is_mapped in zip(self._kinds, mapped, strict=True) if is_mapped}
        gradients = {_kind(name.removeprefix("need_")) for name in self._flags() if options[name]}
        if "y" not in arguments | gradients:
            return self._once(_along_x(v, b1), v, values, mapped)
        if "x" not in arguments | gradients:
            return self._once(_along_y(v, b2), v, values, mapped)
        if arguments == {"pair"}:
            # As in jacrev. Each side's gradients have the layout in which entries share the sequences of the other.
            of_x, of_y = (
                self._together(v, self._with(values, **dict.fromkeys(self._flags(other), False)), mapped)
                for other in ("y", "x")
            )
            return tuple(y if kind == "y" else x for x, y, kind in zip(of_x, of_y, self._result_kinds, strict=True))
        if "paired" in options and b1 * b2 <= _MOST_PAIRS:
            if not gradients:
                return self._once(_pair_by_pair(v, b1, b2), v, self._with(values, paired=True), mapped)
            # What is summed is rounded once, after the sum.
            named = [(name, options[name.removeprefix("d")]) for name in self._results]
            wide = {name[1:]: given.to(accumulation_dtype(given)) for name, given in named if given is not None}
            results = self._once(_pair_by_pair(v, b1, b2), v, self._with(values, **wide, paired=True), mapped)
            return tuple(
                result if given is None else result.to(given.dtype)
                for result, (_, given) in zip(results, named, strict=True)
            )
        return self._one_by_one(v, values, mapped)

    def _flags(self, kind: str = "") -> list[str]:
        """Return the names of the flags `need_…` of the gradients of one kind, or of all."""
        return [name for name in self._names if name.startswith(f"need_{kind}")]

    def _once(self, layout: _Layout, v: int, values: list[Any], mapped: list[bool]) -> tuple[Tensor, ...]:
        """Return the results of one call in that layout."""
        arguments = [
            layout.fold[kind](value if is_mapped else value.expand(v, *value.shape))
            if isinstance(value, Tensor) and kind in layout.fold
            else value
            for value, kind, is_mapped in zip(values, self._kinds, mapped, strict=True)
        ]
        results = _as_tuple(self._op(*arguments))
        # (0,) stands for a result that was not asked for, but is the shape of distances in a paired call of no pairs.
        no_pairs = self._is_paired(values, mapped) and arguments[0].shape[0] == 0
        return tuple(
            layout.unfold[kind](result) if no_pairs or result.shape != (0,) else result
            for result, kind in zip(results, self._result_kinds, strict=True)
        )

    def _one_by_one(self, v: int, values: list[Any], mapped: list[bool]) -> tuple[Tensor, ...]:
        """Return the results of a call for each entry."""
        calls = [
            self._op(*(value[i] if is_mapped else value for value, is_mapped in zip(values, mapped, strict=True)))
            for i in range(v)
        ]
        return tuple(torch.stack(parts) for parts in zip(*map(_as_tuple, calls), strict=True))

    def _is_paired(self, values: list[Any], mapped: list[bool]) -> bool:
        if "paired" in self._names:
            return values[self._names.index("paired")]
        position = self._names.index("cost")
        return values[position].dim() - mapped[position] == 3

    def _batches(self, values: list[Any], mapped: list[bool], paired: bool) -> tuple[int, int]:
        """Return B1 and B2."""
        sizes: dict[str, list[int]] = {"x": [], "y": []}
        for value, kind, is_mapped in zip(values, self._kinds, mapped, strict=True):
            if isinstance(value, Tensor):
                shape = value.shape[is_mapped:]
                sizes["y" if kind == "y" and not paired else "x"].append(shape[0])
                if kind == "pair" and not paired:
                    sizes["y"].append(shape[1])
        b1, b2 = sizes["x"][0], (sizes["x"] if paired else sizes["y"])[0]
        if any(size != b1 for size in sizes["x"]) or any(size != b2 for size in sizes["y"]):
            raise ValueError
        return b1, b2

    def _with(self, values: list[Any], **options: Any) -> list[Any]:
        return [options.get(name, value) for name, value in zip(self._names, values, strict=True)]


def _kind(name: str) -> str:
    """Return the kind of a tensor from its name in a schema."""
    first = name.removeprefix("d").split("_")[0]
    return first if first in ("x", "y") else "pair"


def _as_tuple(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def register_batching(*names: str) -> None:
    """Register the batching rules of ops."""
    for name in names:
        torch.library.register_vmap(f"scav::{name}", _Rule(name))
