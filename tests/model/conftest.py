"""Small worlds that train in seconds."""

from pathlib import Path

import pytest

from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.data import FeatureSet
from tests.small_features import one_thread as one_thread
from tests.small_features import walks


@pytest.fixture(scope="session")
def train_features() -> FeatureSet:
    return walks(48, seed=1)


@pytest.fixture(scope="session")
def eval_features() -> FeatureSet:
    return walks(20, seed=2)


@pytest.fixture
def tiny() -> Config:
    """A config that exercises dropout, the schedule and both encoders; 3 epochs of 3 steps."""
    return Config(
        model=ModelConfig(
            dim=16, visual_blocks=2, audio_blocks=1, heads=2, feedforward=2.0, conv_kernel=4, conv_groups=4
        ),
        loss=LossConfig(scale=5.0),
        optim=OptimConfig(epochs=3, batch_size=16, learning_rate=3e-3),
        retrieval=RetrievalConfig(every=2),
    )


@pytest.fixture(scope="session")
def feature_files(tmp_path_factory, train_features, eval_features) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("features")
    train_features.save(folder / "train.safetensors")
    eval_features.save(folder / "eval.safetensors")
    return folder / "train.safetensors", folder / "eval.safetensors"
