"""A run's folder: the settings that its results were made with, and what an interrupted run left there.

Every experiment writes its settings beside its results. It refuses a folder that holds something else, an earlier run
that is not to be resumed, or a run with other settings. A resumed run keeps the results that are finished, and goes on
from the checkpoint of the model that was being trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from scav_model import parallel
from scav_model.config import Config
from scav_model.data import Features
from scav_model.experiments.tables import read_json, read_object, write_json
from scav_model.storage.files import LOCK
from scav_model.training import CHECKPOINT, TrainResult, train

Settings = Mapping[str, Any]
T = TypeVar("T")


def as_stored(settings: Settings) -> dict[str, Any]:
    """Return `settings` as JSON gives them back: lists for tuples."""
    return json.loads(json.dumps(settings))


def prepare_folder(folder: Path, stamp: str, settings: Settings, *, resume: bool, anew: str) -> None:
    """Make `folder` the place of a run with these settings, which are written to the file `stamp`.

    Args:
        folder: where the results go; made if need be.
        stamp: name of the file that holds the settings.
        settings: plain values that the results depend on.
        resume: go on with an earlier run that has the same settings.
        anew: how to start anew, as an error message says it.

    Raises:
        FileExistsError: the folder holds something else, or an earlier run that is not to be resumed.
        ValueError: it holds a run with other settings.
    """
    path = folder / stamp
    if is_used(folder) and not path.exists():
        raise FileExistsError(f"{folder} holds something else: it has no {stamp}; choose another folder")
    if path.exists():
        check_earlier_run(path, read_object(path), settings, resume=resume, anew=anew)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, as_stored(settings))


def is_used(folder: Path) -> bool:
    """Return True if the folder holds more than the lock of the process that works there."""
    return folder.exists() and any(file.name != LOCK for file in folder.iterdir())


def check_earlier_run(path: Path, found: Settings, expected: Settings, *, resume: bool, anew: str) -> None:
    """Refuse an earlier run that is not to be resumed, or that has other settings.

    Raises:
        FileExistsError: it is not to be resumed.
        ValueError: it has other settings.
    """
    if not resume:
        refuse_earlier_run(path, "resume it", anew)
    check_settings(path, found, expected, anew=anew)


def refuse_earlier_run(path: Path, *ways: str) -> None:
    """Raise FileExistsError if the file `path` of an earlier run exists; the message lists the ways to go on."""
    if path.exists():
        raise FileExistsError(f"{path} holds an earlier run; {', '.join(ways)}, or choose another folder")


def check_settings(path: Path, found: Settings, expected: Settings, *, anew: str) -> None:
    """Raise ValueError if the settings found in `path` are not those expected, and list those that differ."""
    differing = [
        f"{name}: there {found.get(name)!r}, now {value!r}"
        for name, value in as_stored(expected).items()
        if found.get(name) != value
    ]
    if differing:
        raise ValueError(
            f"{path} holds a run with other settings ({'; '.join(differing)}); "
            f"repeat them, {anew}, or choose another folder"
        )


def train_once(
    path: Path,
    config: Config,
    features: Features,
    search: Callable[[TrainResult], T],
    announce: Callable[[], object],
    *,
    resume: bool = True,
) -> T | None:
    """Return the results in the file `path`; if they are not there yet, train a model in its folder and search with it.

    Under torchrun all processes train, and the first one searches and writes the file.

    Args:
        path: results of a finished model, as JSON.
        config: settings of the training run.
        features: clips to train on.
        search: makes the results, plain values, from the trained model.
        announce: called in the first process, before the model is trained.
        resume: keep finished results and go on from the folder's checkpoint; else train anew.

    Returns:
        The results; None in a process that is not the first, if the model was trained now.
    """
    if resume and parallel.from_first(path.exists()):
        return read_json(path)
    if parallel.rank() == 0:
        announce()
    unfinished = parallel.from_first((path.parent / CHECKPOINT).exists())
    trained = train(config, features, out=path.parent, resume=resume and unfinished, overwrite=unfinished)
    if parallel.rank():
        return None
    results = search(trained)
    write_json(path, results)
    return results
