"""The front ends that need no download, as encoders: all their work is done in the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.data.encoder import Array
from scav_model.data.frontends import FramePatchConfig, FramePatches, GrayConfig, GrayFrames, LogMel, LogMelConfig
from scav_model.data.pictures import Picture, Scaled, Square


@dataclass(frozen=True)
class FramePatchEncoder:
    """`patches`: mean and spread of the colors in each patch of a frame."""

    config: FramePatchConfig = field(default_factory=FramePatchConfig)

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def picture(self) -> Picture:
        return Square(self.config.frame_size)

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        return self._steps

    def _steps(self, frames: NDArray[np.uint8]) -> Array:
        return FramePatches(self.config)(frames).numpy()

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return [torch.from_numpy(clip) for clip in clips]

    def describe(self) -> dict[str, Any]:
        return {"encoder": "patches", "preprocessing": asdict(self.config)}


@dataclass(frozen=True)
class GrayEncoder:
    """`gray`: the pixels of a small gray picture."""

    config: GrayConfig = field(default_factory=GrayConfig)

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def picture(self) -> Picture:
        return Scaled(self.config.width, self.config.height)

    @property
    def prepare(self) -> Callable[[NDArray[np.uint8]], Array]:
        return self._steps

    def _steps(self, frames: NDArray[np.uint8]) -> Array:
        return GrayFrames(self.config)(frames).numpy()

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return [torch.from_numpy(clip) for clip in clips]

    def describe(self) -> dict[str, Any]:
        return {"encoder": "gray", "preprocessing": asdict(self.config)}


@dataclass(frozen=True)
class LogMelEncoder:
    """`log_mel`: stacked log-mel spectra by torchaudio."""

    config: LogMelConfig = field(default_factory=LogMelConfig)

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def rate_hz(self) -> float:
        return self.config.step_rate

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def prepare(self) -> Callable[[NDArray[np.float32]], Array]:
        # Filters are built once per process, not once per clip.
        return LogMelSteps(self.config)

    def encode(self, clips: Sequence[Array]) -> list[Tensor]:
        return [torch.from_numpy(clip) for clip in clips]

    def describe(self) -> dict[str, Any]:
        return {"encoder": "log_mel", "preprocessing": asdict(self.config)}


class LogMelSteps:
    """Sound to log-mel steps as an array: arrays travel between processes by value, tensors by file descriptor."""

    def __init__(self, config: LogMelConfig) -> None:
        self.config = config
        self._front_end: LogMel | None = None

    def __call__(self, samples: NDArray[np.float32]) -> Array:
        if self._front_end is None:
            self._front_end = LogMel(self.config)
        return self._front_end(samples).numpy()

    def __reduce__(self) -> Any:
        return _log_mel_steps, (self.config,)


_BUILT: dict[LogMelConfig, LogMelSteps] = {}


def _log_mel_steps(config: LogMelConfig) -> LogMelSteps:
    return _BUILT.setdefault(config, LogMelSteps(config))
