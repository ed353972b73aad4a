"""An experiment: a trained model, the clips to search and the distances to search them by."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scav_kernels._version import __version__
from scav_model.checkpoint import load_model
from scav_model.config import Config, Option
from scav_model.data import Features, open_features
from scav_model.distances import POOLED_COSINE, Distance, Sequences, retrieval_distance
from scav_model.experiments.tables import Row
from scav_model.model import AudioVisualModel
from scav_model.retrieval import encode, evaluate
from scav_model.retrieval.ranking import DIRECTIONS

METRICS = (POOLED_COSINE, "interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn")
MEASURES = ("R@1", "R@5", "R@10", "MedR", "MeanR")


@dataclass(frozen=True)
class Experiment:
    """A model in evaluation mode, the config that it was trained with, and the clips to search."""

    model: AudioVisualModel
    config: Config
    features: Features
    batch_size: int  # clips to encode at a time
    device: str

    @classmethod
    def load(
        cls, checkpoint: Path, features: Path, clips: int | None = None, batch_size: int = 64, device: str = "cpu"
    ) -> Experiment:
        """Return the checkpoint's model and the first `clips` of the features, None for all."""
        if clips is not None and clips < 2:
            raise ValueError(f"clips must be at least 2, to search among, got {clips}")
        found = open_features(features)
        if len(found) < 2:
            raise ValueError(f"expected at least 2 clips to search among, got {len(found)} in {features}")
        if clips is not None and clips < len(found):
            found = found.subset(range(clips))
        model, config = load_model(checkpoint, device)
        sizes = (found.video_dim, found.audio_dim)
        expected = (model.visual.input_dim, model.audio.input_dim)
        if sizes != expected:
            raise ValueError(
                f"{checkpoint} was trained on video and audio steps of {expected[0]} and {expected[1]} features, "
                f"{features} has {sizes[0]} and {sizes[1]}; name features of the same front ends"
            )
        return cls(model, config, found, batch_size, device)

    def encode(self, features: Features) -> tuple[Sequences, Sequences]:
        return encode(self.model, features, batch_size=self.batch_size, device=self.device)

    @property
    def own_metric(self) -> str:
        """The metric that the model is searched by unless another is named: pooled cosine after training with it."""
        trained = self.config.loss.metric
        return trained if trained == POOLED_COSINE else self.config.retrieval.metric or trained

    def settings(self) -> dict[str, Any]:
        """Return what comparable results share: digests of weights and clips, and the checkpoint's distances."""
        features, loss, retrieval = self.features, self.config.loss, self.config.retrieval
        clips: dict[str, Tensor] = {"video": features.video_lengths, "audio": features.audio_lengths}
        for index in (0, len(features) - 1):
            video, audio = features.clip(index)
            clips |= {f"video {index}": video, f"audio {index}": audio}
        return {
            "version": __version__,
            "model": digest(self.model.state_dict()),
            "features": digest(clips, features.ids),
            "gallery": len(features),
            "own_metric": self.own_metric,
            "loss": {"metric": loss.metric, "options": loss.options, "per_step": loss.per_step},
            "retrieval": {"metric": retrieval.metric, "options": retrieval.options},
        }


def digest(tensors: Mapping[str, Tensor], names: Sequence[str] = ()) -> str:
    """Return 16 hexadecimal digits that tell tensors, and names, from others."""
    found = hashlib.sha256(repr(list(names)).encode())
    for name, tensor in tensors.items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def distances(
    config: Config, metrics: Sequence[str], options: Mapping[str, Mapping[str, Option]]
) -> dict[str, Distance]:
    """Return a distance per metric, as `scav evaluate --metric` makes it; `options` win over the checkpoint's."""
    if not metrics:
        raise ValueError(f"expected at least one metric, got none; {POOLED_COSINE} is one")
    unused = sorted(set(options) - set(metrics))
    if unused:
        raise ValueError(
            f"there are options for {', '.join(unused)}, not among the metrics; add it there, or drop them"
        )
    return {metric: retrieval_distance(config, metric, options.get(metric)) for metric in metrics}


def search(video: Sequences, audio: Sequences, distance: Distance) -> list[Row]:
    """Return two rows: the recalls of either direction, without times."""
    rows = evaluate(video, audio, distance, modes=("sequence",))
    found = {row["direction"]: row for row in rows}
    return [{"direction": direction, **{name: found[direction][name] for name in MEASURES}} for direction in DIRECTIONS]
