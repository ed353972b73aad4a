"""Front ends from the descriptions that stores, checkpoints and indexes keep of them."""

from __future__ import annotations

from typing import Any

from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.frontends import FramePatchConfig, GrayConfig, LogMelConfig
from scav_model.encoders.efficientnet import SPEC as EFFICIENTNET_SPEC
from scav_model.encoders.encoder import EncoderError
from scav_model.encoders.notes import NotesEncoder
from scav_model.encoders.plain import FramePatchEncoder, GrayEncoder, LogMelEncoder
from scav_model.encoders.specs import EncoderOptions, audio_encoder, visual_encoder


def described_encoder(
    described: dict[str, Any], side: str, spec: str | None = None, device: str = "cpu", *, owner: str
) -> VisualEncoder | AudioEncoder:
    """Return the front end of one side, video or audio.

    Args:
        described: what a feature store says of the side.
        spec: as `scav extract` takes it; None makes the front end from the description, where that suffices.
        owner: who has the description, for errors.

    Raises:
        EncoderError: the description does not suffice, or the spec names no front end.
    """
    if spec is not None:
        return _named(described, side, spec, device)
    kind = described.get("encoder")
    if kind == "patches":
        return FramePatchEncoder(FramePatchConfig(**described["preprocessing"]))
    if kind == "gray":
        return GrayEncoder(GrayConfig(**described["preprocessing"]))
    if kind == EFFICIENTNET_SPEC:
        return _named(described, side, kind, device)
    if kind == "notes":
        return NotesEncoder()
    if kind == "log_mel":
        return LogMelEncoder(LogMelConfig(**described["preprocessing"]))
    if kind is None:
        raise EncoderError(f"the {owner} does not say which {side} front end made its features")
    reason = f"the {owner}'s {side} features are of {kind} {described.get('model', '')}"
    if kind == "clip":
        try:
            return _named(described, side, f"clip:{described['model']}", device)
        except EncoderError as error:
            reason += f", which could not be had ({error})"
    raise EncoderError(reason)


def _named(described: dict[str, Any], side: str, spec: str, device: str) -> VisualEncoder | AudioEncoder:
    options = EncoderOptions(device=device)
    if side == "video":
        features = described.get("features", options.clip_features)
        return visual_encoder(spec, EncoderOptions(clip_features=features, device=device))
    frequency = described.get("frequency", options.beats_frequency)
    return audio_encoder(spec, EncoderOptions(beats_frequency=frequency, device=device))
