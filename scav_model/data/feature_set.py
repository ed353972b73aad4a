"""Features of a split, on disk and in memory: one pair of sequences for every clip."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scav_model.storage.files import make_folder, replacing
from scav_model.storage.text import shown


class FeatureSet:
    """Video and audio features of N clips, ragged in time.

    Attributes:
        ids: one name per clip, unique within the set.
        video: one (N_i, Dv) float32 tensor per clip, a row per video step.
        audio: one (M_i, Da) float32 tensor per clip, a row per audio step.
    """

    def __init__(self, ids: list[str], video: list[Tensor], audio: list[Tensor]) -> None:
        if not len(ids) == len(video) == len(audio):
            raise ValueError(
                f"expected one video and one audio sequence per id, got {len(ids)} ids, "
                f"{len(video)} video and {len(audio)} audio sequences"
            )
        if len(set(ids)) != len(ids):
            repeated = next(clip_id for clip_id in ids if ids.count(clip_id) > 1)
            raise ValueError(f"expected unique ids, got {repeated!r} more than once; rename or drop one of the clips")
        for modality, sequences in (("video", video), ("audio", audio)):
            _check_sequences(modality, ids, sequences)
        self.ids = list(ids)
        self.video = list(video)
        self.audio = list(audio)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def video_dim(self) -> int:
        """Dv, the size of a video step."""
        return self._dim("video", self.video)

    @property
    def audio_dim(self) -> int:
        """Da, the size of an audio step."""
        return self._dim("audio", self.audio)

    @property
    def video_lengths(self) -> Tensor:
        """(G,) int64, steps of each video."""
        return torch.tensor([len(steps) for steps in self.video], dtype=torch.int64)

    @property
    def audio_lengths(self) -> Tensor:
        """(G,) int64, steps of each audio."""
        return torch.tensor([len(steps) for steps in self.audio], dtype=torch.int64)

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        """Return video (N, Dv) and audio (M, Da) of one clip."""
        return self.video[index], self.audio[index]

    def subset(self, indices: Sequence[int]) -> FeatureSet:
        """Return the clips at `indices`, in that order."""
        return FeatureSet(
            [self.ids[index] for index in indices],
            [self.video[index] for index in indices],
            [self.audio[index] for index in indices],
        )

    @staticmethod
    def _dim(modality: str, sequences: list[Tensor]) -> int:
        if not sequences:
            raise ValueError(f"an empty feature set has no {modality} dimension; extract at least one clip first")
        return sequences[0].shape[1]

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; a reader sees the old file or the whole new one, never a part."""
        path = Path(path)
        empty = torch.zeros(0, 0)
        tensors = {
            "video": torch.cat(self.video) if self.video else empty,  # (ΣN, Dv)
            "audio": torch.cat(self.audio) if self.audio else empty,  # (ΣM, Da)
            "video_lengths": self.video_lengths,
            "audio_lengths": self.audio_lengths,
        }
        make_folder(path.parent)
        with replacing(path) as file:
            file.write(save(tensors, metadata={"ids": json.dumps(self.ids)}))

    @classmethod
    def load(cls, path: Path | str) -> FeatureSet:
        """Read a file written by `save`."""
        if not Path(path).is_file():
            raise FileNotFoundError(f"no feature file at {path}; extract the features first, or name another file")
        try:
            with safe_open(path, framework="pt") as file:
                ids = json.loads((file.metadata() or {})["ids"])
                if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                    raise ValueError(f"expected a list of ids, got {shown(ids)}")
                video, audio = (
                    list(file.get_tensor(name).split(file.get_tensor(f"{name}_lengths").tolist()))
                    for name in ("video", "audio")
                )
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{path} is not a feature file (expected safetensors with ids, video, video_lengths, audio and "
                f"audio_lengths): {' '.join(str(error).split())}; extract the features again"
            ) from error
        return cls(ids, video, audio) if ids else cls([], [], [])


def _check_sequences(modality: str, ids: list[str], sequences: list[Tensor]) -> None:
    for clip_id, steps in zip(ids, sequences, strict=True):
        if steps.ndim != 2 or steps.shape[0] == 0 or steps.dtype != torch.float32:
            raise ValueError(
                f"{modality} of {clip_id!r}: expected a (steps, dim) float32 tensor of at least one step, "
                f"got {tuple(steps.shape)} {steps.dtype}"
            )
        if steps.shape[1] != sequences[0].shape[1]:
            raise ValueError(
                f"{modality} of {clip_id!r}: expected {sequences[0].shape[1]} features a step as in {ids[0]!r}, "
                f"got {steps.shape[1]}; extract all clips with the same front end"
            )
