"""The commands that train and search models: `scav demo`, `train`, `evaluate` and `reproduce`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from scav_model import config_files
from scav_model.config import Config, Option
from scav_model.storage.files import write_text


def demo(
    out: Path = Path("runs/demo"),
    seeds: int = 1,
    quick: bool = False,
    seed: int = 0,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Renders clips with sound, trains CAV and three SCAV models on them and compares their retrieval.

    Args:
        out: Folder for clips, features, checkpoints, results.json, retrieval.png and alignment.png.
        seeds: Number of repetitions, each with clips and weights of its own; the table shows mean and deviation.
        quick: Fewer clips and epochs: shows in about two minutes that everything runs, not how well.
        seed: Seed of the first repetition; the others count up from it.
        threads: CPU threads to train with and processes to render and decode with; null is one per core.
    """
    from scav_model.experiments.demo.run import run_demo

    run_demo(out=out, seeds=seeds, quick=quick, seed=seed, resume=resume, threads=threads)


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
    from dataclasses import replace

    from scav_model.checkpoint import load_model
    from scav_model.data import open_features
    from scav_model.data.ids import ids_sha256, write_ids
    from scav_model.distances import retrieval_distance
    from scav_model.retrieval import encode_to_disk
    from scav_model.retrieval import evaluate as search

    model, config = load_model(checkpoint, device)
    retrieval = config.retrieval
    if metric is not None and metric != retrieval.metric:
        retrieval = replace(retrieval, metric=metric, options=None)
    if options is not None:
        retrieval = replace(retrieval, options=options)
    if hybrid_k is not None:
        retrieval = replace(retrieval, hybrid_k=hybrid_k)
    gallery = open_features(features)
    video, audio = encode_to_disk(model, gallery, batch_size=batch_size, device=device)
    distance = retrieval_distance(replace(config, retrieval=retrieval))
    rows = search(video, audio, distance, hybrid_k=retrieval.hybrid_k, modes=modes, progress=True)
    print(table(rows))
    if output is not None:
        write_text(output, json.dumps(rows, indent=2) + "\n")
        write_ids(output.with_name(f"{output.stem}.ids.txt"), gallery.ids)
    print(f"gallery: {len(gallery)} clips, SHA-256 of their ids {ids_sha256(gallery.ids)}", file=sys.stderr)


def reproduce(
    dataset: Literal["vggsound", "music"],
    *,
    features: Path,
    rows: Sequence[Literal["cav", "scav_euclidean", "scav_dtw", "scav_wasserstein"]] = (
        "cav",
        "scav_euclidean",
        "scav_dtw",
        "scav_wasserstein",
    ),
    out: Path | None = None,
    hybrid_k: Sequence[int] = (10, 50, 100, 500),
    settings: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    resume: bool = False,
) -> None:
    """Trains and searches every row of the paper's table and sets what it measures beside what was published.

    Args:
        dataset: Data set whose configs are used: vggsound or music.
        features: Folder of the clips' features: a feature store with the splits train and test, or train.safetensors
            and test.safetensors.
        rows: Rows to train: cav, scav_euclidean, scav_dtw, scav_wasserstein.
        out: Folder for results.md, results.json, the plots, the lists of clips and a folder per row; null takes
            runs/reproduce/<dataset>.
        hybrid_k: Clips that hybrid search takes from the pooled ranking, one search for each number.
        settings: Config file laid over every row's config, for example to try all this at a small size; the results
            say so.
        seed: Seed of the weights, of the order of the clips and of dropout.
    """
    from scav_model.experiments.reproduce import reproduce as run

    run(
        dataset,
        features,
        rows=rows,
        out=Path("runs") / "reproduce" / dataset if out is None else out,
        hybrid_k=hybrid_k,
        settings={} if settings is None else config_files.read(settings),
        device=device,
        seed=seed,
        resume=resume,
    )


def table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    cells = [names] + [[f"{v:.2f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
