"""Several processes train as one does."""

import json
import os
import random
import signal
import subprocess
import time
from itertools import chain
from pathlib import Path

import pytest
import torch
from processes import ENVIRONMENT, run, torchrun

from scav_model import checkpoint, parallel
from scav_model.config import Config, from_dict
from scav_model.training import CHECKPOINT, train
from scav_model.training.launch import launch
from tests.model.gradients import gradients, history

pytestmark = pytest.mark.slow

TIMES = ("seconds", "clips_per_second")
EPOCHS = 20
SETTINGS = {
    "model": {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4},
    "loss": {"metric": "soft_dtw", "options": {"gamma": 0.5}},
    # Shares of 7 and 8, of which some chunks have one clip.
    "optim": {"batch_size": 15, "learning_rate": 3e-3, "ema": 0.9, "epochs": EPOCHS},
    "compute": {"chunk": 3},
    "checkpoints": {"every": 2},
    "retrieval": {"every": 0},
    "tensorboard": False,
}


def arguments(train_file: Path, out: Path) -> list[str]:
    config = json.dumps(SETTINGS)
    return ["-m", "scav_model.train", f"--config={config}", f"--train_features={train_file}", f"--out={out}"]


def losses(folder: Path) -> list[dict]:
    history = checkpoint.load(folder / CHECKPOINT)["history"]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in history]


def test_the_parts_of_a_batch_make_it_up(monkeypatch):
    for size in (2, 7, 32):
        for world in (1, 2, 3):
            monkeypatch.setattr(parallel, "world_size", lambda world=world: world)
            parts = []
            for rank in range(world):
                monkeypatch.setattr(parallel, "rank", lambda rank=rank: rank)
                parts.append(list(parallel.share(range(size))))
            assert list(chain(*parts)) == list(range(size))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_loss_and_gradients_are_those_of_one_process(tmp_path):
    """Three processes, 7 and 10 ragged clips: shares of unequal size and length."""
    cases = [("interpolated_euclidean", 7), ("soft_dtw", 10), ("pooled_cosine", 7)]
    asked = [str(part) for case in cases for part in case]
    printed = run(torchrun("-m", "tests.model.gradients", tmp_path / "found.pt", *asked, processes=3))
    # One that is still at work when the interpreter ends may abort its process.
    assert printed.count("left: 0") == 3, printed
    found = torch.load(tmp_path / "found.pt")
    assert found["history"] == pytest.approx(history(), rel=1e-4)
    fabric = launch(Config())
    for metric, clips in cases:
        expected = gradients(metric, clips, fabric)
        actual = found[f"{metric} {clips}"]
        assert expected["loss"].item() != 0
        for name, value in expected.items():
            torch.testing.assert_close(actual[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def test_when_a_process_is_killed_all_end_and_resume(feature_files, train_features, tmp_path):
    """With dropout, which each process draws for itself, one of them killed at any moment."""
    train_file, _ = feature_files
    run(torchrun(*arguments(train_file, tmp_path / "whole")))
    command = torchrun(*arguments(train_file, tmp_path / "killed"))
    launcher = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while not (tmp_path / "killed" / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(random.random() / 2)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(random.choice(children)), signal.SIGKILL)
    launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    stopped = checkpoint.load(tmp_path / "killed" / CHECKPOINT)
    assert stopped["epoch"] < EPOCHS
    run([*torchrun(*arguments(train_file, tmp_path / "killed")), "--resume"])
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    with pytest.raises(ValueError, match="processes: checkpoint 2, now 1"):
        train(from_dict(Config, stopped["config"]), train_features, out=tmp_path / "killed", resume=True)
