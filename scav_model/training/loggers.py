"""Loggers of losses and recalls during training: TensorBoard, Weights & Biases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from scav_model.config import Config, to_dict
from scav_model.extras import needed_by
from scav_model.storage.files import writing


class Logger(Protocol):
    """Writes scalars by name."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Write values that were measured after `step` steps of the optimizer."""

    def close(self) -> None:
        """Write what is pending."""


class TensorBoard:
    """Event files in `folder`; those of steps from `first` on, which an interrupted run wrote, no longer count."""

    def __init__(self, folder: Path, first: int) -> None:
        with needed_by("writing losses for TensorBoard (tensorboard: true)"):
            from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        with writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=first)

    def log(self, values: Mapping[str, float], step: int) -> None:
        with writing(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        with writing(self.folder):
            self.writer.close()


class WeightsAndBiases:
    """A run of a project of Weights & Biases, known by the folder, so that a resumed run goes on in it."""

    def __init__(self, project: str, folder: Path, config: Config) -> None:
        with needed_by("the setting wandb", "wandb", "leave the setting out"):
            import wandb
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        self.run = wandb.init(
            project=project, id=name, name=folder.name, dir=str(folder), config=to_dict(config), resume="allow"
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def open_loggers(config: Config, folder: Path, first: int) -> list[Logger]:
    """Return the loggers that the config names; `first` is the step that comes next."""
    loggers: list[Logger] = []
    if config.tensorboard:
        loggers.append(TensorBoard(folder / "tensorboard", first))
    if config.wandb is not None:
        loggers.append(WeightsAndBiases(config.wandb, folder, config))
    return loggers
