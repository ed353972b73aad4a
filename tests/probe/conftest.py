"""A small trained model, and clips to search with it."""

from pathlib import Path

import pytest
import torch

from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureSet
from scav_model.probe.subject import Subject
from scav_model.training import CHECKPOINT, train


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
    """These worlds are too small to share, and a busy machine makes sharing slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint, trained with soft-DTW and searched with DTW, and features of 24 clips that it has not seen."""
    folder = tmp_path_factory.mktemp("probe")
    config = Config(
        tensorboard=False,
        model=ModelConfig(
            dim=16, visual_blocks=1, audio_blocks=1, heads=2, feedforward=2.0, conv_kernel=4, conv_groups=4
        ),
        loss=LossConfig(metric="soft_dtw", options={"gamma": 0.2}),
        optim=OptimConfig(epochs=6, batch_size=16, learning_rate=5e-3),
        retrieval=RetrievalConfig(metric="dtw", every=0),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(config, make_features(64, seed=1), out=folder / "run")
    torch.set_num_threads(before)
    make_features(24, seed=2).save(folder / "test.safetensors")
    return folder / "run" / CHECKPOINT, folder / "test.safetensors"


@pytest.fixture
def subject(files) -> Subject:
    return Subject.load(*files, clips=None, batch_size=10, device="cpu")
