"""Files that hold a training run, and survive being interrupted while they are written."""

from pathlib import Path

import torch

from scav_model.config import Config
from scav_model.model import AudioVisualModel
from scav_model.pretrained import load_pretrained
from scav_model.storage.checkpoint_file import FORMAT, load, save

__all__ = ["FORMAT", "load", "load_model", "save"]


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[AudioVisualModel, Config]:
    """The trained model, in evaluation mode, and the config that it was trained with.

    `path` is what `AudioVisualModel.from_pretrained` takes. Where the run kept a running mean of the weights, that is
    the model.
    """
    return load_pretrained(AudioVisualModel, path, device)
