"""Define what extraction asks of an encoder; `scav_model.encoders` has those that there are.

An encoder has two halves. `picture` and `prepare` are small and picklable and run in the worker processes that decode;
`encode` runs in the process that holds the weights, on its device, for several clips at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.pictures import Picture

Array = NDArray[Any]


class VisualEncoder(Protocol):
    """Frames to steps, one step a frame."""

    @property
    def dim(self) -> int:
        """Dv, the size of a step."""

    @property
    def picture(self) -> Picture:
        """In a worker: a decoded frame to (S, S, 3) uint8."""

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        """In a worker: a clip's (N, S, S, 3) uint8 frames to what `encode` takes."""

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        """Encode what `prepare` returned, clip by clip, to (N, Dv) float32 each, on the CPU."""

    def describe(self) -> dict[str, Any]:
        """Everything that the features depend on, as JSON: weights, preprocessing, choices."""


class AudioEncoder(Protocol):
    """Mono sound to steps at a rate of the encoder's own."""

    @property
    def dim(self) -> int:
        """Da, the size of a step."""

    @property
    def rate_hz(self) -> float:
        """Steps per second."""

    @property
    def sample_rate(self) -> int:
        """Samples per second that it takes."""

    @property
    def prepare(self) -> Callable[[NDArray[np.float32]], Array]:
        """In a worker: a clip's (samples,) float32 to what `encode` takes."""

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        """Encode what `prepare` returned, clip by clip, to (M, Da) float32 each, on the CPU."""

    def describe(self) -> dict[str, Any]:
        """Everything that the features depend on, as JSON: weights, preprocessing, choices."""
