"""Steps of media files, a short one whole and a long one in windows, by a front end and a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scav_model.data.decode import decode_frames, decode_sound, stream_frames, stream_sound
from scav_model.encoders import audio_encoder, visual_encoder
from scav_model.front_ends import described, device_of, front_end
from scav_model.model import AudioVisualModel

# Frames a second of the pictures, where no model says it.
FRAME_RATE = 5.0


@dataclass(frozen=True)
class StepReader:
    """Reads one side of media files as steps.

    Attributes:
        side: video or audio.
        encoder: the front end of that side.
        rate_hz: steps per second.
        tower: the model's encoder of that side; None leaves the steps of the front end as they are.
        device: of the tower.
    """

    side: str
    encoder: Any
    rate_hz: float
    tower: Callable[[Tensor], Tensor] | None = None
    device: str = "cpu"

    @classmethod
    def of_front_end(cls, side: str, spec: str | None, frame_rate: float | None) -> StepReader:
        """Return the reader of a front end alone, as `scav extract` names it; None takes the one without a download."""
        if side == "video":
            return cls(side, visual_encoder(spec or "patches"), frame_rate or FRAME_RATE)
        encoder = audio_encoder(spec or "log_mel")
        return cls(side, encoder, encoder.rate_hz)

    @classmethod
    def of_model(cls, model: AudioVisualModel, side: str) -> StepReader:
        """Return the reader of a model, by the front end that it was trained on."""
        encoder, rate = front_end(model, side), described(model, side)["rate_hz"]
        tower = model.visual if side == "video" else model.audio
        return cls(side, encoder, encoder.rate_hz if side == "audio" else rate, tower, device_of(model))

    @property
    def unit(self) -> int:
        """Samples, or frames, of a step."""
        return 1 if self.side == "video" else max(1, round(self.encoder.sample_rate / self.rate_hz))

    def whole(self, path: Path) -> Tensor:
        """Return the steps (T, D) of a short file.

        Raises:
            DecodeError: the file cannot be read, or has no such side.
        """
        if self.side == "video":
            return self._encode(decode_frames(path, frame_rate=self.rate_hz, picture=self.encoder.picture))
        return self._encode(decode_sound(path, sample_rate=self.encoder.sample_rate))

    def windows(self, path: Path, seconds: float, context: float) -> Iterator[Tensor]:
        """Yield the steps (T, D) of a long file, those of about `seconds` at a time.

        Each window is encoded with `context` seconds before and after it, at least one step, whose own steps are
        dropped: so the steps at its edges know what is beside them.

        Raises:
            DecodeError: the file cannot be read, or has no such side.
        """
        kept = max(1, round(seconds * self.rate_hz))
        margin = min(kept, max(1, math.ceil(context * self.rate_hz)))
        size, beside = kept * self.unit, margin * self.unit
        before = now = None
        for after in self._blocks(path, size):
            if now is not None:
                yield self._window(before, now, after[:beside], margin)[:kept]
                before = now[-beside:]
            now = after
        if now is not None:
            yield self._window(before, now, now[:0], margin)

    def _window(self, before: Any, now: Any, after: Any, margin: int) -> Tensor:
        """Return the steps of `now` and `after`."""
        if before is None:
            return self._encode(np.concatenate((now, after)))
        return self._encode(np.concatenate((before, now, after)))[margin:]

    def _blocks(self, path: Path, size: int) -> Iterator[Any]:
        if self.side == "video":
            return stream_frames(path, size, frame_rate=self.rate_hz, picture=self.encoder.picture)
        return stream_sound(path, size, sample_rate=self.encoder.sample_rate)

    @torch.no_grad()
    def _encode(self, media: Any) -> Tensor:
        features: Tensor = self.encoder.encode([self.encoder.prepare(media)])[0]
        return features if self.tower is None else self.tower(features[None].to(self.device))[0].cpu()
