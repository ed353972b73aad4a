"""Table of commands: the words and the function that they call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from scav_model.cli import data, models, search
from scav_model.cli.doctor import doctor
from scav_model.cli.imported import Downstream, Imported, Manifest, Probe
from scav_model.cli.locate import locate


@dataclass(frozen=True)
class Group:
    """Commands that share a first word: `scav GROUP COMMAND`."""

    summary: str  # one line of help
    commands: Commands
    default: str | None = None  # the command that options without a command belong to


Command: TypeAlias = Callable[..., None]
Commands: TypeAlias = Mapping[str, Command | Group]

DATASETS = "scav_model.data.datasets"
PROBES = "scav_model.experiments.probes"
DOWNSTREAM = "scav_model.experiments.downstream"

QUICKSTART = Imported(
    "scav_model.quickstart:quickstart",
    "Makes a folder of videos searchable: features, a small model, an index and a first search as a page.",
)
COMMANDS: Commands = {
    "quickstart": QUICKSTART,
    "demo": Group(
        "Makes clips with sound, trains CAV and three SCAV models on them and compares their retrieval.",
        {
            "shapes": Imported(
                "scav_model.experiments.demo.run:run_demo",
                "Clips of objects that flash when they sound, drawn by code; `scav demo` alone runs this.",
            ),
            "tunes": Imported(
                "scav_model.experiments.tunes.run:run_tunes",
                "Clips of fiddle tunes, engraved and played: a score that moves, and a synthesizer's sound.",
            ),
        },
        default="shapes",
    ),
    "manifest": Group(
        "Makes manifests of data sets' lists and of folders.",
        {
            "vggsound": Manifest(
                f"{DATASETS}:vggsound",
                "Makes a manifest of VGGSound's csv and a folder of its videos; says which are missing.",
            ),
            "music": Manifest(
                f"{DATASETS}:music",
                "Makes a manifest of MUSIC's or MUSIC21's json and a folder of its videos; says which are missing.",
            ),
            "folder": Manifest(
                f"{DATASETS}:folder", "Makes a manifest of a plain folder of media files, [SPLIT/][LABEL/]NAME.mp4."
            ),
        },
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
    "reproduce": Imported(
        "scav_model.experiments.reproduce:reproduce",
        "Trains and searches every row of the paper's table and sets what it measures beside what was published.",
    ),
    "combinations": Imported(
        "scav_model.experiments.demo.combinations:run_combinations",
        "Trains every distance with every source of negatives, with and without auxiliary tasks, on the demo's clips.",
    ),
    "probe": Group(
        "Experiments on a trained model.",
        {
            "temporal": Probe(
                f"{PROBES}.temporal:run_temporal",
                "Shifts, rolls, crops, warps, reverses and permutes test clips in time: recall against the strength, "
                "by metric.",
                "recall.png",
            ),
            "ablation": Probe(
                f"{PROBES}.ablation:run_ablation",
                "Recall by distance, sequence length, resolution and interpolation direction, of one model without "
                "training.",
                "recall.png",
            ),
            "efficiency": Probe(
                f"{PROBES}.efficiency:run_efficiency",
                "Recall against time and pairs compared: by mean, hybrid over its candidates, exact with bounds and "
                "without.",
                "curve.png",
            ),
            "classify": Downstream(
                f"{DOWNSTREAM}.classify:run_classify",
                "Classifies clips by frozen embeddings, with a linear probe and nearest neighbors; trains models with "
                "and without the temporal tasks, or takes checkpoints.",
                "classify",
            ),
            "fingerprint": Downstream(
                f"{DOWNSTREAM}.fingerprint:run_fingerprint",
                "Finds clips again after a second encoding, a crop, a cut, noise, and changes of speed and pitch.",
                "fingerprint",
            ),
            "sync": Downstream(
                f"{DOWNSTREAM}.sync:run_sync",
                "Finds the offset between a clip's sound and picture from distances between sequences.",
                "sync",
            ),
            "active": Imported(
                f"{DOWNSTREAM}.active:run_active",
                "Trains with random and actively selected dictionaries on training sets with more and more copies.",
            ),
            "compare": Imported(
                f"{PROBES}.compare:run_compare",
                "Draws finished temporal experiments of several models into one picture.",
            ),
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
    "locate": locate,
    "serve": Imported("scav_model.serve.run:serve", "Serves a page on which to search an index, until Ctrl-C."),
    "doctor": doctor,
}
# Commands that, given once more, go on where they were stopped.
CONTINUED: frozenset[Command] = frozenset(
    {QUICKSTART, data.extract, data.features_import, search.index_build, search.index_add}
)


def leaves(commands: Commands, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """The words of every command that can be run, and its function."""
    for name, entry in commands.items():
        if isinstance(entry, Group):
            yield from leaves(entry.commands, (*before, name))
        else:
            yield (*before, name), entry
