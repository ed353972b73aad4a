"""A run that is killed outright, at a random step, and resumed."""

import json
import random
import signal
import subprocess
import sys

import pytest
import torch
from processes import ENVIRONMENT

from scav_model import checkpoint
from scav_model.config import Config, from_dict
from scav_model.training import CHECKPOINT, train

pytestmark = pytest.mark.slow

# The command, but the process kills itself as it enters a step.
PROGRAM = """
import os, signal, sys
from scav_model.cli import main
from scav_model.training.run import Run

step, arguments = int(sys.argv[1]), sys.argv[2:]
take_step = Run.take_step

def killed(run, clips):
    if run.steps_done == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(run, clips)

Run.take_step = killed
main(["train", *arguments])
"""
SETTINGS = {
    "seed": 4,
    "tensorboard": False,
    "model": {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4},
    # 6 steps of 2 batches an epoch.
    "optim": {"batch_size": 4, "accumulate": 2, "epochs": 4, "ema": 0.9},
    "checkpoints": {"every": 4},
    "retrieval": {"every": 2},
}
TIMES = ("seconds", "clips_per_second")


def test_killed_at_a_random_step_and_resumed(train_features, eval_features, feature_files, tmp_path):
    """The losses, the recalls and every bit of the weights are those of the run that was let alone."""
    step = random.randrange(4, 24)
    arguments = [f"--config={json.dumps(SETTINGS)}", f"--train_features={feature_files[0]}"]
    arguments += [f"--eval_features={feature_files[1]}", f"--out={tmp_path / 'killed'}"]
    command = [sys.executable, "-c", PROGRAM, str(step), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    stopped = checkpoint.load(tmp_path / "killed" / CHECKPOINT)
    # After each epoch's 6 steps, and after every fourth.
    assert stopped["epoch"] * 6 + stopped["step"] == max(x for x in (4, 6, 8, 12, 16, 18, 20) if x <= step), step

    config = from_dict(Config, SETTINGS)
    given = {"eval_features": eval_features, "progress": False}
    train(config, train_features, out=tmp_path / "killed", resume=True, **given)
    train(config, train_features, out=tmp_path / "whole", **given)
    resumed, whole = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("killed", "whole"))
    for one, other in zip(resumed["history"], whole["history"], strict=True):
        assert {k: v for k, v in one.items() if k not in TIMES} == {k: v for k, v in other.items() if k not in TIMES}
    for part in ("model", "average", "objective"):
        assert all(torch.equal(resumed[part][name], value) for name, value in whole[part].items()), (part, step)
