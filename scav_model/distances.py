"""Distances between encoded clips, by the names that a config uses, for training and for retrieval."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

import scav_kernels
from scav_kernels.metric_types import MetricName
from scav_kernels.ops.convergence import OneWarning
from scav_kernels.ops.registry import METRICS, grows_with_steps
from scav_model.config import Config, Option
from scav_model.model import masked_mean

POOLED_COSINE = "pooled_cosine"


def has_stored_bounds(metric: str) -> bool:
    """Return True if lower bounds of the metric come from summaries that can be stored, so that they are quick."""
    return metric in METRICS and METRICS[metric].takes_candidates


class Sequences(NamedTuple):
    """B encoded clips of one modality."""

    steps: Tensor  # (B, T, D)
    lengths: Tensor  # (B,) int64, valid steps


class Distance:
    """A distance between videos and audios: lower is closer.

    `metric` names a metric of `scav_kernels`, with its `options`, or is `pooled_cosine`: 1 − cosine of the clips' mean
    steps. Videos are always the kernels' x, so interpolated Euclidean with its default `resample="x"` stretches videos
    onto audios in both directions of retrieval. `per_step` divides by the pair's n + m; None does so for metrics
    that sum costs along a path and are not normalized.

    Sinkhorn that stops above its tolerance warns once in the life of a distance, not at each step of a training. Calls
    of `scav_kernels` elsewhere with this distance's options are made within `one_warning.counting()`.
    """

    def __init__(self, metric: str, options: Mapping[str, Option] | None = None, per_step: bool | None = None) -> None:
        self.metric = metric
        self.options: dict[str, Any] = dict(options or {})
        if metric == POOLED_COSINE and self.options:
            raise ValueError(f"{POOLED_COSINE} has no options, got {', '.join(self.options)}; leave them out")
        for name in ("return_convergence", "x_weights", "y_weights"):
            if name in self.options:
                raise ValueError(f"{metric}: expected options of the distance alone, got {name}; leave it out")
        self.one_warning = OneWarning(metric)
        if per_step is None:
            per_step = metric != POOLED_COSINE and grows_with_steps(metric, self.options)
        self.per_step = per_step
        # On one pair of one step, scav_kernels names a bad metric or option before any work is done.
        one = Sequences(torch.zeros(1, 1, 1), torch.ones(1, dtype=torch.int64))
        self.all_pairs(one, one)

    @property
    def kernel_metric(self) -> MetricName:
        """Return the metric as `scav_kernels` takes it, for any but `pooled_cosine`."""
        return cast(MetricName, self.metric)

    def all_pairs(self, video: Sequences, audio: Sequences) -> Tensor:
        """Return the distances (B1, B2) of all pairs of videos (B1, N, D) and audios (B2, M, D)."""
        if self.metric == POOLED_COSINE:
            return 1 - pooled(video) @ pooled(audio).T
        with self.one_warning.counting():
            distance = scav_kernels.cdist(
                video.steps, audio.steps, video.lengths, audio.lengths, metric=self.kernel_metric, **self.options
            )
        return distance / (video.lengths[:, None] + audio.lengths) if self.per_step else distance

    def pairs(self, video: Sequences, audio: Sequences) -> Tensor:
        """Return the distances (B,) of videos (B, N, D) from audios (B, M, D), pair by pair."""
        if self.metric == POOLED_COSINE:
            return 1 - (pooled(video) * pooled(audio)).sum(1)
        with self.one_warning.counting():
            distance = scav_kernels.pairwise_distance(
                video.steps, audio.steps, video.lengths, audio.lengths, metric=self.kernel_metric, **self.options
            )
        return distance / (video.lengths + audio.lengths) if self.per_step else distance


def pooled(clips: Sequences) -> Tensor:
    """Return the mean (B, D) of each clip's valid steps, scaled to length 1."""
    return F.normalize(masked_mean(clips.steps, clips.lengths), dim=1)


def retrieval_distance(
    config: Config, metric: str | None = None, options: Mapping[str, Option] | None = None
) -> Distance:
    """Return the distance that sequence and hybrid retrieval use after training with `config`.

    Args:
        metric, options: take the place of the config's; None takes those.
    """
    wanted = config.retrieval
    if options is None and metric in (None, wanted.metric):
        options = wanted.options
    if metric is None:
        metric = wanted.metric
    if metric is None:
        metric = "interpolated_euclidean" if config.loss.metric == POOLED_COSINE else config.loss.metric
    if options is None:
        options = config.loss.options if metric == config.loss.metric else {}
    return Distance(metric, options, config.loss.per_step)
