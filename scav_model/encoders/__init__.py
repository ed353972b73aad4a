"""Encoders of decoded frames and sound: CLIP, BEATs, PE-AV, and front ends that need no download."""

from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.encoders.encoder import EncoderError
from scav_model.encoders.specs import EncoderOptions, audio_encoder, both_encoders, visual_encoder

__all__ = [
    "AudioEncoder",
    "EncoderError",
    "EncoderOptions",
    "VisualEncoder",
    "audio_encoder",
    "both_encoders",
    "visual_encoder",
]
