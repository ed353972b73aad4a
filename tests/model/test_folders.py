"""One process at a time works in a folder; what a killed one left does not disturb the next."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from processes import ENVIRONMENT, torchrun

from scav_model import checkpoint
from scav_model.cli import main
from scav_model.config import Config, ModelConfig, OptimConfig, RetrievalConfig, to_dict
from scav_model.model import AudioVisualModel
from scav_model.storage.files import LOCK, FolderInUseError, working_in
from scav_model.training import CHECKPOINT, train

pytestmark = pytest.mark.slow

SIZES = {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4}
CONFIG = Config(
    tensorboard=False,
    model=ModelConfig(**SIZES),
    optim=OptimConfig(epochs=2, batch_size=16),
    retrieval=RetrievalConfig(every=0),
)


def test_one_process_at_a_time(tmp_path):
    folder = tmp_path / "run"
    with working_in(folder, "trains"):
        with pytest.raises(FolderInUseError, match=rf"another process trains in {folder}; wait for it to end"):
            working_in(folder, "trains").__enter__()
        assert [path.name for path in folder.iterdir()] == [LOCK]
    assert not list(folder.iterdir())
    with working_in(folder, "trains"):
        pass


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """The holder ends, and removes the file, between the next one's opening it and its locking it."""
    import fcntl

    flock, names = fcntl.flock, []

    def late(descriptor, how):
        flock(descriptor, how)
        if not names:
            names.append(descriptor)
            (tmp_path / LOCK).unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with working_in(tmp_path, "trains"), pytest.raises(FolderInUseError):
        working_in(tmp_path, "trains").__enter__()


@pytest.fixture
def commands(train_features, eval_features, tmp_path):
    features = tmp_path / "features"
    train_features.save(features / "train.safetensors")
    eval_features.save(features / "test.safetensors")
    AudioVisualModel(replace(CONFIG.model, visual_input=6, audio_input=5)).save_pretrained(tmp_path / "model")
    out, trained = f"--out={tmp_path / 'out'}", f"--train_features={features / 'train.safetensors'}"
    probe = [f"--checkpoint={tmp_path / 'model'}", f"--features={features / 'test.safetensors'}", out]
    (tmp_path / "small.json").write_text(json.dumps(to_dict(CONFIG)))
    return {
        "train": ["train", f"--config={tmp_path / 'small.json'}", trained, out],
        "demo": ["demo", "--quick", out],
        "combinations": ["combinations", f"--features={features}", out],
        "reproduce": ["reproduce", "vggsound", f"--features={features}", out],
        "temporal": ["probe", "temporal", *probe],
        "ablation": ["probe", "ablation", *probe],
        "efficiency": ["probe", "efficiency", *probe],
    }


@pytest.mark.parametrize(
    "command", ["train", "demo", "combinations", "reproduce", "temporal", "ablation", "efficiency"]
)
def test_commands_leave_a_folder_in_use_alone(command, commands, tmp_path, capsys):
    with working_in(tmp_path / "out", "trains"):
        assert main(commands[command]) == 1
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    errors = capsys.readouterr().err
    assert f"error: another process {'trains' if command == 'train' else ''}" in errors
    assert f" in {tmp_path / 'out'}; wait for it to end, stop it, or choose another folder" in errors
    assert len([line for line in errors.splitlines() if "error" in line]) == 1


def start(command, out):
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (out / CHECKPOINT).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1]
    return process


@pytest.mark.parametrize("processes", [1, 2])
def test_two_runs_in_a_folder(processes, commands, train_features, tmp_path):
    """The second is refused; after the first is killed, the next takes over and removes what it was writing."""
    out = tmp_path / "out"
    command = ["-m", "scav_model.cli", *commands["train"], "--optim.epochs=100000"]
    process = start([sys.executable, *command] if processes == 1 else torchrun(*command), out)
    try:
        for options in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(FolderInUseError, match=f"another process trains in {out}"):
                train(CONFIG, train_features, out=out, progress=False, **options)
    finally:
        # The processes of torchrun outlive it, and it does not outlive them.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in children if processes > 1 else [process.pid]:
            os.kill(int(pid), signal.SIGKILL)
        process.communicate(timeout=60)
    (out / f".{CHECKPOINT}.1.partial").write_bytes(b"half")
    assert (out / LOCK).exists()
    checkpoint.load(out / CHECKPOINT)
    train(CONFIG, train_features, out=out, overwrite=True, progress=False)
    assert {path.name for path in out.iterdir()} == {CHECKPOINT, "config.yaml"}


def test_all_processes_of_torchrun_are_refused(commands, tmp_path):
    with working_in(tmp_path / "out", "trains"):
        done = subprocess.run(
            torchrun("-m", "scav_model.cli", *commands["train"]), env=ENVIRONMENT, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"scav train: error: another process trains in {tmp_path / 'out'}" in done.stderr
    assert not (tmp_path / "out" / CHECKPOINT).exists()
