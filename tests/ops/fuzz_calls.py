"""Random calls of every op in the namespace `scav`, drawn from its schema: about half of them valid.

Sizes are mostly tiny, because tiny calls are the quickest to make and to check, and now and then wider than a vector
or a panel. Call number `index` of a seed is always the same call.
"""

import random
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.registry import METRICS

Arguments = dict[str, Any]

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
OTHER_DTYPES = [torch.bool, torch.uint8, torch.int32, torch.int64, torch.complex64, torch.float8_e4m3fn]
COSTS = ["euclidean", "sqeuclidean", "cosine"]
RESAMPLES = ["x", "y", "shorter"]
DIRECTIONS = ["x", "y", "both"]
LARGEST = 2**63 - 1
# max_iterations and tolerance. No plan misses more than a mass of 2, so that a tolerance above stops at once.
ITERATIONS = [(count, tolerance) for count in (1, 2, 3, 10, 30, 100) for tolerance in (0.0, 0.0, 1e-12, 1e-3, 0.1)]
ITERATIONS += [(1000, 0.1), (2**62, 5.0), (LARGEST, 1e300), (LARGEST, torch.inf)]
EXTREME = [torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 1e18, 1e-30, 1e-45, 0.0]
# More than the fuzz's memory holds; the last two only together.
HUGE_SIZES = [2**33, 2**40, 2**62]
HUGE_SQUARE = [2**20, 2**20]


class Expect(Enum):
    ANSWER = "the right answer"
    REFUSAL = "a refusal"
    EITHER = "the right answer or a refusal"
    ANYTHING = "anything but a crash"


class Call(NamedTuple):
    op: str
    arguments: Arguments
    expect: Expect
    threads: int

    def __str__(self) -> str:
        arguments = ", ".join(f"{name}={described(value)}" for name, value in self.arguments.items())
        return f"torch.ops.scav.{self.op}({arguments})  # {self.threads} threads, expects {self.expect.value}"


def described(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    kind = f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
    if value.layout != torch.strided or value.is_meta:
        return f"<{kind} {value.layout} {value.device}>"
    if not 0 < value.numel() <= 64:
        return f"<{kind} strides {value.stride()}>"
    return f"<{kind} strides {value.stride()} {value.tolist()}>"


@cache
def all_ops() -> list[str]:
    names = torch._C._dispatch_get_all_op_names()
    ours = (name.removeprefix("scav::") for name in names if name.startswith("scav::"))
    # Others check arguments, or are a search's.
    return sorted(name for name in ours if name.removesuffix("_backward").removesuffix("_from_cost") in METRICS)


def overload(op: str) -> torch._ops.OpOverload:
    return getattr(torch.ops.scav, op).default


def draw(seed: int, index: int) -> Call:
    artist = Artist(seed, index)
    ops = all_ops()
    call = artist.valid(ops[index % len(ops)])
    return call if artist.chance(0.55) else artist.spoilt(call)


class Artist:
    """Draws one call."""

    def __init__(self, seed: int, index: int) -> None:
        self.random = random.Random((seed << 32) + index)
        self.generator = torch.Generator().manual_seed(self.random.getrandbits(62))
        # Waiting for each other costs the threads of so small a call more than everything else.
        self.threads = self.pick([2, 3]) if self.chance(0.03) else 1
        self.dtype = self.pick(DTYPES)
        self.paired = self.chance(0.3)
        self.b1, self.b2 = self.size(3, 20), self.size(3, 20)
        self.n, self.m, self.d = self.size(4, 70), self.size(4, 70), self.size(3, 20)
        # Whether to draw numbers that may overflow.
        self.extreme = self.chance(0.4)
        self.max_iterations, self.tolerance = self.pick(ITERATIONS)
        if self.chance(0.03):
            self.b1 = 0
        if self.chance(0.03):
            self.b2 = 0
        if self.paired:
            self.b2 = self.b1

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, choices: list[Any]) -> Any:
        return self.random.choice(choices)

    def size(self, small: int, large: int) -> int:
        return self.random.randint(1, large if self.chance(0.02) else small)

    # ---- valid calls ----

    def valid(self, op: str) -> Call:
        names = [argument.name for argument in overload(op)._schema.arguments]
        if not op.endswith("_backward"):
            return Call(op, self.arguments(op), Expect.ANSWER, self.threads)
        forward = op.removesuffix("_backward")
        given = {**self.arguments(forward), **dict.fromkeys(SAVES, True)}
        schema = overload(forward)._schema
        outputs = overload(forward)(*(given[argument.name] for argument in schema.arguments))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        # An only output has no name of its own.
        saved = {of.name or "out": value for of, value in zip(schema.returns, outputs, strict=True)}
        grad = self.relaid(self.values(tuple(outputs[0].shape), outputs[0].dtype))
        flags = [name for name in names if name.startswith("need_")]
        drawn = {"grad": grad, **{flag: self.chance(0.8) for flag in flags}}
        everything = {**given, **{name: self.restrided(value) for name, value in saved.items()}, **drawn}
        return Call(op, {name: everything[name] for name in names}, Expect.ANSWER, self.threads)

    def arguments(self, op: str) -> Arguments:
        return {argument.name: self.argument(argument) for argument in overload(op)._schema.arguments}

    def argument(self, argument: torch.Argument) -> Any:
        if str(argument.type) == "Tensor":
            return self.sequences(argument.name)
        return VALID[argument.name](self)

    def sequences(self, name: str) -> Tensor:
        shapes = {
            "x": (self.b1, self.n, self.d),
            "y": (self.b2, self.m, self.d),
            "cost": (self.b1, self.b2, self.n, self.m),
        }
        values = self.values(shapes[name], self.dtype)
        if name == "cost" and self.chance(0.3):
            values[torch.rand(values.shape, generator=self.generator) < 0.3] = torch.inf
        return self.relaid(values)

    def values(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        normal = torch.randn(shape, dtype=torch.float64, generator=self.generator)
        # Rounded, for ties, zeros and coinciding steps.
        normal = normal.round() if self.chance(0.4) else normal
        if self.extreme and self.chance(0.3):
            normal *= 10.0 ** self.random.randint(-12, 12)
        return (self.sprinkled(normal) if self.extreme else normal).to(dtype)

    def sprinkled(self, values: Tensor) -> Tensor:
        flat = values.flatten()
        for _ in range(self.random.randint(0, 2) if len(flat) else 0):
            flat[self.random.randrange(len(flat))] = self.pick(EXTREME)
        return flat.view_as(values)

    def lengths(self, batch: int, longest: int) -> Tensor | None:
        if self.chance(0.4):
            return None
        return self.restrided(torch.tensor([self.random.randint(1, longest) for _ in range(batch)], dtype=torch.int64))

    def weights(self, batch: int, steps: int) -> Tensor | None:
        if self.chance(0.5):
            return None
        drawn = torch.rand(batch, steps, dtype=torch.float64, generator=self.generator)
        zeros = torch.rand(batch, steps, generator=self.generator) < self.pick([0.0, 0.4])
        # The first step is within every length.
        zeros[:, 0] = False
        scale = 2.0 ** self.random.randint(-4, 4)
        return self.restrided((scale * (0.1 + drawn).masked_fill(zeros, 0)).to(self.pick(DTYPES)))

    # ---- memory ----

    def relaid(self, values: Tensor) -> Tensor:
        """Somewhere in memory, and perhaps with repetitions."""
        if values.numel() and self.chance(0.1):
            axis = self.random.randrange(values.dim())
            return values.narrow(axis, 0, 1).expand(values.shape)
        if values.numel() and self.chance(0.05):
            flat = values.flatten()
            return flat.as_strided(values.shape, (1,) * values.dim())
        return self.restrided(values)

    def restrided(self, values: Tensor) -> Tensor:
        """The same values, otherwise laid out; what lies between them is the worst that they could be."""
        kind = self.random.random()
        if kind < 0.6 or not values.dim():
            return values
        if kind < 0.75:
            return values.movedim(0, -1).contiguous().movedim(-1, 0)
        if kind < 0.8 and values.dtype.is_floating_point:
            return torch._neg_view(-values)
        worst = torch.nan if values.dtype.is_floating_point else torch.iinfo(values.dtype).max
        wide = torch.full((*values.shape[:-1], 2 * values.shape[-1] + 3), worst, dtype=values.dtype)
        view = wide[..., 2 : 2 + 2 * values.shape[-1] : 2]
        view.copy_(values)
        return view

    # ---- calls with something wrong ----

    def spoilt(self, call: Call) -> Call:
        arguments = overload(call.op)._schema.arguments
        changes = [change for argument in arguments for change in self.changes(argument, call.arguments)]
        name, value, expect = self.pick(changes)()
        given = {**call.arguments, name: value}
        if all(of.is_meta for of in given.values() if isinstance(of, Tensor)):
            # Metadata in, metadata out.
            expect = Expect.ANYTHING
        return call._replace(arguments=given, expect=expect)

    def changes(self, argument: torch.Argument, given: Arguments) -> list[Callable[[], tuple[str, Any, Expect]]]:
        name, kind, value = argument.name, str(argument.type), given[argument.name]

        def change(to: Any, expect: Expect = Expect.REFUSAL) -> Callable[[], tuple[str, Any, Expect]]:
            return lambda: (name, to() if callable(to) else to, expect)

        found = [change(lambda: self.of_another_type(kind))]
        found += [change(bad) for bad in REFUSED.get(name, {}).get(kind, [])]
        found += [change(extreme, Expect.EITHER) for extreme in EXTREME_OPTIONS.get(name, [])]
        if isinstance(value, Tensor):
            found += [change(lambda: torch.zeros(value.shape, dtype=self.dtype_for(name, value)))] * 3
            found += [change(lambda: self.of_another_shape(name, value))] * 3
            found += [change(lambda: value.to("meta"))]
            found += [change(lambda: value.to_sparse())] if value.dim() else []
            found += [change(lambda: self.huge(name, value), Expect.REFUSAL if value.numel() else Expect.ANYTHING)]
            found += [change(lambda: self.bad_lengths(value))] * 3 if "lengths" in name and len(value) else []
            found += [change(lambda: self.bad_weights(value))] * 3 if "weights" in name and len(value) else []
            found += [change(lambda: self.junk(value), Expect.ANYTHING)] * 3 if name in SAVED else []
        return found

    def of_another_type(self, kind: str) -> Any:
        return self.pick({"str": [None, 3, 0.5], "bool": ["yes", [True], object()]}.get(kind, ["1", [], object()]))

    def dtype_for(self, name: str, value: Tensor) -> torch.dtype:
        """Another one; upstream gradients, given costs and weights may have any of the floating-point dtypes."""
        given = DTYPES if name in ("grad", "cost", "x_weights", "y_weights") else [value.dtype]
        return self.pick([dtype for dtype in (*DTYPES, *OTHER_DTYPES) if dtype not in given])

    def of_another_shape(self, name: str, value: Tensor) -> Tensor:
        """Another rank; or another size, on an axis on which the call leaves no choice."""
        if self.chance(0.4):
            # Costs of one rank less may be those of pairs.
            return value[0] if name != "cost" and self.chance(0.5) and len(value) else value[None]
        axis = -1 if name in ("x", "y", "cost") else self.random.randrange(value.dim())
        size = value.shape[axis]
        shape = list(value.shape)
        shape[axis] = 0 if name == "cost" or (size and self.chance(0.5)) else size + 1
        return torch.ones(shape, dtype=value.dtype)

    def huge(self, name: str, value: Tensor) -> Tensor:
        """One number, declared as more than memory holds, on one axis or on several."""
        # Given costs are read where they are: any number of equal rows takes time, not memory.
        axes = [axis for axis in range(value.dim()) if axis != 2 or name != "cost"]
        axes = self.random.sample(axes, self.random.randint(1, len(axes)))
        shape = list(value.shape)
        for axis, square in zip(axes, HUGE_SQUARE, strict=False):
            shape[axis] = self.pick([*HUGE_SIZES, square] if len(axes) > 1 and shape[axis] else HUGE_SIZES)
        try:
            return torch.ones((1,) * value.dim(), dtype=value.dtype).expand(shape)
        except RuntimeError:
            # More than 2**63 elements: torch makes no such tensor.
            return value.to("meta")

    def bad_lengths(self, value: Tensor) -> Tensor:
        bad = value.clone()
        bad[self.random.randrange(len(bad))] = self.pick([0, -1, 1000, 2**31, 2**32 + 1, LARGEST, -LARGEST - 1])
        return bad

    def bad_weights(self, value: Tensor) -> Tensor:
        bad = value.clone()
        bad[self.random.randrange(len(bad))] = self.pick([0.0, -1.0, torch.nan, torch.inf])
        return bad

    def junk(self, value: Tensor) -> Tensor:
        if value.dtype.is_floating_point:
            return self.sprinkled(torch.full(value.shape, self.pick(EXTREME), dtype=torch.float64)).to(value.dtype)
        most = self.pick([3, 4, 5, 256])
        return torch.randint(0, most, value.shape, generator=self.generator).to(value.dtype)


# How to draw an argument, by name: a new option needs a line here.
VALID: dict[str, Callable[[Artist], Any]] = {
    "x_lengths": lambda artist: artist.lengths(artist.b1, artist.n),
    "y_lengths": lambda artist: artist.lengths(artist.b2, artist.m),
    "x_weights": lambda artist: artist.weights(artist.b1, artist.n),
    "y_weights": lambda artist: artist.weights(artist.b2, artist.m),
    "scaling": lambda artist: artist.pick([None, None, None, 0.9, 0.5, 0.1, 1e-9]),
    "cost": lambda artist: artist.pick(COSTS),
    "resample": lambda artist: artist.pick(RESAMPLES),
    "squared": lambda artist: artist.chance(0.5),
    "paired": lambda artist: artist.paired,
    "mode": lambda artist: artist.pick(["linear", "nearest"]),
    "direction": lambda artist: artist.pick(DIRECTIONS),
    "save_nearest": lambda artist: artist.chance(0.7),
    "save_path": lambda artist: artist.chance(0.7),
    "save_potentials": lambda artist: artist.chance(0.7),
    "return_convergence": lambda artist: artist.chance(0.7),
    "band": lambda artist: artist.pick([None, None, None, 0, 1, 2, 2**31, 2**62, LARGEST]),
    "step_penalty": lambda artist: artist.pick([0.0, 0.0, 0.5, 1.0, 1e-3, 1e6]),
    "diagonal_weight": lambda artist: artist.pick([1.0, 1.0, 2.0, 0.5, 1e-3, 30.0]),
    "open_begin": lambda artist: artist.chance(0.3),
    "open_end": lambda artist: artist.chance(0.3),
    "normalize": lambda artist: artist.pick([None, None, "path", "steps"]),
    "gamma": lambda artist: artist.pick([1.0, 0.1, 1e-3, 1e-9, 30.0, 1e6]),
    "epsilon": lambda artist: artist.pick([1.0, 0.5, 0.05, 1e-3, 100.0, 1e6]),
    "max_iterations": lambda artist: artist.max_iterations,
    "tolerance": lambda artist: artist.tolerance,
}
# Values of the schema's type that no call takes, by name and type.
REFUSED: dict[str, dict[str, list[Any]]] = {
    "cost": {"str": ["", "manhattan", "Euclidean", "euclidean\0", "e" * 10_000, "\N{SNOWMAN}"]},
    "resample": {"str": ["", "z", "X", "shorter "]},
    "mode": {"str": ["", "area", "Linear", "nearest-exact"]},
    "direction": {"str": ["", "z", "X", "both "]},
    "band": {"Optional[int]": [-1, -3, -(2**31), -LARGEST - 1]},
    "step_penalty": {"float": [-1e-9, -1.0, torch.nan, torch.inf, -torch.inf]},
    "diagonal_weight": {"float": [0.0, -0.0, -1.0, torch.nan, torch.inf, -torch.inf]},
    "normalize": {"Optional[str]": ["", "length", "Path", "steps "]},
    "gamma": {"float": [0.0, -0.0, -1.0, torch.nan, torch.inf, -torch.inf]},
    "epsilon": {"float": [0.0, -0.0, -1.0, torch.nan, torch.inf, -torch.inf]},
    "max_iterations": {"int": [0, -1, -LARGEST - 1]},
    "tolerance": {"float": [-1e-9, -1.0, -torch.inf, torch.nan]},
    "scaling": {"Optional[float]": [0.0, 1.0, -0.5, 2.0, torch.inf, torch.nan]},
}
EXTREME_OPTIONS = {
    name: [5e-324, 1e-300, 1e-40, 1e-30, 1e-20, 1e20, 1e30, 1e38, 1e300, 1.7e308]
    for name in ("gamma", "epsilon", "step_penalty", "diagonal_weight")
}
SAVED = ("out", "path", "f", "nearest")
# Options with which a call returns all that its gradient may need.
SAVES = ("save_nearest", "save_path", "save_potentials", "return_convergence")
