"""Contrastive loss between the videos and audios of a batch."""

from torch import Tensor

from scav_kernels.nn import LearnedScale, symmetric_cross_entropy
from scav_model import parallel
from scav_model.config import LossConfig
from scav_model.distances import Distance, Sequences


class ContrastiveLoss(LearnedScale):
    """Symmetric cross-entropy of −distance × scale: each video finds its audio and each audio its video.

    `scav_kernels.nn.SequenceContrastiveLoss` with pooled cosine beside the metrics, and for processes that train
    together. With `pooled_cosine` the distance is 1 − cosine, so the loss equals that of cosine × scale: a constant in
    all logits changes no softmax.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        config = config or LossConfig()
        super().__init__(config.scale, config.learn_scale, config.min_scale, config.max_scale)
        self.distance = Distance(config.metric, config.options, config.per_step)

    def forward(self, video: Sequences, audio: Sequences) -> Tensor:
        """Return the loss in nats, a scalar. Clip i of video (B, N, D) belongs to clip i of audio (B, M, D).

        Where several processes train as one, each brings its share of the clips and computes the distances of its own
        videos to everyone's audios; the loss is that of all of them, the same in every process.
        """
        if len(video.steps) != len(audio.steps):
            raise ValueError(f"expected one audio per video, got {len(video.steps)} videos, {len(audio.steps)} audios")
        logits = self.logits(self.distance.all_pairs(video, parallel.gather(audio)))
        return symmetric_cross_entropy(parallel.gather_rows(logits))
