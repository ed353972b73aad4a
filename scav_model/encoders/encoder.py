"""The error of all encoders, and the choices that several of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from scav_model.data.encoder import Array


class EncoderError(ValueError):
    """An encoder that cannot be had as asked for; the message says what to change."""


def unchanged(array: Array) -> Array:
    """The `prepare` of encoders whose work is all done on the device."""
    return array


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of products: `auto` is bfloat16 where a GPU has it and float32 elsewhere."""
    if precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if precision not in dtypes:
        raise EncoderError(f"expected precision to be auto, float32 or bfloat16, got {precision!r}")
    return dtypes[precision]


def encode_frames(clips: Sequence[Array], batch_frames: int, features: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Encode frames one by one, whatever clip they are of.

    Args:
        clips: (N, S, S, 3) uint8 each.
        batch_frames: frames that go through `features` at a time.
        features: (B, S, S, 3) uint8 to (B, dim).

    Returns:
        (N, dim) for each clip, on the CPU.
    """
    frames = torch.from_numpy(np.concatenate(clips))
    steps = torch.cat([features(some).cpu() for some in frames.split(batch_frames)])
    return list(steps.split([len(clip) for clip in clips]))


def check_batch_frames(count: int) -> None:
    if count < 1:
        raise EncoderError(f"expected batch_frames to be at least 1, got {count}")
