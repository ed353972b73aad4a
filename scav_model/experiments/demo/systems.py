"""The four systems that the demo compares, and how large it is.

All have the same encoders, batches, epochs and schedule. What differs is the distance that the contrast and the
search are made of, and the learning rate and first scale, tuned for each system over the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scav_model.config import Config, LossConfig, ModelConfig, OptimConfig, RetrievalConfig
from scav_model.experiments.demo.scene import SceneConfig


@dataclass(frozen=True)
class DemoSize:
    """Sizes of the demo: clips to render, and training."""

    train_clips: int = 2048
    test_clips: int = 512
    epochs: int = 10
    batch_size: int = 32
    dim: int = 64
    scene: SceneConfig = field(default_factory=SceneConfig)


FULL = DemoSize()
QUICK = DemoSize(train_clips=320, test_clips=128, epochs=5)


@dataclass(frozen=True)
class System:
    """A way to train and to search."""

    name: str  # as in results.json
    label: str  # as in the table and the plots
    loss: LossConfig
    learning_rate: float
    retrieval_metric: str | None = None  # None: the metric trained with

    def config(self, size: DemoSize, seed: int) -> Config:
        """The settings of this system's training run."""
        return Config(
            seed=seed,
            tensorboard=False,
            model=ModelConfig(
                dim=size.dim,
                visual_blocks=2,
                audio_blocks=2,
                heads=4,
                feedforward=2.0,
                dropout=0.0,
                # As wide as a clip and more, so that every step can tell how far its ends are, pooled or not.
                conv_kernel=128,
                conv_groups=16,
            ),
            loss=self.loss,
            optim=OptimConfig(
                epochs=size.epochs, batch_size=min(size.batch_size, size.train_clips), learning_rate=self.learning_rate
            ),
            # The held-out clips are searched once, at the end.
            retrieval=RetrievalConfig(metric=self.retrieval_metric, hybrid_k=50, every=0),
        )


# Learning rates and CAV's scale are the best of the grid in benchmarks/NOTES.md, on clips of another seed, each system
# judged by its own retrieval.
SYSTEMS = (
    System("cav", "CAV", LossConfig(metric="pooled_cosine", scale=30.0), learning_rate=8e-3),
    System("scav_euclidean", "SCAV-Euclidean", LossConfig(metric="interpolated_euclidean"), learning_rate=4e-3),
    System(
        "scav_dtw",
        "SCAV-DTW",
        LossConfig(metric="soft_dtw", options={"gamma": 0.1}),
        learning_rate=4e-3,
        retrieval_metric="dtw",
    ),
    System(
        "scav_wasserstein",
        "SCAV-Sinkhorn",
        LossConfig(metric="sinkhorn", options={"epsilon": 0.05, "max_iterations": 50}),
        learning_rate=8e-3,
    ),
)
