"""Settings of a run: every field with its unit, its default and whether the paper states it.

The paper is "Sequential Contrastive Audio-Visual Learning" (arXiv 2407.05782). A field made by `assumed` holds a choice
the paper leaves open; its metadata says so and its help text ends in "[assumption]". Nothing here imports torch.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from scav_model.fields import about, assumed, differences, documented, from_dict, require, setting, to_dict
from scav_model.objective_config import NegativesConfig, TasksConfig

__all__ = [
    "CheckpointConfig",
    "ComputeConfig",
    "Config",
    "LossConfig",
    "ModelConfig",
    "NegativesConfig",
    "OptimConfig",
    "Option",
    "RetrievalConfig",
    "TasksConfig",
    "differences",
    "from_dict",
    "to_dict",
]

Option = bool | int | float | str | None
MEASURES = tuple(f"R@1 {mode} {direction}" for mode in ("mean", "sequence") for direction in ("v2a", "a2v"))


@documented
@dataclass(frozen=True)
class ModelConfig:
    """The two encoders."""

    visual_input: int | None = setting(
        None, "Size of a visual step, in features; null takes it from the data (the paper's CLIP features have 2048)."
    )
    audio_input: int | None = setting(
        None, "Size of an audio step, in features; null takes it from the data (the paper's BEATs features have 768)."
    )
    dim: int = setting(512, "Size of an encoded step, in features, in both encoders.")
    visual_blocks: int = setting(8, "Transformer blocks of the visual encoder.")
    audio_blocks: int = setting(2, "Transformer blocks of the audio encoder.")
    heads: int = assumed(8, "Attention heads of a block; must divide dim.")
    feedforward: float = assumed(4.0, "Width of a block's feed-forward layer, in multiples of dim.")
    projection: float = assumed(1.0, "Width of the projection MLP's hidden layer, in multiples of dim.")
    dropout: float = assumed(0.1, "Probability of dropping an activation, in attention and after each layer.")
    position: Literal["conv", "rotary"] = setting(
        "conv",
        "Relative positions: conv adds a grouped convolution of the sequence to it, as wav2vec 2.0 does; "
        "rotary turns the queries and keys of every block.",
    )
    conv_kernel: int = assumed(128, "Width of the positional convolution, in steps (wav2vec 2.0's 128).")
    conv_groups: int = assumed(16, "Groups of the positional convolution (wav2vec 2.0's 16); must divide dim.")
    normalize: Literal["l2", "none"] = assumed(
        "l2", "Length of an encoded step before any distance or pooling: l2 makes it 1, none leaves it free."
    )
    visual_front_end: dict[str, Any] | None = field(
        default=None,
        metadata=about(
            "Front end of the visual features, as a feature store describes it; null takes it from the data.", free=True
        ),
    )
    audio_front_end: dict[str, Any] | None = field(
        default=None,
        metadata=about(
            "Front end of the audio features, as a feature store describes it; null takes it from the data.", free=True
        ),
    )

    def __post_init__(self) -> None:
        for name in ("visual_input", "audio_input", "dim", "visual_blocks", "audio_blocks", "heads", "conv_kernel"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"model.{name}", "at least 1", value)
        for name in ("feedforward", "projection"):
            value = getattr(self, name)
            require(round(value * self.dim) >= 1, f"model.{name}", "a positive multiple of dim", value)
        require(0 <= self.dropout < 1, "model.dropout", "at least 0 and below 1", self.dropout)
        require(self.normalize in ("l2", "none"), "model.normalize", "l2 or none", self.normalize)
        require(self.position in ("conv", "rotary"), "model.position", "conv or rotary", self.position)
        require(self.dim % self.heads == 0, "model.heads", f"a divisor of dim ({self.dim})", self.heads)
        if self.position == "conv":
            divides = self.conv_groups >= 1 and self.dim % self.conv_groups == 0
            require(divides, "model.conv_groups", f"a divisor of dim ({self.dim})", self.conv_groups)
        else:
            even = self.dim // self.heads % 2 == 0
            require(even, "model.heads", f"such that dim / heads is even for rotary (dim is {self.dim})", self.heads)


@documented
@dataclass(frozen=True)
class LossConfig:
    """The contrast: a distance between every video and every audio of a batch, as logits of a cross-entropy."""

    metric: str = setting(
        "interpolated_euclidean",
        "Distance to train with: pooled_cosine (CAV), or a metric of scav_kernels.cdist (SCAV): "
        "interpolated_euclidean, interpolated_cosine, dtw, soft_dtw, sinkhorn, chamfer, soft_dtw_divergence, "
        "sinkhorn_divergence. "
        "The default cost of soft_dtw and its divergence is sqeuclidean, that of dtw and sinkhorn euclidean.",
    )
    options: dict[str, Option] = field(
        default_factory=dict,
        metadata=about(
            "Keyword arguments of the metric, for example {gamma: 0.1} (in units of its cost) for soft_dtw."
        ),
    )
    per_step: bool | None = assumed(
        None,
        "Divide a distance by the pair's steps, n + m; null does so for the metrics that sum along a path "
        "(dtw, soft_dtw, soft_dtw_divergence).",
    )
    scale: float = assumed(14.3, "Initial factor from distance to logit, in 1 / distance (CLIP's 1 / 0.07).")
    learn_scale: bool = assumed(True, "Whether the factor is learned.")
    min_scale: float = assumed(0.01, "Lower bound of the learned factor, in 1 / distance.")
    max_scale: float = assumed(100.0, "Upper bound of the learned factor, in 1 / distance (CLIP's 100).")

    def __post_init__(self) -> None:
        bounds = (self.min_scale, self.scale, self.max_scale)
        ordered = 0 < self.min_scale <= self.scale <= self.max_scale
        require(ordered, "loss.min_scale, scale and max_scale", "positive and in ascending order", bounds)


@documented
@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay."""

    epochs: int = assumed(30, "Passes over the training clips.")
    batch_size: int = setting(
        32,
        "Clips in a batch, over all processes together; each is contrasted with all others. The last, smaller batch "
        "of an epoch is left out.",
    )
    accumulate: int = assumed(
        1, "Batches whose mean gradient makes one step of the optimizer; clips of two batches are not contrasted."
    )
    learning_rate: float = assumed(1e-4, "Highest learning rate, reached at the end of the warm-up.")
    warmup: float = assumed(0.1, "Fraction of all steps in which the learning rate rises from 0.")
    final_rate: float = assumed(0.0, "Learning rate of the last step, as a fraction of the highest.")
    weight_decay: float = assumed(0.01, "AdamW's decay, per unit of learning rate, of linear layers' weights.")
    beta1: float = assumed(0.9, "AdamW's decay of the mean gradient, from 0 to 1.")
    beta2: float = assumed(0.98, "AdamW's decay of the mean squared gradient, from 0 to 1.")
    gradient_clip: float = assumed(1.0, "Largest L2 norm of all gradients together; 0 turns clipping off.")
    ema: float = assumed(
        0.0,
        "Decay per step, from 0 to 1, of a running mean of the encoders' weights, with which clips are then searched; "
        "0 keeps none.",
    )

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "optim.epochs", "at least 1", self.epochs)
        require(self.batch_size >= 2, "optim.batch_size", "at least 2, to contrast", self.batch_size)
        require(self.accumulate >= 1, "optim.accumulate", "at least 1", self.accumulate)
        for name in ("warmup", "final_rate"):
            require(0 <= getattr(self, name) <= 1, f"optim.{name}", "from 0 to 1", getattr(self, name))
        for name in ("learning_rate", "weight_decay", "gradient_clip"):
            require(getattr(self, name) >= 0, f"optim.{name}", "at least 0", getattr(self, name))
        for name in ("beta1", "beta2", "ema"):
            require(0 <= getattr(self, name) < 1, f"optim.{name}", "at least 0 and below 1", getattr(self, name))


@documented
@dataclass(frozen=True)
class ComputeConfig:
    """Precision, memory and time of a training step."""

    precision: Literal["float32", "bfloat16"] = assumed(
        "float32",
        "Numbers that the encoders multiply: bfloat16 autocasts them. Weights, encoded steps and distances are float32 "
        "either way.",
    )
    matmul: Literal["highest", "high", "medium"] = assumed(
        "highest",
        "torch.set_float32_matmul_precision during the run: lower ones let float32 products, those of the distances "
        "too, be TensorFloat32 or bfloat16.",
    )
    chunk: int = setting(
        0,
        "Clips that a process encodes at a time: once for the distances, without keeping activations, and once more "
        "for the gradients, so that activations of no more than these exist at a time. 0 encodes them all at once.",
    )
    compile: bool = setting(False, "Compile the encoders with torch.compile.")
    deterministic: bool = setting(
        False, "Use deterministic algorithms only (torch.use_deterministic_algorithms); an op that has none raises."
    )

    def __post_init__(self) -> None:
        require(self.chunk >= 0, "compute.chunk", "at least 0", self.chunk)
        precisions, products = ("float32", "bfloat16"), ("highest", "high", "medium")
        require(self.precision in precisions, "compute.precision", " or ".join(precisions), self.precision)
        require(self.matmul in products, "compute.matmul", " or ".join(products), self.matmul)


@documented
@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints to write in addition to checkpoint.pt, which holds the last epoch."""

    every: int = setting(
        0,
        "Steps of the optimizer between two checkpoints within an epoch, which replace checkpoint.pt; 0 writes one "
        "after each epoch only.",
        free=True,
    )
    keep: int = setting(0, "Last epochs whose checkpoints are kept besides, as epoch-<number>.pt.", free=True)
    best: str | None = setting(
        None,
        f"Recall whose best epoch is kept besides, as best.pt: {', '.join(MEASURES)}; null keeps none.",
        free=True,
    )

    def __post_init__(self) -> None:
        require(self.every >= 0, "checkpoints.every", "at least 0", self.every)
        require(self.keep >= 0, "checkpoints.keep", "at least 0", self.keep)
        require(self.best is None or self.best in MEASURES, "checkpoints.best", " or ".join(MEASURES), self.best)


@documented
@dataclass(frozen=True)
class RetrievalConfig:
    """Settings of the search among encoded clips."""

    metric: str | None = setting(
        None,
        "Distance between sequences, a metric of scav_kernels.cdist; null takes the one trained with, "
        "or interpolated_euclidean after pooled_cosine. SCAV-DTW trains with soft_dtw and retrieves with dtw.",
        free=True,
    )
    options: dict[str, Option] | None = field(
        default=None,
        metadata=about(
            "Keyword arguments of that metric; null takes the loss's if the metric is the loss's.", free=True
        ),
    )
    hybrid_k: int = setting(
        50, "Clips that hybrid retrieval takes from the pooled ranking and scores anew.", assumption=True, free=True
    )
    every: int = setting(1, "Epochs between two evaluations during training; 0 evaluates never.", free=True)
    clips: int = setting(1000, "Most clips of the evaluation features to search during training.", free=True)

    def __post_init__(self) -> None:
        require(self.hybrid_k >= 1, "retrieval.hybrid_k", "at least 1", self.hybrid_k)
        require(self.every >= 0, "retrieval.every", "at least 0", self.every)
        require(self.clips >= 1, "retrieval.clips", "at least 1", self.clips)


@documented
@dataclass(frozen=True)
class Config:
    """One training run."""

    seed: int = setting(0, "Seed of the weights, of the order of the clips and of dropout.")
    device: str = setting(
        "cpu",
        "Device to train on, as torch names it: cpu, cuda, cuda:1. Under torchrun cuda gives each process its own.",
        free=True,
    )
    tensorboard: bool = setting(True, "Write losses and recalls for TensorBoard, below the run's folder.", free=True)
    wandb: str | None = setting(
        None, "Project of Weights & Biases to write losses and recalls to as well; null writes none.", free=True
    )
    model: ModelConfig = field(default_factory=ModelConfig, metadata=about("The two encoders."))
    loss: LossConfig = field(default_factory=LossConfig, metadata=about("The contrast."))
    negatives: NegativesConfig = field(
        default_factory=NegativesConfig, metadata=about("Where the contrast's negatives come from.")
    )
    tasks: TasksConfig = field(default_factory=TasksConfig, metadata=about("Auxiliary tasks."))
    optim: OptimConfig = field(default_factory=OptimConfig, metadata=about("The optimizer and its schedule."))
    compute: ComputeConfig = field(default_factory=ComputeConfig, metadata=about("Precision, memory and speed."))
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig, metadata=about("What is kept."))
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig, metadata=about("Evaluation."))

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "at least 0", self.seed)
