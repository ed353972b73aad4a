"""The four models that are compared: those of the demo, with their learning rates and scales."""

from __future__ import annotations

from dataclasses import replace

from scav_model.config import Config
from scav_model.experiments.demo.systems import SYSTEMS as DEMO_SYSTEMS
from scav_model.experiments.demo.systems import DemoSize, System
from scav_model.experiments.tunes.dataset import TunesSize

NAMES = {"scav_wasserstein": "scav_sinkhorn"}
SYSTEMS = {
    system.name: system
    for system in (replace(system, name=NAMES.get(system.name, system.name)) for system in DEMO_SYSTEMS)
}


def training_config(system: System, size: TunesSize, clips: int, seed: int) -> Config:
    """Return the settings of a training on `clips` clips."""
    same = DemoSize(train_clips=clips, epochs=size.epochs, batch_size=size.batch_size, dim=size.dim)
    return system.config(same, seed)
