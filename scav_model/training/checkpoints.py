"""The checkpoint files of a run's folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from scav_model import checkpoint
from scav_model.config import CheckpointConfig
from scav_model.saved_model import CHECKPOINT
from scav_model.storage.files import PARTIAL, writing

__all__ = ["BEST", "CHECKPOINT", "CONFIG", "Checkpoints"]

BEST = "best.pt"
CONFIG = "config.yaml"


class Checkpoints:
    """checkpoint.pt, always the newest, and the earlier ones that the config keeps beside it."""

    def __init__(self, folder: Path, config: CheckpointConfig) -> None:
        self.folder = folder
        self.config = config
        self.path = folder / CHECKPOINT

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raise an error if the folder has a run that is not to be resumed or overwritten, or none to resume."""
        if resume and not self.path.exists() and not (self.folder / CONFIG).is_file():
            raise FileNotFoundError(f"no checkpoint at {self.path}; name a run's folder, or start without resuming")
        if self.path.exists() and not resume and not overwrite:
            raise FileExistsError(f"{self.path} exists; resume it, overwrite it, or choose another folder")

    def save(self, state: dict[str, Any]) -> None:
        checkpoint.save(self.path, state)
        if state["step"] == 0:
            self.retain(state["history"])

    def retain(self, history: list[dict[str, Any]]) -> None:
        """Keep and drop earlier checkpoints, now that checkpoint.pt is that of the last epoch in `history`."""
        epoch = len(history)
        if self.config.keep and epoch:
            copy(self.path, self.folder / epoch_name(epoch))
            # After a change of `keep`, more than one may be too old.
            for path in self.folder.glob(epoch_name("*")):
                number = path.stem.removeprefix("epoch-")
                if number.isdecimal() and not epoch - self.config.keep < int(number) <= epoch:
                    path.unlink()
        measured = [record[self.config.best] for record in history if self.config.best in record]
        if measured and self.config.best in history[-1] and measured[-1] > max(measured[:-1], default=-1.0):
            copy(self.path, self.folder / BEST)


def epoch_name(epoch: int | str) -> str:
    return f"epoch-{epoch:04d}.pt" if isinstance(epoch, int) else f"epoch-{epoch}.pt"


def copy(source: Path, target: Path) -> None:
    """`target` becomes what `source` is now; whatever interrupts this, it is whole."""
    partial = target.with_name(f".{target.name}{PARTIAL}")
    partial.unlink(missing_ok=True)
    with writing(target):
        try:
            # A second name of the same bytes, which stay when `source` is replaced.
            os.link(source, partial)
        except OSError:
            try:
                shutil.copyfile(source, partial)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        os.replace(partial, target)
