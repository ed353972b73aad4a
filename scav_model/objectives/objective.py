"""One step's losses: the contrast of the batch's clips, and the tasks learned beside it."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from scav_model.config import Config
from scav_model.data import Batch, Features
from scav_model.losses import ContrastiveLoss
from scav_model.model import AudioVisualModel
from scav_model.objective_config import NegativesConfig
from scav_model.objectives.bank import BankSource
from scav_model.objectives.encoding import Encode
from scav_model.objectives.sources import ActiveSource, QueueSource, RandomSource, SelectedSource, Source
from scav_model.objectives.tasks import TemporalTasks

# `batch` needs nothing beyond the batch.
SOURCES: dict[str, Callable[[NegativesConfig, AudioVisualModel], Source]] = {
    "queue": QueueSource,
    "random": RandomSource,
    "active": ActiveSource,
    "bank": BankSource,
}


class Objective(nn.Module):
    """The losses of a batch, each a named scalar; the trainer minimizes their sum.

    A distance (`loss`), a source of negatives and positives (`negatives`) and auxiliary tasks (`tasks`), each chosen by
    its section of the config. Its parameters are trained beside the model's, and its state, dictionaries and momentum
    encoders included, is part of a checkpoint. `features` are the training clips, which `negatives.encode_anew` draws
    from.
    """

    def __init__(self, config: Config, model: AudioVisualModel, features: Features | None = None) -> None:
        super().__init__()
        self.contrast = ContrastiveLoss(config.loss)
        source = SOURCES.get(config.negatives.source)
        self.source = None if source is None else source(config.negatives, model)
        if config.negatives.encode_anew:
            if features is None:
                raise ValueError("negatives.encode_anew needs the training clips; pass them as features")
            cast(SelectedSource, self.source).features = features
        self.tasks = TemporalTasks(config.tasks, config.model.dim) if config.tasks.any else None

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """Clip i of a batch's videos belongs to clip i of its audios. Losses in nats."""
        video, audio = encode(batch)
        if self.source is None:
            losses = {"contrast": self.contrast(video, audio)}
        else:
            losses = {"contrast": self.source(self.contrast, video, audio, batch)}
        return losses if self.tasks is None else losses | self.tasks(encode, batch)

    def after_step(self, model: AudioVisualModel, batch: Batch) -> None:
        """Update what follows the weights, after the optimizer's step on `batch`."""
        if self.source is not None:
            self.source.after_step(model)

    def task_accuracy(
        self, encode: Encode, features: Features, *, batch_size: int = 64, device: str | torch.device = "cpu"
    ) -> list[dict[str, Any]]:
        """Accuracy of each auxiliary task on these clips; see `TemporalTasks.accuracy`. Empty without tasks."""
        if self.tasks is None:
            return []
        return self.tasks.accuracy(encode, features, batch_size=batch_size, device=device)
