"""Commands whose functions lie in other modules, which are imported when the command is chosen.

Options, defaults and help are those of the function, so that they are written once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from operator import attrgetter
from typing import Any

import docstring_parser

EXPERIMENT = "scav_model.experiments.probes.experiment:Experiment.load"


def find(place: str) -> Callable[..., Any]:
    """Return the function at `module:name`."""
    module, _, name = place.partition(":")
    function: Callable[..., Any] = attrgetter(name)(import_module(module))
    return function


class Imported:
    """The command that calls the function at `module:name`."""

    def __init__(self, place: str, summary: str) -> None:
        self.place, self.__doc__ = place, summary

    def functions(self) -> list[Callable[..., Any]]:
        """Return the functions whose parameters the command takes."""
        return [find(self.place)]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(find(self.place), eval_str=True)

    def __call__(self, **values: Any) -> None:
        find(self.place)(**values)


class Probe(Imported):
    """The command that calls an experiment's function, whose first parameter is the `Experiment`, and prints its table.

    It takes the parameters of `Experiment.load` in place of the first.
    """

    def __init__(self, place: str, summary: str, picture: str) -> None:
        super().__init__(place, summary)
        self.picture = picture

    def functions(self) -> list[Callable[..., Any]]:
        return [find(EXPERIMENT), find(self.place)]

    @property
    def __signature__(self) -> inspect.Signature:
        loading, running = (inspect.signature(each, eval_str=True).parameters for each in self.functions())
        entries = {**loading, **running}
        del entries["experiment"]
        wanted = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in entries.values()]
        return inspect.Signature(wanted)

    def __call__(self, **values: Any) -> None:
        load, run = self.functions()
        experiment = load(**{name: values.pop(name) for name in inspect.signature(load).parameters})
        run(experiment, **values)
        print((values["out"] / "table.md").read_text(encoding="utf-8"), end="")
        print(f"{values['out']}/results.json, table.md and {self.picture} written")


class Manifest(Imported):
    """The command that writes the clips that a function lists to a manifest; it takes `out` besides."""

    def functions(self) -> list[Callable[..., Any]]:
        return [find(self.place), find("scav_model.cli.data:write_listing")]

    @property
    def __signature__(self) -> inspect.Signature:
        listing, writing = (inspect.signature(each, eval_str=True) for each in self.functions())
        out = writing.parameters["out"].replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return inspect.Signature([*listing.parameters.values(), out])

    def __call__(self, **values: Any) -> None:
        list_clips, write = self.functions()
        out = values.pop("out")
        write(list_clips(**values), out)


def functions(command: Callable[..., None]) -> list[Callable[..., Any]]:
    """Return the functions whose parameters a command takes."""
    return command.functions() if isinstance(command, Imported) else [command]


def documented(functions: Sequence[Callable[..., Any]]) -> dict[str, str]:
    """Return the help of each parameter, as the docstrings of the functions have it."""
    return {
        entry.arg_name: entry.description or ""
        for function in functions
        for entry in docstring_parser.parse(function.__doc__ or "").params
    }
