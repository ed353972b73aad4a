"""Interface by which training and search read features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Features(Protocol):
    """G clips in a fixed order, each a video and an audio sequence, ragged in time.

    Lengths and sizes are at hand without reading a clip.
    """

    @property
    def ids(self) -> Sequence[str]:
        """One name per clip, unique."""

    @property
    def video_lengths(self) -> Tensor:
        """(G,) int64, steps of each video."""

    @property
    def audio_lengths(self) -> Tensor:
        """(G,) int64, steps of each audio."""

    @property
    def video_dim(self) -> int:
        """Dv, the size of a video step."""

    @property
    def audio_dim(self) -> int:
        """Da, the size of an audio step."""

    def __len__(self) -> int:
        """G."""

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        """Video (N, Dv) and audio (M, Da) of one clip, float32; not to be written to."""

    def subset(self, indices: Sequence[int]) -> Features:
        """The clips at `indices`, in that order."""
