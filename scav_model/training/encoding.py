"""Encode batches for an objective."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scav_model.config import ComputeConfig
from scav_model.data import Batch
from scav_model.distances import Sequences
from scav_model.model import AudioVisualModel


class Encoding:
    """Videos (B, N, dim) and audios (B, M, dim) of a batch, float32, with gradients.

    `chunk` clips are encoded at a time. Their activations are dropped, and made again when gradients arrive, dropping
    out the same: what a step holds are the sequences, and the activations of one chunk. This is gradient caching
    (Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021), of which an
    objective knows nothing.

    Under autocast, encoders multiply bfloat16 numbers; their last norm is float32, and so are the steps: distances of
    rivals lie close together and are scaled by up to 100 before they are compared.
    """

    def __init__(self, model: AudioVisualModel, fabric: Fabric, config: ComputeConfig) -> None:
        # The model itself stays as it is, for whoever searches with it.
        self.model: Callable[..., tuple[Tensor, Tensor]] = torch.compile(model) if config.compile else model
        self.fabric = fabric
        self.chunk = config.chunk

    def __call__(self, batch: Batch) -> tuple[Sequences, Sequences]:
        inputs = (batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
        if self.chunk == 0 or self.chunk >= len(batch):
            video, audio = self.encode(*inputs)
        else:
            parts = [
                checkpoint(self.encode, *chunk, use_reentrant=False)
                for chunk in zip(*(tensor.split(self.chunk) for tensor in inputs), strict=True)
            ]
            video, audio = (torch.cat(side) for side in zip(*parts, strict=True))
        return Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)

    def encode(
        self, video: Tensor, audio: Tensor, video_lengths: Tensor, audio_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        with self.fabric.autocast():
            return self.model(video, audio, video_lengths, audio_lengths)
