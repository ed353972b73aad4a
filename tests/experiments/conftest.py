"""Features of small clips, to train on and to search."""

import pytest
import torch

from scav_model.data import FeatureSet


def make_features(clips: int, seed: int) -> FeatureSet:
    """Clips whose two sides are noisy views of one random walk, ragged and at different rates."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(7)
    to_video, to_audio = torch.randn(3, 6, generator=shared), torch.randn(3, 5, generator=shared)
    video, audio = [], []
    for _ in range(clips):
        steps = int(torch.randint(10, 17, (), generator=generator))
        walk = torch.randn(steps, 3, generator=generator).cumsum(0)  # (steps, 3)
        video.append(walk @ to_video + 0.1 * torch.randn(steps, 6, generator=generator))
        slower = walk[torch.arange(round(1.25 * steps)) * 4 // 5]
        audio.append(slower @ to_audio + 0.1 * torch.randn(len(slower), 5, generator=generator))
    return FeatureSet([f"clip{seed}-{i}" for i in range(clips)], video, audio)


@pytest.fixture(autouse=True)
def one_thread():
    """Run small models on one thread, which is faster on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def train_features() -> FeatureSet:
    return make_features(64, seed=1)


@pytest.fixture(scope="session")
def eval_features() -> FeatureSet:
    return make_features(24, seed=2)
