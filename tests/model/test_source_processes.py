"""Sources of negatives in several processes: what they hold and what they lose is what one process does."""

import json
import sys

import pytest
import torch
from processes import run, torchrun

from scav_model import checkpoint
from scav_model.training import CHECKPOINT

pytestmark = pytest.mark.slow

SETTINGS = {
    "model": {
        "dim": 16,
        "visual_blocks": 1,
        "audio_blocks": 1,
        "heads": 2,
        "conv_kernel": 4,
        "conv_groups": 4,
        "dropout": 0.0,
    },
    # Two batches a step, of two equal shares each.
    "optim": {"batch_size": 8, "accumulate": 2, "epochs": 2, "learning_rate": 3e-3},
    "retrieval": {"every": 0},
    "tensorboard": False,
}
# All candidates are drawn, so that nothing hangs on a process's own random numbers.
SOURCES = {
    "queue": {"size": 24},
    "active": {"size": 12, "pool": 24},
    "bank": {"size": 24, "candidates": 6, "hard": 6},
}


@pytest.mark.parametrize("source", SOURCES)
def test_two_processes_train_as_one(source, feature_files, tmp_path):
    settings = {**SETTINGS, "negatives": {"source": source, "momentum": 0.9, **SOURCES[source]}}
    command = ["-m", "scav_model.train", f"--config={json.dumps(settings)}", f"--train_features={feature_files[0]}"]
    run([sys.executable, *command, f"--out={tmp_path / 'one'}"])
    run(torchrun(*command, f"--out={tmp_path / 'two'}"))
    one, two = (checkpoint.load(tmp_path / name / CHECKPOINT) for name in ("one", "two"))
    # A selection turns on the last digit of a distance, and processes round otherwise than one: later ones differ.
    alike = 1 if source == "active" else 2
    losses = [[record["loss"] for record in state["history"][:alike]] for state in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert min(losses[1]) > 0
    for name in ("memory.video.keys", "memory.audio.lengths", "memory.counters.stored"):
        assert torch.equal(one["objective"][f"source.{name}"], two["objective"][f"source.{name}"])
