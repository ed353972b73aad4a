"""Five small clips, and a store of them."""

from pathlib import Path

import torch
from torch import Tensor

from scav_model.data import FeatureStore
from scav_model.data.store import Entry, StoreWriter
from scav_model.data.store.header import StoreHeader

LENGTHS = [(3, 4), (1, 2), (5, 7), (2, 2), (4, 1)]


def header(**changes: object) -> StoreHeader:
    video = {"dim": 4, "rate_hz": 5.0, "encoder": "patches", "preprocessing": {"size": (8, 8)}}
    return StoreHeader(video, {"dim": 6, "rate_hz": 6.25, "encoder": "log_mel"}, **changes)  # type: ignore[arg-type]


def clips() -> list[tuple[Entry, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            Entry(
                f"clip-{index}", "test" if index == 2 else "train", n / 5, None if index == 1 else f"label {index % 2}"
            ),
            torch.randn(n, 4, generator=generator),
            torch.randn(m, 6, generator=generator),
        )
        for index, (n, m) in enumerate(LENGTHS)
    ]


def fill(folder: Path, shard_bytes: int = 300, **changes: object) -> FeatureStore:
    with StoreWriter(folder, header(**changes), shard_bytes=shard_bytes) as writer:
        for entry, video, audio in clips():
            if entry.id not in writer.done:
                assert writer.add(entry, video, audio) is None
        writer.finish()
    return FeatureStore.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
