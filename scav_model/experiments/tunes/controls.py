"""Controls: models that must not be better than chance, and labels that no model can know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scav_model.data import Features
from scav_model.distances import Distance, Sequences
from scav_model.experiments.tables import Row
from scav_model.experiments.tunes.results import search_rows

ROWS = 64  # queries whose distances are computed at a time


@dataclass(frozen=True)
class ShuffledPairs:
    """Clips with the sound of another clip."""

    pictures: Features
    sounds: Features

    @classmethod
    def draw(cls, clips: Features, seed: int) -> ShuffledPairs:
        """Give each of the clips the sound of the next one in a random circle."""
        circle = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
        order = torch.empty_like(circle)
        order[circle] = circle.roll(1)
        return cls(clips, clips.subset(order.tolist()))

    @property
    def ids(self) -> Sequence[str]:
        return self.pictures.ids

    @property
    def video_lengths(self) -> Tensor:
        return self.pictures.video_lengths

    @property
    def audio_lengths(self) -> Tensor:
        return self.sounds.audio_lengths

    @property
    def video_dim(self) -> int:
        return self.pictures.video_dim

    @property
    def audio_dim(self) -> int:
        return self.sounds.audio_dim

    def __len__(self) -> int:
        return len(self.pictures)

    def clip(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pictures.clip(index)[0], self.sounds.clip(index)[1]

    def subset(self, indices: Sequence[int]) -> ShuffledPairs:
        return ShuffledPairs(self.pictures.subset(indices), self.sounds.subset(indices))


def shuffled_rows(video: Sequences, audio: Sequences, own: Distance) -> list[Row]:
    """Return R@1 of a model that was trained on shuffled pairs; it must be that of chance."""
    gallery = len(video.steps)
    chance = 1 / gallery
    # Each query is right by chance, on its own.
    deviation = math.sqrt(chance * (1 - chance) / gallery)
    return [
        {"control": "shuffled", "search": row["search"], "direction": row["direction"], "R@1": row["R@1"]}
        | {"expected": 100 * chance, "deviation": 100 * deviation}
        for row in search_rows(video, audio, own)
    ]


@torch.no_grad()
def bars_row(video: Sequences, audio: Sequences, permuted: Sequences, own: Distance, seed: int) -> Row:
    """Return R@1 among all sounds and the same sounds with their bars permuted, where a coin says which one is right.

    Of the queries that find either version of their sound first, half must be right. `ordered` is the share of all
    queries that find the version in its own order first: a model that is blind to order has half of them too.
    """
    count = len(video.steps)
    gallery = Sequences(*(torch.cat(sides) for sides in zip(audio, permuted, strict=True)))
    coin = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed))
    right = torch.arange(count) + count * coin
    found = torch.cat(
        [
            own.all_pairs(Sequences(*(side[first : first + ROWS] for side in video)), gallery).argmin(1)
            for first in range(0, count, ROWS)
        ]
    )
    either = (found % count == torch.arange(count)).double().mean().item()
    return {
        "control": "bars",
        "search": "own",
        "direction": "v2a",
        "R@1": 100 * (found == right).double().mean().item(),
        "expected": 50 * either,
        "deviation": 100 * math.sqrt(either / 4 / count),
        "ordered": 100 * (found == torch.arange(count)).double().mean().item(),
    }
