"""The models that downstream experiments compare: trained here with and without the temporal tasks, or named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from scav_kernels._version import __version__
from scav_model.checkpoint import load_model
from scav_model.config import Config, TasksConfig, to_dict
from scav_model.data import Features, FeatureSet, open_features
from scav_model.distances import Sequences
from scav_model.experiments.demo.systems import FULL, SYSTEMS, DemoSize
from scav_model.experiments.downstream.clips import COLUMNS, make_clips
from scav_model.experiments.downstream.clips import FULL as FULL_CLIPS
from scav_model.experiments.downstream.clips import QUICK as QUICK_CLIPS
from scav_model.experiments.folder import as_stored, check_settings, prepare_folder, train_once
from scav_model.experiments.probes.ablation import coarsen as coarsen_steps
from scav_model.experiments.tables import Row
from scav_model.model import AudioVisualModel
from scav_model.progress import Progress
from scav_model.retrieval import encode
from scav_model.training import CHECKPOINT, TrainResult

SystemName: TypeAlias = Literal["cav", "scav_euclidean", "scav_dtw", "scav_wasserstein"]
STAMP = "downstream.json"
TRAINED = "trained.json"
ANEW = "choose another folder"
# The features as they are extracted, without a model.
FEATURES = "features"
QUICK_EPOCHS = 1


@dataclass(frozen=True)
class ComparedModel:
    """A trained model, by what tells it from the others."""

    name: str  # the system, or the distance that it was trained with
    tasks: bool  # True if it learned the temporal tasks
    seed: int
    checkpoint: Path

    @property
    def cell(self) -> Row:
        """The keys of its rows."""
        return {"model": self.name, "tasks_trained": self.tasks, "seed": self.seed}

    def load(self) -> tuple[AudioVisualModel, Config]:
        return load_model(self.checkpoint)


KEYS = ("model", "tasks_trained", "seed")
RAW: Row = {"model": FEATURES, "tasks_trained": None, "seed": 0}


@dataclass(frozen=True)
class Comparison:
    """Models to compare and the clips to do it on.

    Attributes:
        out: folder of all that is made.
        features: path of the feature store.
        manifest: of the clips' media files; None if it was not named.
        labels: JSON Lines of ids and labels, the manifest unless the clips are the demo's.
        columns: of the labels, to learn to tell.
        models: the models, all of the same front ends.
        coarsen: steps of the features that become one.
        quick: True for a run of seconds that shows that everything works.
    """

    out: Path
    features: Path
    manifest: Path | None
    labels: Path | None
    columns: Sequence[str]
    models: Sequence[ComparedModel]
    coarsen: int
    quick: bool

    def clips(self, split: str | None = None) -> Features:
        """Return the clips of one split of the features, None for all."""
        found = coarser(open_features(self.features, split), self.coarsen)
        if len(found) == 0:
            raise ValueError(f"expected clips of the split {split} in {self.features}, got none")
        return found

    def settings(self) -> dict[str, Any]:
        """Return what comparable results share."""
        return {
            "version": __version__,
            "features": str(self.features),
            "coarsen": self.coarsen,
            "quick": self.quick,
        }

    def cells(self) -> list[Row]:
        """Return the keys of all rows: raw features first, then each model."""
        return [RAW, *(model.cell for model in self.models)]

    def model(self, cell: Row) -> tuple[AudioVisualModel, Config]:
        """Return the model of a cell, and the config that it was trained with."""
        return next(model for model in self.models if model.cell == {key: cell[key] for key in KEYS}).load()


def coarser(clips: Features, factor: int) -> Features:
    """Return clips whose every `factor` steps in a row are their mean; 1 leaves the clips as they are."""
    if factor == 1:
        return clips
    sides = [clips.clip(index) for index in range(len(clips))]
    video, audio = ([coarsen_steps(clip[side], factor, "average") for clip in sides] for side in (0, 1))
    return FeatureSet(list(clips.ids), video, audio)


def encode_sides(model: AudioVisualModel, clips: Features) -> dict[str, Sequences]:
    """Return the encoded videos and audios, by side."""
    return dict(zip(("video", "audio"), encode(model, clips), strict=True))


def raw_sides(clips: Features) -> dict[str, Sequences]:
    """Return the features themselves, padded, by side."""
    video, audio = zip(*(clips.clip(index) for index in range(len(clips))), strict=True)
    return {
        side: Sequences(torch.nn.utils.rnn.pad_sequence(list(steps), batch_first=True), lengths)
        for side, steps, lengths in (("video", video, clips.video_lengths), ("audio", audio, clips.audio_lengths))
    }


def prepare(
    out: Path = Path("runs/downstream"),
    checkpoints: Sequence[Path] = (),
    features: Path | None = None,
    manifest: Path | None = None,
    systems: Sequence[SystemName] = ("cav", "scav_dtw"),
    seeds: int = 3,
    epochs: int = FULL.epochs,
    dim: int = FULL.dim,
    coarsen: int = 1,
    quick: bool = False,
    threads: int | None = None,
) -> Comparison:
    """Return the models to compare; render clips and train models that are not there yet.

    Args:
        out: Folder for everything; probes that share it share clips and models.
        checkpoints: Models to probe, all of the features' front ends; none trains them, with and without tasks.
        features: Feature store with the splits train and test; null renders labelled clips of the demo.
        manifest: Manifest (JSON Lines) that the features were extracted from; null takes the demo's clips.
        systems: What to train, by the names of the demo's systems.
        seeds: Models of each kind to train, with seeds from 0 on.
        epochs: Passes over the training clips, the same with tasks and without.
        dim: Size of an encoded step of the models to train.
        coarsen: Steps in a row that become their mean, before anything else, to save time.
        quick: Few clips, one seed and one epoch: shows in seconds that everything runs, not how well.
        threads: CPU threads; null takes as many as PyTorch does.
    """
    if seeds < 1:
        raise ValueError(f"expected at least 1 seed, got {seeds}")
    if checkpoints and features is None:
        raise ValueError("expected the features that the checkpoints are probed on; name them with --features")
    if coarsen < 1:
        raise ValueError(f"coarsen must be at least 1, got {coarsen}")
    if threads is not None:
        torch.set_num_threads(threads)
    if quick:
        seeds, epochs = 1, QUICK_EPOCHS
    settings = {"features": None if features is None else str(features), "quick": quick, "epochs": epochs}
    settings |= {"dim": dim, "coarsen": coarsen}
    prepare_folder(out, STAMP, settings, resume=True, anew=ANEW)
    labels = manifest
    columns: Sequence[str] = ("label",)
    if features is None:
        workers = 0 if torch.get_num_threads() == 1 else torch.get_num_threads()
        features, manifest, labels = make_clips(out, QUICK_CLIPS if quick else FULL_CLIPS, workers=workers)
        columns = COLUMNS
    if checkpoints:
        models = [_named(checkpoint) for checkpoint in checkpoints]
        if len({tuple(model.cell.values()) for model in models}) < len(models):
            raise ValueError(
                "expected checkpoints that differ in distance, tasks or seed, got two that are alike; probe them apart"
            )
    else:
        training = coarser(open_features(features, "train"), coarsen)
        size = replace(FULL, epochs=epochs, train_clips=len(training), dim=dim)
        configs = list(_configs(systems, seeds, size))
        models = [
            _trained(out, name, config, training) for name, config in Progress(configs, desc="models", unit="model")
        ]
    return Comparison(out, features, manifest, labels, columns, models, coarsen, quick)


def _named(checkpoint: Path) -> ComparedModel:
    _, config = load_model(checkpoint)
    return ComparedModel(config.loss.metric, config.tasks.any, config.seed, checkpoint)


def _configs(systems: Sequence[str], seeds: int, size: DemoSize) -> Iterator[tuple[str, Config]]:
    for seed in range(seeds):
        for system in (system for system in SYSTEMS if system.name in systems):
            for tasks in (False, True):
                config = system.config(size, seed)
                if tasks:
                    config = replace(config, tasks=TasksConfig(speed=0.5, direction=0.5, ordering=0.5, hidden=128))
                yield system.name, config


def _trained(out: Path, name: str, config: Config, training: Features) -> ComparedModel:
    folder = out / "models" / f"{name}-{'temporal' if config.tasks.any else 'plain'}-{config.seed}"
    settings = as_stored({"config": to_dict(config), "clips": len(training)})

    def finish(trained: TrainResult) -> dict[str, Any]:
        return {"settings": settings, "history": trained.history}

    path = folder / TRAINED
    found = train_once(path, config, training, finish, lambda: Progress.write(f"{folder.name}: training")) or {}
    check_settings(path, found["settings"], settings, anew=ANEW)
    return ComparedModel(name, config.tasks.any, config.seed, folder / CHECKPOINT)
