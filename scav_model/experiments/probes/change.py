"""Clips with a change applied to one side or both: their features before encoding, or their encoded steps after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from scav_model.data import Features
from scav_model.distances import Sequences
from scav_model.experiments.probes.experiment import Experiment

Sides: TypeAlias = Literal["video", "audio", "both"]
SIDES = ("video", "audio", "both")
Where: TypeAlias = Literal["features", "encoded"]
WHERE = ("features", "encoded")


@dataclass(frozen=True)
class Change:
    """A change of each clip's steps.

    Attributes:
        apply: steps (T, D) and the clip's id to changed steps (length(T), D); the same arguments, the same result.
        length: T to the number of steps that `apply` leaves of T, at least 1.
    """

    apply: Callable[[Tensor, str], Tensor]
    length: Callable[[int], int]


class ChangedFeatures:
    """`Features` that change one side or both when they are read."""

    def __init__(self, features: Features, change: Change, sides: Sides) -> None:
        self._features = features
        self._change = change
        self._sides = sides

    def __len__(self) -> int:
        return len(self._features)

    @property
    def ids(self) -> Sequence[str]:
        return self._features.ids

    @property
    def video_dim(self) -> int:
        return self._features.video_dim

    @property
    def audio_dim(self) -> int:
        return self._features.audio_dim

    @property
    def video_lengths(self) -> Tensor:
        return self._lengths("video", self._features.video_lengths)

    @property
    def audio_lengths(self) -> Tensor:
        return self._lengths("audio", self._features.audio_lengths)

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        video, audio = self._features.clip(index)
        clip_id = self.ids[index]
        return (
            self._change.apply(video, clip_id) if self._sides != "audio" else video,
            self._change.apply(audio, clip_id) if self._sides != "video" else audio,
        )

    def subset(self, indices: Sequence[int]) -> ChangedFeatures:
        return ChangedFeatures(self._features.subset(indices), self._change, self._sides)

    def _lengths(self, side: str, lengths: Tensor) -> Tensor:
        return changed_lengths(lengths, self._change) if self._sides in (side, "both") else lengths


def changed_lengths(lengths: Tensor, change: Change) -> Tensor:
    """Return the lengths (G,) of clips after the change."""
    return torch.tensor([change.length(steps) for steps in lengths.tolist()], dtype=torch.int64, device=lengths.device)


def change_encoded(clips: Sequences, ids: Sequence[str], change: Change) -> Sequences:
    """Change encoded clips (G, T, D) one by one: (G, T', D), padded with zeros."""
    lengths = changed_lengths(clips.lengths, change)
    changed = clips.steps.new_zeros(len(clips.steps), int(lengths.max()), clips.steps.shape[2])
    for index, (clip_id, steps) in enumerate(zip(ids, clips.lengths.tolist(), strict=True)):
        changed[index, : int(lengths[index])] = change.apply(clips.steps[index, :steps], clip_id)
    return Sequences(changed, lengths)


def changed(
    experiment: Experiment, encoded: tuple[Sequences, Sequences], changes: Sequence[tuple[Change, Sides]], where: Where
) -> tuple[Sequences, Sequences]:
    """Return encoded videos and audios after the changes, in their order; `encoded` are the unchanged clips."""
    if where == "features":
        features: Features = experiment.features
        for change, sides in changes:
            features = ChangedFeatures(features, change, sides)
        return experiment.encode(features)
    video, audio = encoded
    ids = experiment.features.ids
    for change, sides in changes:
        video = video if sides == "audio" else change_encoded(video, ids, change)
        audio = audio if sides == "video" else change_encoded(audio, ids, change)
    return video, audio
