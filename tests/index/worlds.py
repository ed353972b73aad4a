"""Clips whose two sides are noisy views of one walk, made from their numbers."""

import torch
import torch.nn.functional as F

from scav_model.index import Encoded, Header

DIM = 8


def header(**changes) -> Header:
    """The header of an index without a model."""
    values = {
        "checkpoint": "none.pt",
        "model_sha256": "0" * 64,
        "metric": "interpolated_euclidean",
        "options": {},
        "per_step": False,
        "dim": DIM,
        "dtype": "bfloat16",
        "sides": ["video", "audio"],
        "features": {"video": {"dim": 6, "rate_hz": 5.0}, "audio": {"dim": 5, "rate_hz": 6.25}},
    }
    return Header(**(values | changes))


def clip(number: int, dtype: torch.dtype = torch.bfloat16, steps: int | None = None) -> Encoded:
    """Clip `number`, always the same; one in four is shorter."""
    generator = torch.Generator().manual_seed(number)
    length = steps or (10 if number % 4 else 7)
    walk = F.normalize(torch.randn(length, DIM, generator=generator).cumsum(0), dim=1)
    audio = walk if steps else walk[torch.arange(round(1.25 * length)) * 4 // 5]
    noisy = F.normalize(audio + 0.05 * torch.randn(audio.shape, generator=generator), dim=1)
    return Encoded(
        f"clip-{number}", {"video": walk.to(dtype), "audio": noisy.to(dtype)}, {"path": f"/media/{number}.mp4"}
    )
