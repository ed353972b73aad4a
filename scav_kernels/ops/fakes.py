"""Results without values, which `torch.compile` and meta tensors need: shapes and dtypes.

The fakes are the same for every op. They find its arguments by their names in the schema, as `batching` does: either
sequences `x` and `y`, or a tensor `cost`, (B1, B2, N, M), or (B, N, M) of pairs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.library import find_op

# The arguments of a call, by their names in the schema.
Arguments = dict[str, Any]
Steps = int | torch.SymInt


def register_fakes(name: str, saved_results: Callable[[Tensor, Arguments], tuple[Tensor, ...]] | None) -> None:
    """Register the fakes of the op `name` and of its gradient, `<name>_backward`.

    The op returns distances, and after them `saved_results(distances, arguments)`, if there are any.
    """

    def fake(arguments: Arguments) -> Tensor | tuple[Tensor, ...]:
        distances = _distances(arguments)
        return distances if saved_results is None else (distances, *saved_results(distances, arguments))

    _register(name, fake)
    _register(f"{name}_backward", _gradients)


def steps_of_x(arguments: Arguments) -> Steps:
    """Return N, the steps of x."""
    return arguments["x"].shape[1] if "x" in arguments else arguments["cost"].shape[-2]


def steps_of_y(arguments: Arguments) -> Steps:
    """Return M, the steps of y."""
    return arguments["y"].shape[1] if "y" in arguments else arguments["cost"].shape[-1]


def _distances(arguments: Arguments) -> Tensor:
    """Return (B1, B2), or (B,) for pairs, in the dtype of accumulation."""
    if "x" not in arguments:
        cost = arguments["cost"]
        return cost.new_empty(cost.shape[:-2], dtype=accumulation_dtype(cost))
    x, y = arguments["x"], arguments["y"]
    batch = (x.shape[0],) if arguments.get("paired", False) else (x.shape[0], y.shape[0])
    return x.new_empty(batch, dtype=accumulation_dtype(x))


def _gradients(arguments: Arguments) -> Tensor | tuple[Tensor, ...]:
    """Return contiguous gradients: like cost, or like x and y, and like weights, each of these empty unless needed."""
    like = arguments["x"] if "x" in arguments else arguments["cost"]

    def gradient(name: str) -> Tensor:
        given = arguments[name]
        # Weights that were left out.
        given = like.new_empty(0, dtype=accumulation_dtype(like)) if given is None else given
        return given.new_empty(given.shape if arguments.get(f"need_{name}", True) else 0)

    flagged = tuple(name.removeprefix("need_") for name in arguments if name.startswith("need_"))
    names = flagged if "x" in arguments else ("cost", *flagged)
    gradients = tuple(gradient(name) for name in names)
    return gradients if len(gradients) > 1 else gradients[0]


def _register(name: str, fake: Callable[[Arguments], Any]) -> None:
    """Register a fake that refuses tensors on several devices.

    A call with a meta tensor among others comes here, and would return memory that nobody wrote.
    """
    names = [argument.name for argument in find_op(name)._schema.arguments]

    def on_one_device(*values: object) -> Any:
        devices = {str(value.device) for value in values if isinstance(value, Tensor)}
        if len(devices) > 1:
            raise RuntimeError(
                f"scav::{name}: expected all tensors on one device, got {' and '.join(sorted(devices))}; "
                "move them, e.g. with .to(x.device)"
            )
        return fake(dict(zip(names, values, strict=True)))

    torch.library.register_fake(f"scav::{name}", on_one_device)
