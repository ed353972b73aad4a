"""Front ends that need no download: frames become patches, sound becomes log-mel steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.extras import needed_by

# Added to mel power before the logarithm: about -100 dB of full scale, below any recording's noise.
POWER_FLOOR = 1e-10


@dataclass(frozen=True)
class FramePatchConfig:
    """A step per frame: the mean and the spread of the colors in each patch of a square grid."""

    frame_size: int = 64  # px, width and height that a frame is scaled to
    patch_size: int = 8  # px, width and height of a patch

    def __post_init__(self) -> None:
        if self.frame_size < 1 or self.patch_size < 1 or self.frame_size % self.patch_size:
            raise ValueError(
                f"expected frame_size to be a multiple of patch_size, both at least 1 px, "
                f"got {self.frame_size} and {self.patch_size}"
            )

    @property
    def dim(self) -> int:
        """Features of a step: two statistics of three colors in every patch."""
        return (self.frame_size // self.patch_size) ** 2 * 3 * 2


@dataclass(frozen=True)
class GrayConfig:
    """A step per frame: the brightness of every pixel of the frame, scaled down."""

    width: int = 32  # px
    height: int = 32  # px

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} to be at least 1 px, got {getattr(self, name)}")

    @property
    def dim(self) -> int:
        """Features of a step: one a pixel."""
        return self.width * self.height


@dataclass(frozen=True)
class LogMelConfig:
    """A step per `stack` spectra, side by side, so that an attack keeps its place within the step."""

    sample_rate: int = 16_000  # samples/s
    window: int = 1024  # samples
    hop: int = 256  # samples between spectra
    mels: int = 64  # bands
    stack: int = 4  # spectra in a step

    def __post_init__(self) -> None:
        for name in ("sample_rate", "window", "hop", "mels", "stack"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} to be at least 1, got {getattr(self, name)}")

    @property
    def step_rate(self) -> float:
        """Steps per second."""
        return self.sample_rate / (self.hop * self.stack)

    @property
    def dim(self) -> int:
        """Features of a step."""
        return self.mels * self.stack


class FramePatches:
    """Frames (N, S, S, 3) uint8 to steps (N, dim) float32, of the order of one."""

    def __init__(self, config: FramePatchConfig) -> None:
        self.config = config

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        size, patch = self.config.frame_size, self.config.patch_size
        if frames.ndim != 4 or frames.shape[1:] != (size, size, 3):
            raise ValueError(f"expected frames of shape (N, {size}, {size}, 3), got {frames.shape}")
        grid = size // patch
        pixels = torch.from_numpy(frames).float().view(-1, grid, patch, grid, patch, 3)
        # Sums of whole numbers below 2^24 are exact: nothing is lost to torch.std_mean, which takes twice as long.
        mean = pixels.sum(2).sum(3) / patch**2  # (N, grid, grid, 3)
        spread = (pixels.square().sum(2).sum(3) / patch**2 - mean.square()).clamp(min=0).sqrt()
        # Constants, not statistics of a data set, so that features of different sets can be compared.
        steps = torch.stack((mean / 32 - 1.5, spread / 16 - 1.0), dim=-1)
        return steps.flatten(1)


class GrayFrames:
    """Frames (N, height, width, 3) uint8 to steps (N, dim) float32, of the order of one; white is 0."""

    def __init__(self, config: GrayConfig) -> None:
        self.config = config

    def __call__(self, frames: NDArray[np.uint8]) -> Tensor:
        expected = (self.config.height, self.config.width, 3)
        if frames.ndim != 4 or frames.shape[1:] != expected:
            raise ValueError(f"expected frames of shape (N, {', '.join(map(str, expected))}), got {frames.shape}")
        gray = torch.from_numpy(frames).float().mean(dim=3)  # (N, height, width)
        return ((255 - gray) / 64).flatten(1)


class LogMel:
    """Audio (samples,) float32 to steps (M, dim) float32, of the order of one."""

    def __init__(self, config: LogMelConfig) -> None:
        # Here, because a torchaudio built for another torch fails to load, and all but sound can do without it.
        with needed_by("a log-mel front end", "torchaudio"):
            from torchaudio.transforms import MelSpectrogram
        self.config = config
        self._mel = MelSpectrogram(
            sample_rate=config.sample_rate, n_fft=config.window, hop_length=config.hop, n_mels=config.mels
        )

    def __call__(self, audio: NDArray[np.float32]) -> Tensor:
        if audio.ndim != 1:
            raise ValueError(f"expected audio of shape (samples,), got {audio.shape}")
        # The transform pads by reflection and needs more samples than half a window; a step must be full.
        shortest = max(self.config.window, self.config.hop * self.config.stack)
        samples = torch.from_numpy(audio)
        samples = torch.nn.functional.pad(samples, (0, max(0, shortest - len(samples))))
        power = self._mel(samples)  # (mels, spectra)
        steps = len(samples) // (self.config.hop * self.config.stack)
        spectra = (power + POWER_FLOOR).log10().T[: steps * self.config.stack]  # (spectra, mels)
        return (spectra.reshape(steps, self.config.dim) / 2 + 1.0).contiguous()
