"""The four models that are compared: those of the demo, with learning rates and scales tuned on tunes."""

from __future__ import annotations

from dataclasses import replace

from scav_model.config import Config
from scav_model.experiments.demo.systems import SYSTEMS as DEMO_SYSTEMS
from scav_model.experiments.demo.systems import DemoSize, System
from scav_model.experiments.tunes.dataset import TunesSize

NAMES = {"scav_wasserstein": "scav_sinkhorn"}
# The learning rate and first scale of each model with the best R@1 by its own search among the validation tunes, of
# those that `tuning` tries: benchmarks/results/tunes-tuning.json.
TUNED = {
    "cav": (2e-3, 14.3),
    "scav_euclidean": (1e-3, 14.3),
    "scav_dtw": (2e-3, 14.3),
    "scav_sinkhorn": (8e-3, 30.0),
}


def tuned(system: System) -> System:
    """Return a system of the demo with its name, learning rate and first scale for tunes."""
    name = NAMES.get(system.name, system.name)
    rate, scale = TUNED[name]
    return replace(system, name=name, learning_rate=rate, loss=replace(system.loss, scale=scale))


SYSTEMS = {system.name: system for system in map(tuned, DEMO_SYSTEMS)}


def training_config(system: System, size: TunesSize, clips: int, seed: int) -> Config:
    """Return the settings of a training on `clips` clips."""
    same = DemoSize(train_clips=clips, epochs=size.epochs, batch_size=size.batch_size, dim=size.dim)
    return system.config(same, seed)
