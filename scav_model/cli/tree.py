"""Table of commands: the words and the function that they call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from scav_model.cli import data, models, probe, search
from scav_model.cli.combinations import combinations
from scav_model.cli.doctor import doctor


@dataclass(frozen=True)
class Group:
    """Commands that share a first word: `scav GROUP COMMAND`."""

    summary: str  # one line of help
    commands: Commands


Command: TypeAlias = Callable[..., None]
Commands: TypeAlias = Mapping[str, Command | Group]

COMMANDS: Commands = {
    "demo": models.demo,
    "manifest": Group(
        "Makes manifests of data sets' lists and of folders.",
        {"vggsound": data.manifest_vggsound, "music": data.manifest_music, "folder": data.manifest_folder},
    ),
    "extract": data.extract,
    "features": Group(
        "Looks at, checks and imports feature stores.",
        {
            "info": data.features_info,
            "verify": data.features_verify,
            "import": data.features_import,
            "convert": data.features_convert,
        },
    ),
    "train": models.train,
    "evaluate": models.evaluate,
    "reproduce": models.reproduce,
    "combinations": combinations,
    "probe": Group(
        "Experiments on a trained model.",
        {
            "temporal": probe.temporal,
            "ablation": probe.ablation,
            "efficiency": probe.efficiency,
            "compare": probe.compare,
        },
    ),
    "index": Group(
        "Makes, changes, checks and measures search indexes.",
        {
            "build": search.index_build,
            "add": search.index_add,
            "delete": search.index_delete,
            "info": search.index_info,
            "verify": search.index_verify,
            "tune": search.index_tune,
        },
    ),
    "search": search.search,
    "doctor": doctor,
}
# Commands that, given once more, go on where they were stopped.
CONTINUED: frozenset[Command] = frozenset({data.extract, data.features_import, search.index_build, search.index_add})


def leaves(commands: Commands, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """The words of every command that can be run, and its function."""
    for name, entry in commands.items():
        if isinstance(entry, Group):
            yield from leaves(entry.commands, (*before, name))
        else:
            yield (*before, name), entry
