"""Every command, with every option wrong in many ways: one line that says so, and no traceback."""

import functools
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Any, get_args

import numpy as np
import pytest
import torch

from scav_model.cli import main
from scav_model.cli.tree import COMMANDS, leaves
from scav_model.cli.words import parameters, positional
from scav_model.data import FeatureSet
from tests.encoders.checkpoints import beats_file
from tests.index.test_cli_search import make_checkpoint, make_media

pytestmark = pytest.mark.slow

FUNCTIONS = dict(leaves(COMMANDS))
# Commands that take minutes when nothing is wrong, and the functions that do their work.
LONG = {
    ("demo", "shapes"): "scav_model.experiments.demo.run.run_demo",
    ("demo", "tunes"): "scav_model.experiments.tunes.run.run_tunes",
    ("combinations",): "scav_model.experiments.demo.combinations.run_combinations",
    ("train",): "scav_model.train.train",
    ("quickstart",): "scav_model.quickstart.quickstart",
    ("reproduce",): "scav_model.experiments.reproduce.reproduce",
    ("serve",): "scav_model.serve.run.run",
    ("probe", "active"): "scav_model.experiments.downstream.active.run_active",
    ("probe", "classify"): "scav_model.experiments.downstream.classify.run_classify",
    ("probe", "fingerprint"): "scav_model.experiments.downstream.fingerprint.run_fingerprint",
    ("probe", "sync"): "scav_model.experiments.downstream.sync.run_sync",
}
# What the last three take, which may train.
LONG_PREPARATION = "scav_model.experiments.downstream.models.prepare"
# Right values of options that have no default, or one that takes long.
RIGHT = {
    "candidates": "[10]",
    "checkpoint": "checkpoint.pt",
    "clips": "12",
    "factors": "[1]",
    "features": "features.safetensors",
    "ids": "clip-1",
    "index": "index",
    "lengths": "[1.0]",
    "listing": "list.csv",
    "media": "media",
    "metrics": "[pooled_cosine]",
    "modes": "[mean]",
    "out": "out",
    "queries": "2",
    "recording": "media/a.mp4",
    "repeats": "1",
    "results": "{a: results.json}",
    "source": "media",
    "store": "store",
    "strengths": "[0.5]",
    "train_features": "features.safetensors",
    "transformations": "[shift]",
    "video_rate_hz": "5",
    "audio_rate_hz": "5",
}
RIGHT_OF: dict[tuple[str, ...], dict[str, str | None]] = {
    ("extract",): {"workers": "0"},
    ("features", "convert"): {"source": "beats.pt"},
    ("features", "import"): {"format": "npz", "source": "arrays"},
    ("index", "build"): {"index": "new"},
    ("locate",): {"query": "media/a.mp4", "checkpoint": None},
    ("manifest", "music"): {"listing": "list.json"},
    ("probe", "compare"): {"metric": "pooled_cosine"},
    ("probe", "classify"): {"out": "probed"},
    ("probe", "fingerprint"): {"out": "probed", "transformations": "[crop]"},
    ("probe", "sync"): {"out": "probed"},
    ("quickstart",): {"folder": "media"},
    ("reproduce",): {"dataset": "music"},
    ("serve",): {"checkpoint": None, "port": "0"},
    ("search",): {"candidates": "10", "features": None, "query": "clip-1"},
}
HUGE = "9" * 40
NUMBERS = ("", ".nan", "-1", "0", HUGE, "many", "[1]")
TEXTS = ("", "no such thing", "a\0b", "\udcff\n\u202e")
BAD_PATHS = ("", "a\0b", "n" * 300, "list.csv/x")
PATHS = (*BAD_PATHS, "nothing", "empty", "empty.txt", "index", "store", "run", "media/a.mp4")
OTHERS = ("", "[", "[[]]", "[-1]", "[.nan]", f"[{HUGE}]", "{a: {b: 1}}")


def wrong_values(words: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Return values that an option of that type is given by mistake; some are right for some options."""
    annotation = parameters(FUNCTIONS[words])[name].annotation
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if Path in kinds:
        return BAD_PATHS if name == "out" else PATHS
    if int in kinds or float in kinds:
        return NUMBERS
    return TEXTS if str in kinds else OTHERS


def cases() -> Iterator[tuple[tuple[str, ...], str]]:
    for words, function in FUNCTIONS.items():
        for name, entry in parameters(function).items():
            if entry.default is not False and name != "config":
                yield words, name


def command_line(words: tuple[str, ...], name: str | None = None, value: str = "") -> list[str]:
    """Return a right command line, in which one option may have another value."""
    right = RIGHT | RIGHT_OF.get(words, {}) | ({} if name is None else {name: value})
    wanted = [entry for entry in parameters(FUNCTIONS[words]) if right.get(entry) is not None]
    arguments = [str(right[entry]) for entry in wanted if entry in positional(FUNCTIONS[words])]
    options = [f"--{entry}={right[entry]}" for entry in wanted if entry not in positional(FUNCTIONS[words])]
    return [*words, *options, "--", *arguments]


def exit_code(arguments: list[str]) -> Any:
    try:
        return main(arguments)
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of the commands."""
    folder = tmp_path_factory.mktemp("things")
    for name in ("media", "arrays", "empty", "run"):
        (folder / name).mkdir()
    make_media(folder / "media" / "a.mp4", 500, seconds=0.4)
    np.savez(folder / "arrays" / "x.npz", video=np.ones((3, 4), np.float32), audio=np.ones((3, 4), np.float32))
    (folder / "empty.txt").touch()
    for name in ("classify", "fingerprint", "sync"):
        (folder / "probed" / name).mkdir(parents=True)
        (folder / "probed" / name / "table.md").touch()
    (folder / "list.csv").write_text("a,0,dog,test\n")
    (folder / "list.json").write_text('{"videos": {"violin": ["a"]}}')
    clips = [f"clip-{number}" for number in range(12)]
    FeatureSet(clips, list(torch.rand(12, 3, 6)), list(torch.rand(12, 4, 5))).save(folder / "features.safetensors")
    make_checkpoint(folder / "checkpoint.pt", 6, 5)
    shutil.copyfile(folder / "checkpoint.pt", folder / "run" / "checkpoint.pt")
    beats_file(folder / "beats.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words, name, value in (
            (("index", "build"), "index", "index"),
            (("features", "import"), "out", "store"),
            (("probe", "temporal"), "out", "temporal"),
        ):
            assert main(command_line(words, name, value)) == 0
        shutil.move("temporal/results.json", "results.json")
    return folder


def skipped(place: str) -> Callable[..., SimpleNamespace]:
    """Return a function of the same signature that does nothing."""
    module, _, name = place.rpartition(".")
    function = getattr(import_module(module), name)
    return functools.wraps(function)(lambda *arguments, **options: SimpleNamespace(history=[], seconds=0.0))


@pytest.fixture
def here(things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with these things in it."""
    monkeypatch.chdir(shutil.copytree(things, tmp_path / "here"))
    for function in (LONG_PREPARATION, *LONG.values()):
        monkeypatch.setattr(function, skipped(function))
    return tmp_path / "here"


@pytest.mark.parametrize("words", [*FUNCTIONS], ids=" ".join)
def test_the_right_values_are_right(words: tuple[str, ...], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(command_line(words)) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "name"), [*cases()], ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_a_wrong_value_is_one_line(
    words: tuple[str, ...], name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in wrong_values(words, name):
        code = exit_code(command_line(words, name, value))
        told = capsys.readouterr().err
        errors = [line for line in told.splitlines() if line.startswith("scav ") and " error: " in line]
        assert code in (0, 1, 2), (value, told)
        assert len(errors) == (code != 0), (value, told)
        assert "Traceback" not in told
        assert "a fault in scav" not in told, (value, told)
        for left in ("out", "new"):
            shutil.rmtree(left, ignore_errors=True)
