"""Commands whose options are those of functions in other modules, which are imported when the command is chosen.

Options, defaults and help are written once, with the function that they belong to.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, TypeAlias

import docstring_parser


def find(place: str | Callable[..., Any]) -> Callable[..., Any]:
    """Return the function at `module:name`; a function is returned as it is."""
    if not isinstance(place, str):
        return place
    module, _, name = place.partition(":")
    function: Callable[..., Any] = attrgetter(name)(import_module(module))
    return function


@dataclass(frozen=True)
class Part:
    """A function, or a class of settings, whose parameters are options of a command.

    The command itself passes the parameters that it has too, and those named in `passed`.
    """

    place: str
    passed: tuple[str, ...] = ()


Source: TypeAlias = tuple[Callable[..., Any], dict[str, inspect.Parameter]]


class Imported:
    """The command that calls the function at `module:name`, or a function itself.

    The function receives each part with the values of its options filled in, as a `functools.partial`.
    """

    def __init__(self, place: str | Callable[..., Any], summary: str, **parts: Part) -> None:
        self.place, self.__doc__, self.parts = place, summary, parts

    def sources(self) -> list[Source]:
        """Return the command's function and those of its parts, with the parameters that are options."""
        function = find(self.place)
        own = {name: entry for name, entry in parameters(function).items() if name not in self.parts}
        found, taken = [(function, own)], set(own)
        for part in self.parts.values():
            function = find(part.place)
            entries = {
                name: entry.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for name, entry in parameters(function).items()
                if name not in taken and name not in part.passed
            }
            found.append((function, entries))
            taken |= set(entries)
        return found

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.Signature([entry for _, entries in self.sources() for entry in entries.values()])

    def bound(self, values: dict[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return the command's function and its arguments."""
        (function, own), *parts = self.sources()
        arguments = {name: values[name] for name in own}
        for name, (part, entries) in zip(self.parts, parts, strict=True):
            arguments[name] = functools.partial(part, **{entry: values[entry] for entry in entries})
        return function, arguments

    def __call__(self, **values: Any) -> None:
        function, arguments = self.bound(values)
        function(**arguments)


def takes(**parts: Part) -> Callable[[Callable[..., None]], Imported]:
    """Make a function a command of these parts, each of which is one of its parameters."""
    return lambda function: Imported(function, function.__doc__ or "", **parts)


class Probe(Imported):
    """The command that calls an experiment's function, whose first parameter is the `Experiment`, and prints its table.

    It takes the parameters of `Experiment.load` in place of the first.
    """

    def __init__(self, place: str, summary: str, picture: str) -> None:
        super().__init__(place, summary, experiment=Part("scav_model.experiments.probes.experiment:Experiment.load"))
        self.picture = picture

    def __call__(self, **values: Any) -> None:
        run, arguments = self.bound(values)
        load = arguments.pop("experiment")
        run(load(), **arguments)
        print((values["out"] / "table.md").read_text(encoding="utf-8"), end="")
        print(f"{values['out']}/results.json, table.md and {self.picture} written")


class Downstream(Imported):
    """The command that calls an experiment's function, whose first parameter is the `Comparison`, and prints its table.

    It takes the parameters of `prepare`, which makes the comparison, in place of the first.
    """

    def __init__(self, place: str, summary: str, folder: str) -> None:
        super().__init__(place, summary, comparison=Part("scav_model.experiments.downstream.models:prepare"))
        self.folder = folder

    def __call__(self, **values: Any) -> None:
        run, arguments = self.bound(values)
        prepare = arguments.pop("comparison")
        run(prepare(), **arguments)
        out = values["out"] / self.folder
        print((out / "table.md").read_text(encoding="utf-8"), end="")
        print(f"{out}/results.json, table.md and {values['out']}/rows.json written")


class Manifest(Imported):
    """The command that writes the clips that a function lists to a manifest; it takes `out` besides."""

    def __init__(self, place: str, summary: str) -> None:
        super().__init__(place, summary, write=Part("scav_model.cli.data:write_listing", ("made",)))

    def __call__(self, **values: Any) -> None:
        list_clips, arguments = self.bound(values)
        write = arguments.pop("write")
        write(list_clips(**arguments))


def sources(command: Callable[..., None]) -> list[Source]:
    """Return the functions that a command's options belong to, with the parameters that are options."""
    return command.sources() if isinstance(command, Imported) else [(command, parameters(command))]


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function, eval_str=True).parameters)


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """Return the help of each parameter, as the function's docstring has it."""
    return {entry.arg_name: entry.description or "" for entry in docstring_parser.parse(function.__doc__ or "").params}
