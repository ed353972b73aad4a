"""Encoders by name, as the command line gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.frontends import GrayConfig
from scav_model.devices import parse_device
from scav_model.encoders.beats import BeatsEncoder
from scav_model.encoders.clip import SPEC, ClipEncoder
from scav_model.encoders.efficientnet import SPEC as EFFICIENTNET_SPEC
from scav_model.encoders.efficientnet import EfficientNetEncoder
from scav_model.encoders.encoder import EncoderError
from scav_model.encoders.notes import NotesEncoder
from scav_model.encoders.pe_av import SPEC as PE_AV_SPEC
from scav_model.encoders.pe_av import PeAudioEncoder, PeVideoEncoder
from scav_model.encoders.plain import FramePatchEncoder, GrayEncoder, LogMelEncoder
from scav_model.fields import documented, setting


@documented
@dataclass(frozen=True)
class EncoderOptions:
    """Options of both encoders."""

    clip_features: Literal["cls+patches", "pooled"] = setting(
        "cls+patches",
        "Features of a frame: cls+patches puts the class token beside the mean patch token (2048 for ViT-L/14), pooled "
        "is CLIP's own output.",
    )
    beats_frequency: Literal["mean", "keep"] = setting(
        "mean",
        "BEATs' eight frequency patches of a step: mean averages them (62 steps in ten seconds), keep leaves them one "
        "after the other (496).",
    )
    device: str = setting("cpu", "Device of the encoders, as torch names it: cpu, cuda, cuda:1.")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Precision of the encoders' products: auto is bfloat16 on a GPU that has it, float32 elsewhere.",
    )
    batch_frames: int = setting(
        256, "Frames that go through CLIP, EfficientNet-Lite0, or the image model of PE-AV, at a time."
    )

    def __post_init__(self) -> None:
        # Its name alone: another machine may be the one that encodes.
        parse_device(self.device)


def visual_encoder(spec: str, options: EncoderOptions | None = None) -> VisualEncoder:
    """Return the encoder `patches`, `gray`, `gray:WIDTHxHEIGHT`, `efficientnet-lite0`, `clip:…` or `pe-av:FOLDER`."""
    options = options or EncoderOptions()
    kind, _, rest = spec.partition(":")
    if spec == "patches":
        return FramePatchEncoder()
    if spec == "gray":
        return GrayEncoder()
    if size := re.fullmatch(r"gray:([1-9]\d{0,3})x([1-9]\d{0,3})", spec):
        return GrayEncoder(GrayConfig(width=int(size[1]), height=int(size[2])))
    if spec == EFFICIENTNET_SPEC:
        return EfficientNetEncoder(
            device=options.device, precision=options.precision, batch_frames=options.batch_frames
        )
    if kind == "clip":
        return ClipEncoder(
            rest,
            features=options.clip_features,
            device=options.device,
            precision=options.precision,
            batch_frames=options.batch_frames,
        )
    if kind == "pe-av" and rest:
        return PeVideoEncoder(
            rest, device=options.device, precision=options.precision, batch_frames=options.batch_frames
        )
    raise EncoderError(
        f"expected a visual encoder, patches, gray, gray:WIDTHxHEIGHT, {EFFICIENTNET_SPEC}, {SPEC}, or {PE_AV_SPEC}; "
        f"got {spec!r}"
    )


def audio_encoder(spec: str, options: EncoderOptions | None = None) -> AudioEncoder:
    """Return the encoder `log_mel`, `notes`, `beats:CHECKPOINT` or `pe-av:FOLDER`."""
    options = options or EncoderOptions()
    kind, _, rest = spec.partition(":")
    if spec == "log_mel":
        return LogMelEncoder()
    if spec == "notes":
        return NotesEncoder()
    if kind == "beats" and rest:
        return BeatsEncoder(rest, frequency=options.beats_frequency, device=options.device, precision=options.precision)
    if kind == "pe-av" and rest:
        return PeAudioEncoder(rest, device=options.device, precision=options.precision)
    raise EncoderError(f"expected an audio encoder, log_mel, notes, beats:CHECKPOINT or {PE_AV_SPEC}; got {spec!r}")


def both_encoders(visual: str, audio: str, options: EncoderOptions) -> tuple[VisualEncoder, AudioEncoder]:
    """Picklable with its arguments, so that another process can make the same."""
    return visual_encoder(visual, options), audio_encoder(audio, options)
