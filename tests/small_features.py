"""Features of clips small enough to train on in seconds, and the thread that does it."""

from collections.abc import Iterator

import pytest
import torch

from scav_model.data import FeatureSet


def walks(clips: int, seed: int, *, steps: tuple[int, int] = (8, 13), views: int = 1234) -> FeatureSet:
    """Return clips whose two sides are noisy views of one random walk, ragged and at different rates.

    Args:
        clips: how many.
        seed: of the walks, the noise and the lengths.
        steps: range of lengths of the video side, the end excluded; the audio side is 1.25 times as long.
        views: seed of the two projections; clips that are seen through the same ones can be compared.
    """
    generator = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(views)
    to_video, to_audio = torch.randn(3, 6, generator=shared), torch.randn(3, 5, generator=shared)
    video, audio = [], []
    for _ in range(clips):
        length = int(torch.randint(*steps, (), generator=generator))
        walk = torch.randn(length, 3, generator=generator).cumsum(0)  # (steps, 3)
        video.append(walk @ to_video + 0.1 * torch.randn(length, 6, generator=generator))
        slower = walk[torch.arange(round(1.25 * length)) * 4 // 5]
        audio.append(slower @ to_audio + 0.1 * torch.randn(len(slower), 5, generator=generator))
    return FeatureSet([f"clip{seed}-{i}" for i in range(clips)], video, audio)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run small models on one thread, which is faster, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
