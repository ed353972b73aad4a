"""Every distance with every source of negatives, with and without auxiliary tasks, on the demo's features.

Below `out`, a folder per combination with checkpoint.pt and result.json, and the table: combinations.json and
combinations.md. An interrupted run goes on with `--resume`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from scav_model.config import Config, to_dict
from scav_model.data import Batch, Features, open_features
from scav_model.distances import Sequences, retrieval_distance
from scav_model.experiments.demo.run import FRAME_RATE
from scav_model.experiments.demo.systems import FULL, SYSTEMS
from scav_model.experiments.folder import as_stored, check_settings, train_once
from scav_model.experiments.tables import Row, markdown, write_json
from scav_model.model import AudioVisualModel
from scav_model.objective_config import SOURCES, NegativesConfig, TasksConfig
from scav_model.objectives import Encode
from scav_model.progress import Progress
from scav_model.retrieval import encode, evaluate
from scav_model.storage.files import working_in, write_text
from scav_model.training import TrainResult

RESULT = "result.json"
FEWEST_CLIPS = 12
# At its own rate, against the keys of slower encoders, CAV's recall stayed at chance.
MOMENTUM_RATES = {"cav": 2e-3}


@dataclass(frozen=True)
class Combination:
    """A distance, by the name of the demo's system that trains with it, a source, and tasks or none."""

    system: str
    source: str
    tasks: bool

    @property
    def name(self) -> str:
        return f"{self.system}-{self.source}" + ("-tasks" if self.tasks else "")

    def config(self, *, epochs: int, clips: int, seed: int, manifest: str | None) -> Config:
        """The demo's settings of the system, with a dictionary that its training set can fill."""
        system = next(system for system in SYSTEMS if system.name == self.system)
        config = system.config(replace(FULL, epochs=epochs), seed)
        if self.source != "batch" and self.system in MOMENTUM_RATES:
            config = replace(config, optim=replace(config.optim, learning_rate=MOMENTUM_RATES[self.system]))
        size = min(256, clips // 4)
        return replace(
            config,
            negatives=NegativesConfig(
                source=self.source,  # type: ignore[arg-type]
                size=size,
                pool=min(1024, clips // 2),
                # A demo has hundreds of steps, not hundreds of thousands: MoCo's 0.999 would hardly move, and CM-ACC's
                # selection in every step would take most of the time.
                every=4,
                momentum=0.98,
                candidates=size // 2,
                hard=min(16, size // 2),
            ),
            tasks=TasksConfig(
                speed=0.5, direction=0.5, ordering=0.5, hidden=128, manifest=manifest, frame_rate=FRAME_RATE
            )
            if self.tasks
            else TasksConfig(),
        )


def run_combinations(
    features: Path,
    out: Path = Path("runs/combinations"),
    systems: Sequence[Literal["cav", "scav_euclidean", "scav_dtw", "scav_wasserstein"]] = ("cav", "scav_euclidean"),
    epochs: int = FULL.epochs,
    clips: int = FULL.train_clips,
    seed: int = 0,
    manifest: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Train every combination on a demo's features, search the held-out clips and write the table.

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
    if threads is not None:
        torch.set_num_threads(threads)
    training = open_features(features, "train")
    training = training.subset(range(min(clips, len(training))))
    if len(training) < FEWEST_CLIPS:
        raise ValueError(f"expected at least {FEWEST_CLIPS} training clips to fill a dictionary, got {len(training)}")
    held_out = open_features(features, "test")
    with working_in(out, "trains combinations"):
        rows = []
        for combination in Progress([*every_combination(systems)], desc="combinations", unit="model"):
            config = combination.config(
                epochs=epochs, clips=len(training), seed=seed, manifest=None if manifest is None else str(manifest)
            )
            rows.append(train_and_search(combination, config, training, held_out, out / combination.name, resume))
            write_json(out / "combinations.json", rows)
        text = tables(rows)
        write_text(out / "combinations.md", text + "\n")
    print(text)


def every_combination(systems: Sequence[str]) -> Iterator[Combination]:
    for tasks in (False, True):
        for system in systems:
            for source in SOURCES:
                yield Combination(system, source, tasks)


def train_and_search(
    combination: Combination, config: Config, training: Features, held_out: Features, folder: Path, resume: bool
) -> Row:
    """Return the row of one combination: R@1 in percent by search and direction, and the accuracy of each task."""
    settings = as_stored({"config": to_dict(config), "clips": len(training)})

    def search(trained: TrainResult) -> dict[str, Any]:
        searches = evaluate(
            *encode(trained.model, held_out), retrieval_distance(trained.config), modes=("mean", "sequence")
        )
        row = {
            "distance": combination.system,
            "source": combination.source,
            "tasks": combination.tasks,
            "recall": {f"{r['retrieval']} {r['direction']}": r["R@1"] for r in searches},
            "accuracy": trained.objective.task_accuracy(encoder(trained), held_out),
            "clips": len(training),
            "gallery": len(held_out),
            "epochs": config.optim.epochs,
            "train_seconds": trained.seconds,
            "threads": torch.get_num_threads(),
        }
        return {"settings": settings, "row": row}

    def announce() -> None:
        Progress.write(f"{combination.name}: training", file=sys.stderr)

    path = folder / RESULT
    found = train_once(path, config, training, search, announce, resume=resume) or {}
    check_settings(path, found["settings"], settings, anew="start anew without resuming")
    return dict(found["row"])


def encoder(trained: TrainResult) -> Encode:
    """Return what encodes batches with the trained model, without dropout."""
    model: AudioVisualModel = trained.model.eval()

    def encode_batch(batch: Batch) -> tuple[Sequences, Sequences]:
        video, audio = model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
        return Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)

    return encode_batch


def tables(rows: Sequence[Row]) -> str:
    """Return two Markdown tables: recalls of every combination, and accuracies of those with tasks, with chance."""
    searches = list(rows[0]["recall"])
    first = [["distance", "source", "tasks", *(f"R@1 {search}" for search in searches), "train s"]]
    second: list[list[str]] = []
    for row in rows:
        name = [row["distance"], row["source"]]
        recalls = [f"{row['recall'][search]:.1f}" for search in searches]
        first.append([*name, "temporal" if row["tasks"] else "none", *recalls, f"{row['train_seconds']:.0f}"])
        if not row["tasks"]:
            continue
        if not second:
            second.append(["distance", "source", *(f"{told['task']} {told['of']}" for told in row["accuracy"])])
            second.append(["chance", "", *(f"{told['chance']:.1f}" for told in row["accuracy"])])
        second.append([*name, *(f"{told['accuracy']:.1f}" for told in row["accuracy"])])
    about = (
        f"{rows[0]['clips']} training clips, {rows[0]['epochs']} epochs, gallery of {rows[0]['gallery']} held-out "
        f"clips; R@1 and accuracies in % (chance of R@1: {100 / rows[0]['gallery']:.1f})."
    )
    parts = [markdown(lines[0], lines[1:], names=len(lines[0])) for lines in (first, second) if lines]
    return "\n\n".join([about, *parts])
