"""The commands that train and search models: `scav train` and `scav evaluate`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from scav_model.config import Config, Option
from scav_model.storage.files import write_text

# Short names of options of `scav train`.
SHORT = {"lr": "optim.learning_rate", "batch_size": "optim.batch_size", "epochs": "optim.epochs"}
# Options that `scav train --help` shows; --help_all shows them all.
FIRST = (
    "help", "help_all", "train_features", "config", "eval_features", "out", "resume", "device", "loss.metric",
    *SHORT.values(),
)  # fmt: skip


def train(
    config: Config,
    train_features: Path,
    eval_features: Path | None = None,
    out: Path = Path("runs/train"),
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Trains a model on stored features.

    Args:
        train_features: Features of the clips to train on: a feature file (safetensors), a feature store, or one split
            of it, STORE:SPLIT.
        eval_features: Features of held-out clips to search during training, in the same forms; null leaves that out.
        out: Folder for checkpoint.pt (written after every epoch, and more often as checkpoints.every says),
            config.yaml and tensorboard/.
        resume: Continue the run in that folder from its last checkpoint, to the same losses.
        overwrite: Start anew although the folder holds a checkpoint.
    """
    from scav_model import parallel
    from scav_model.data import open_features
    from scav_model.training import CHECKPOINT
    from scav_model.training import train as run

    held_out = None if eval_features is None else open_features(eval_features)
    result = run(config, open_features(train_features), held_out, out=out, resume=resume, overwrite=overwrite)
    if parallel.rank() == 0:
        print(f"{out / CHECKPOINT}: {len(result.history)} epochs in {result.seconds:.0f} s")


def evaluate(
    checkpoint: Path,
    features: Path,
    modes: Sequence[Literal["mean", "sequence", "hybrid"]] = ("mean", "sequence", "hybrid"),
    metric: str | None = None,
    options: dict[str, Option] | None = None,
    hybrid_k: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    output: Path | None = None,
) -> None:
    """Searches stored features with a trained model: R@1, R@5, R@10 in percent, median and mean rank.

    Args:
        modes: Ways to search: mean (pooled cosine), sequence (the metric), hybrid (mean, then sequence for the best).
        hybrid_k: Clips that hybrid takes from the pooled ranking; null takes the checkpoint's.
        output: File to write the results to as well, as JSON, with the gallery's ids beside it as NAME.ids.txt; null
            writes none.
    """
    from scav_model.checkpoint import load_model
    from scav_model.data import open_features
    from scav_model.data.ids import ids_sha256, write_ids
    from scav_model.distances import retrieval_distance
    from scav_model.retrieval import encode_to_disk
    from scav_model.retrieval import evaluate as search

    model, config = load_model(checkpoint, device)
    if hybrid_k is None:
        hybrid_k = config.retrieval.hybrid_k
    gallery = open_features(features)
    video, audio = encode_to_disk(model, gallery, batch_size=batch_size, device=device)
    distance = retrieval_distance(config, metric, options)
    rows = search(video, audio, distance, hybrid_k=hybrid_k, modes=modes, progress=True)
    print(table(rows))
    if output is not None:
        write_text(output, json.dumps(rows, indent=2) + "\n")
        write_ids(output.with_name(f"{output.stem}.ids.txt"), gallery.ids)
    print(f"gallery: {len(gallery)} clips, SHA-256 of their ids {ids_sha256(gallery.ids)}", file=sys.stderr)


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    cells = [names] + [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
