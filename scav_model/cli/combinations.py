"""The command `scav combinations`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def combinations(
    features: Path,
    out: Path = Path("runs/combinations"),
    systems: Sequence[Literal["cav", "scav_euclidean", "scav_dtw", "scav_wasserstein"]] = ("cav", "scav_euclidean"),
    epochs: int = 10,
    clips: int = 2048,
    seed: int = 0,
    manifest: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Trains every distance with every source of negatives, with and without auxiliary tasks, on the demo's clips.

    Args:
        features: A demo's feature store: DEMO/seed-0/features.
        out: Folder for a checkpoint per combination, combinations.json and the table, combinations.md.
        systems: Distances, by the names of the demo's systems: cav is of means, the others are of sequences.
        epochs: Passes over the training clips, for every combination.
        clips: Training clips to use, from the first on.
        seed: Seed of weights, order and excerpts.
        manifest: The demo's manifest.jsonl: tasks play decoded clips; null cuts excerpts from stored features.
        threads: CPU threads to train with; null takes as many as PyTorch does.
    """
    from scav_model.experiments.demo.combinations import run_combinations

    run_combinations(
        features=features,
        out=out,
        systems=systems,
        epochs=epochs,
        clips=clips,
        seed=seed,
        manifest=manifest,
        resume=resume,
        threads=threads,
    )
