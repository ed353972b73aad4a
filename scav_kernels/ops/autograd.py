"""Register the ops' gradients with the dispatcher, so that `torch.func` and direct calls have them, too."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from scav_kernels.ops.library import LIBRARY, find_op


def register_gradient(name: str) -> None:
    """Register the gradient of the op `name`: `<name>_backward`, whose arguments are found by their names.

    Its arguments are, in this order: the gradient of the op's first result, tensors and then options that have the name
    of an argument or a result of the op, and flags `need_<argument>`. It returns gradients `d<argument>`; a result
    without a name is the gradient of the op's first argument.
    """
    op, backward_op = find_op(name), find_op(f"{name}_backward")
    arguments = [argument.name for argument in op._schema.arguments]
    results = [result.name for result in op._schema.returns]
    _, *others = backward_op._schema.arguments
    flags = [argument.name for argument in others if argument.name.startswith("need_")]
    tensors = [argument.name for argument in others if "Tensor" in str(argument.type)]
    options = [argument.name for argument in others if argument.name not in (*tensors, *flags)]
    # Positions of the arguments that have a gradient, in the order of the gradients, and of those that a flag is about.
    gradients = [
        arguments.index(result.name.removeprefix("d")) if result.name else 0 for result in backward_op._schema.returns
    ]
    flagged = [arguments.index(flag.removeprefix("need_")) for flag in flags]
    # Positions of what backward needs, among arguments and results.
    tensors_at, options_at = ([[*arguments, *results].index(name) for name in names] for names in (tensors, options))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs = output if isinstance(output, tuple) else (output,)
        known = (*inputs, *outputs)
        if len(outputs) > 1:
            ctx.mark_non_differentiable(*outputs[1:])
            ctx.set_materialize_grads(False)
        ctx.save_for_backward(*[known[place] for place in tensors_at])
        ctx.options = [known[place] for place in options_at]

    def backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * len(arguments)
        needed = ctx.needs_input_grad
        given = (grad, *ctx.saved_tensors, *ctx.options, *(needed[position] for position in flagged))
        if _may_differentiate():
            result = backward_op(*given)
        else:
            # Skips the kernel that would record the call, which is in Python and takes as long as a small gradient.
            with torch._C._AutoDispatchBelowAutograd():
                result = backward_op(*given)
        computed = result if isinstance(result, tuple) else (result,)
        of_arguments: list[Tensor | None] = [None] * len(arguments)
        for position, value in zip(gradients, computed, strict=True):
            of_arguments[position] = value if needed[position] else None
        return tuple(of_arguments)

    register_autograd(name, backward, setup_context=setup_context)


def register_autograd(
    name: str,
    backward: Callable[..., Any],
    *,
    setup_context: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
) -> None:
    """Register the gradient of the op `name`, and refuse its forward-mode derivative.

    Like `torch.library.register_autograd`, with three differences:

    - `torch.func.grad`, `vjp` and `jacrev` work.
    - A tangent raises an error. Torch's kernel would drop it.
    - Where autograd records a call, the op's `save_…` arguments are set. The caller cannot know: a traced or exported
      call may run again with inputs that require gradients.

    The schema must have no defaults: the dispatcher leaves out arguments that equal them.
    """
    op = find_op(name)
    saves = [i for i, argument in enumerate(op._schema.arguments) if argument.name.startswith("save_")]

    def below_autograd(keyset: Any, arguments: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *arguments_and_keyset: Any) -> Any:
            *arguments, keyset = arguments_and_keyset
            if torch._C._are_functorch_transforms_active():
                # Autograd is off for this transform alone, not for those around it.
                with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
                    result = below_autograd(keyset, arguments)
            else:
                result = below_autograd(keyset, arguments)
            if setup_context is not None:
                setup_context(ctx, tuple(arguments), result)
            return result

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return *backward(ctx, *gradients), None

    Differentiable.__name__ = Differentiable.__qualname__ = f"{op._opname}_autograd"
    record = super(torch.autograd.Function, Differentiable).apply

    def autograd(keyset: Any, *arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            refuse_tangents(op.name(), arguments)
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)):
            return below_autograd(keyset, arguments)
        for position in saves:
            arguments = (*arguments[:position], True, *arguments[position + 1 :])
        if not torch._C._are_functorch_transforms_active():
            return record(*arguments, keyset)
        # The dispatcher has this kernel run once for each transform that differentiates.
        with enable_single_level_autograd_function():
            return record(*arguments, keyset)

    LIBRARY.impl(op, autograd, "Autograd", with_keyset=True)


def _may_differentiate() -> bool:
    """Return True if autograd, a functorch transform or forward mode may ask for the derivative of a call."""
    return torch.is_grad_enabled() or forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def refuse_tangents(name: str, arguments: tuple[Any, ...]) -> None:
    """Raise if an argument has a forward-mode tangent."""
    for argument in arguments:
        if isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None:
            raise RuntimeError(
                f"{name}: forward-mode derivatives (jvp, jacfwd, hessian, dual tensors) are not implemented by "
                "scav_kernels; use reverse mode, e.g. torch.func.vjp or torch.func.jacrev"
            )


def refuse_double_backward(name: str) -> None:
    """Make gradients of the gradient op `name` raise an error."""

    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        raise RuntimeError(
            f"scav::{name}: gradients of gradients are not implemented by scav_kernels; "
            "call backward or torch.autograd.grad without create_graph=True"
        )

    register_autograd(name, backward)
