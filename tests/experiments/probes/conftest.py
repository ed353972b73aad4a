"""A small trained model, and the clips that it searches."""

from pathlib import Path

import pytest
import torch

from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.experiments.probes.experiment import Experiment
from scav_model.training import CHECKPOINT, train


@pytest.fixture(scope="session")
def files(tmp_path_factory, train_features, eval_features) -> tuple[Path, Path]:
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
    train(config, train_features, out=folder / "run")
    torch.set_num_threads(before)
    eval_features.save(folder / "test.safetensors")
    return folder / "run" / CHECKPOINT, folder / "test.safetensors"


@pytest.fixture
def experiment(files) -> Experiment:
    return Experiment.load(*files, clips=None, batch_size=10, device="cpu")
