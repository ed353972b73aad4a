"""The front ends of a model, and media files through both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scav_model.data.datasets import media_clip
from scav_model.data.decode import DecodeError
from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.extract import Prepared, Work
from scav_model.encoders.described import described_encoder
from scav_model.encoders.encoder import EncoderError

if TYPE_CHECKING:
    from scav_model.model import AudioVisualModel

FIELDS = {"video": "visual_front_end", "audio": "audio_front_end"}
OPTIONS = {"video": "visual", "audio": "audio"}


def described(model: AudioVisualModel, side: str) -> dict[str, Any]:
    """Return what the model remembers of the front end of one side.

    Raises:
        EncoderError: nothing, as the model was trained on feature files or by an earlier version.
    """
    found: dict[str, Any] | None = getattr(model.config, FIELDS[side])
    if found is None:
        raise EncoderError(
            f"the model does not remember the {side} front end of the features that it was trained on; name the front "
            'ends once, e.g. model.use_front_ends("clip:ViT-L-14-quickgelu:openai", "beats:FILE", frame_rate=5.0), and '
            "keep them with model.save_pretrained"
        )
    return found


def front_end(model: AudioVisualModel, side: str) -> Any:
    """Return the encoder of one side, which is made once."""
    if side not in model.front_ends:
        try:
            made = described_encoder(described(model, side), side, device=device_of(model), owner="model")
        except EncoderError as error:
            if getattr(model.config, FIELDS[side]) is None:
                raise
            raise EncoderError(f"{error}; name it with model.use_front_ends({OPTIONS[side]}=…)") from error
        keep(model, side, made)
    return model.front_ends[side]


def keep(model: AudioVisualModel, side: str, encoder: VisualEncoder | AudioEncoder) -> None:
    expected = (model.visual if side == "video" else model.audio).input_dim
    if encoder.dim != expected:
        raise EncoderError(
            f"the model takes {side} steps of {expected} features, and this front end has {encoder.dim}; name the one "
            "that the model was trained on"
        )
    model.front_ends[side] = encoder


def use(model: AudioVisualModel, visual: str | None, audio: str | None, frame_rate: float | None) -> None:
    """See `AudioVisualModel.use_front_ends`."""
    for side, spec in (("video", visual), ("audio", audio)):
        remembered = getattr(model.config, FIELDS[side]) or {}
        if spec is None and not (side == "video" and frame_rate is not None):
            continue
        encoder: Any = described_encoder(remembered, side, spec, device_of(model), owner="model")
        keep(model, side, encoder)
        rate = encoder.rate_hz if side == "audio" else frame_rate or remembered.get("rate_hz")
        if rate is None or not rate > 0:
            raise ValueError(f"expected frame_rate, the video steps per second of the training features, got {rate}")
        change: dict[str, Any] = {FIELDS[side]: {"dim": encoder.dim, "rate_hz": rate, **encoder.describe()}}
        model.config = replace(model.config, **change)


def device_of(model: AudioVisualModel) -> str:
    return str(next(model.parameters()).device)


@torch.no_grad()
def encode_file(
    model: AudioVisualModel, path: str | Path, start: float, duration: float | None
) -> tuple[Tensor, Tensor]:
    """See `AudioVisualModel.encode_file`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a media file, found none at {path}; check the name")
    visual, audio = front_end(model, "video"), front_end(model, "audio")
    work = Work(visual, audio, described(model, "video")["rate_hz"])
    prepared = work.prepare(replace(media_clip(path), start=start, duration=duration))
    if not isinstance(prepared, Prepared):
        raise DecodeError(f"{path} cannot be used: {prepared}")
    steps = visual.encode([prepared.video])[0], audio.encode([prepared.audio])[0]
    device = device_of(model)
    video, sound = model(*(side[None].to(device) for side in steps))
    return video[0], sound[0]
