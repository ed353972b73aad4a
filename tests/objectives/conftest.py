"""A small world in which time tells: how fast, which way and in which part of a clip it runs shows in its steps."""

import pytest
import torch

from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureSet
from scav_model.model import AudioVisualModel
from tests.small_features import one_thread as one_thread


def rhythms(clips: int, seed: int) -> FeatureSet:
    """Two views of one random walk, beside a saw-tooth that rises for five steps and falls at once, and a clock."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.Generator().manual_seed(1234)
    to_video, to_audio = torch.randn(6, 7, generator=shared), torch.randn(6, 6, generator=shared)
    video, audio = [], []
    for _ in range(clips):
        steps = int(torch.randint(32, 41, (), generator=generator))
        walk = torch.randn(steps, 4, generator=generator).cumsum(0) / 3  # (steps, 4)
        phase = torch.randint(6, (), generator=generator)
        saw = ((torch.arange(steps) + phase) % 6) / 2.5 - 1
        clock = 2 * torch.arange(steps) / steps - 1
        hidden = torch.cat((walk, saw[:, None], clock[:, None]), dim=1)
        video.append(hidden @ to_video + 0.1 * torch.randn(steps, 7, generator=generator))
        audio.append(hidden @ to_audio + 0.1 * torch.randn(steps, 6, generator=generator))
    return FeatureSet([f"clip{seed}-{i}" for i in range(clips)], video, audio)


@pytest.fixture(scope="session")
def train_features() -> FeatureSet:
    return rhythms(96, seed=1)


@pytest.fixture(scope="session")
def eval_features() -> FeatureSet:
    return rhythms(40, seed=2)


@pytest.fixture
def tiny() -> Config:
    """A config whose model fits the features; 4 steps an epoch."""
    return Config(
        tensorboard=False,
        model=ModelConfig(
            visual_input=7,
            audio_input=6,
            dim=16,
            visual_blocks=1,
            audio_blocks=1,
            heads=2,
            feedforward=2.0,
            dropout=0.0,
            conv_kernel=5,
            conv_groups=4,
        ),
        loss=LossConfig(scale=5.0),
        optim=OptimConfig(epochs=3, batch_size=24, learning_rate=3e-3),
        retrieval=RetrievalConfig(every=0),
    )


@pytest.fixture
def model(tiny: Config) -> AudioVisualModel:
    torch.manual_seed(0)
    return AudioVisualModel(tiny.model)
