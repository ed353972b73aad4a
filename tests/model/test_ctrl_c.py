"""Ctrl-C ends every command that trains or measures, in seconds, and nothing is left running."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from processes import ENVIRONMENT, torchrun

from scav_model import checkpoint
from scav_model.cli import main
from scav_model.config import ModelConfig
from scav_model.data import FeatureSet
from scav_model.model import AudioVisualModel
from scav_model.training import CHECKPOINT

pytestmark = pytest.mark.slow

SIZES = {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4}
SETTINGS = {
    "tensorboard": False,
    "model": SIZES,
    "optim": {"epochs": 2000, "batch_size": 16},
    "retrieval": {"every": 0},
}
SECONDS = 15


def session(process: subprocess.Popen) -> list[str]:
    """Processes that are left of a command, its workers too."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                fields = (path / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            # State, parent, group, session.
            if int(fields[3]) == process.pid and fields[0] != "Z":
                found.append(path.name)
    return found


def interrupt(command: list[str], started: Path, *, group: bool, code: int = 130) -> str:
    """Presses Ctrl-C once `started` is there; what the command prints to stderr."""
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not list(started.parent.glob(started.name)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert process.poll() is None, process.communicate()[1]
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    try:
        errors = process.communicate(timeout=SECONDS)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code, errors
    deadline = time.monotonic() + SECONDS
    while session(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not session(process)
    return errors


@pytest.fixture
def options(train_features, eval_features, tmp_path):
    """Options of every command, on features of two splits; `waits` names a file that shows that it is at work."""
    features = tmp_path / "features"
    train_features.save(features / "train.safetensors")
    eval_features.save(features / "test.safetensors")
    out = tmp_path / "out"
    small = tmp_path / "small.yaml"
    small.write_text(json.dumps(SETTINGS))
    trained = f"--train_features={features / 'train.safetensors'}"
    return {
        "train": (["train", f"--config={small}", trained, f"--out={out}"], out / CHECKPOINT),
        "reproduce": (
            ["reproduce", "vggsound", f"--features={features}", f"--settings={small}", f"--out={out}"],
            out / "cav" / CHECKPOINT,
        ),
        "combinations": (
            ["combinations", f"--features={features}", f"--out={out}", "--epochs=1000"],
            out / "cav-batch" / CHECKPOINT,
        ),
        "demo shapes": (
            ["demo", "shapes", "--quick", f"--out={out}", "--threads=2"],
            out / "seed-0" / "clips" / "train" / "*.mp4",
        ),
        "demo tunes": (
            ["demo", "tunes", "--quick", f"--out={out}", "--threads=2"],
            out / "engravings" / "*.npz",
        ),
    }


def scav(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "scav_model.cli", *arguments]


@pytest.mark.parametrize(
    ("command", "group"),
    [
        ("train", False),
        ("train", True),
        ("reproduce", True),
        ("combinations", False),
        ("demo shapes", True),
        ("demo shapes", False),
        ("demo tunes", True),
        ("demo tunes", False),
    ],
)
def test_one_ctrl_c_ends_a_command_that_can_be_resumed(command, group, options, tmp_path):
    if command == "demo tunes":
        for package in ("music21", "verovio", "resvg_py"):
            if find_spec(package) is None:
                pytest.skip(f"needs {package}")
    arguments, started = options[command]
    errors = interrupt(scav(arguments), started, group=group)
    assert f"scav {command}: interrupted; --resume keeps what is finished" in errors
    assert "Traceback" not in errors
    left = [path.name for path in tmp_path.glob("out/**/.*")]
    assert not [name for name in left if name.endswith(".partial") or name == ".lock"], left
    # An engraving that was under way is no failure.
    assert not [*tmp_path.glob("out/**/*.failed")]
    for path in tmp_path.glob(f"out/**/{CHECKPOINT}"):
        assert checkpoint.load(path)["epoch"] >= 1


def test_one_ctrl_c_ends_a_probe_that_can_be_resumed(train_features, tmp_path):
    sizes = ModelConfig(**SIZES, visual_input=6, audio_input=5)
    AudioVisualModel(sizes).save_pretrained(tmp_path / "model")
    clips = FeatureSet(
        [f"clip{number}" for number in range(960)], [*train_features.video] * 20, [*train_features.audio] * 20
    )
    clips.save(tmp_path / "clips.safetensors")
    command = scav(["probe", "temporal", f"--checkpoint={tmp_path / 'model'}", f"--out={tmp_path / 'out'}"])
    command += [f"--features={tmp_path / 'clips.safetensors'}", "--metrics=[sinkhorn]"]
    errors = interrupt(command, tmp_path / "out" / "results.json", group=False)
    assert "scav probe temporal: interrupted; --resume keeps what is finished" in errors
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(options, tmp_path, capsys):
    arguments, _ = options["train"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.yaml").write_text("{}")
    short = [*arguments, "--optim.epochs=1", "--resume"]
    assert main(short) == 0, capsys.readouterr().err
    assert checkpoint.load(out / CHECKPOINT)["epoch"] == 1


@pytest.mark.parametrize("group", [True, False])
def test_one_ctrl_c_ends_all_processes_of_torchrun(group, options, tmp_path):
    arguments, started = options["train"]
    interrupt(torchrun("-m", "scav_model.cli", *arguments), started, group=group, code=1)
    assert checkpoint.load(tmp_path / "out" / CHECKPOINT)["epoch"] >= 1
    assert not (tmp_path / "out" / ".lock").exists()
