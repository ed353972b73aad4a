"""Contrastive loss between the videos and audios of a batch."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scav_model import parallel
from scav_model.config import LossConfig
from scav_model.distances import Distance, Sequences


def symmetric_cross_entropy(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy over rows and columns of logits (B, B), in nats; the diagonal is the truth."""
    truth = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


# Not scav_kernels.nn.SequenceContrastiveLoss: that has no pooled cosine, and no place between distances and
# cross-entropy where the processes that train together exchange clips and rows of logits.
class ContrastiveLoss(nn.Module):
    """Symmetric cross-entropy of −distance × scale: each video finds its audio and each audio its video.

    With `pooled_cosine` the distance is 1 − cosine, so the loss equals that of cosine × scale: a constant in all logits
    changes no softmax. The scale is exp(log_scale), kept within [min_scale, max_scale] by moving `log_scale` back into
    the bounds before each use; there, unlike behind a clamped output, its gradient still leads back inside.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        super().__init__()
        config = config or LossConfig()
        self.distance = Distance(config.metric, config.options, config.per_step)
        self.bounds = (math.log(config.min_scale), math.log(config.max_scale))
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)), requires_grad=config.learn_scale)

    @property
    def scale(self) -> Tensor:
        """Logits per unit of distance, a scalar."""
        with torch.no_grad():
            self.log_scale.clamp_(*self.bounds)
        return self.log_scale.exp()

    def forward(self, video: Sequences, audio: Sequences) -> Tensor:
        """Return the loss in nats, a scalar. Clip i of video (B, N, D) belongs to clip i of audio (B, M, D).

        Where several processes train as one, each brings its share of the clips and computes the distances of its own
        videos to everyone's audios; the loss is that of all of them, the same in every process.
        """
        if len(video.steps) != len(audio.steps):
            raise ValueError(f"expected one audio per video, got {len(video.steps)} videos, {len(audio.steps)} audios")
        logits = -self.scale * self.distance.all_pairs(video, parallel.gather(audio))
        return symmetric_cross_entropy(parallel.gather_rows(logits))
