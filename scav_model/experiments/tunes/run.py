"""The tunes, from engraving to the table: models compared on clips of a moving score and the sound of a synthesizer.

Below `out`, besides what `dataset` keeps there:

    tunes.json                                 settings that everything was made with
    <set>/seed-<k>/<model>/                    checkpoint.pt, and <condition>.json with the rows of each condition
    shuffled/<model>/                          the control that is trained on shuffled pairs
    results.json, controls.json, table.md, retrieval.png
    tuning/, tuning.json                       see `tuning`
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch

from scav_kernels._version import __version__
from scav_model.checkpoint import load_model
from scav_model.data import FeatureStore
from scav_model.distances import Distance, Sequences, retrieval_distance
from scav_model.experiments.folder import prepare_folder, train_once
from scav_model.experiments.tables import Row, read_json, write_json
from scav_model.experiments.tunes.controls import ShuffledPairs, bars_row, shuffled_rows
from scav_model.experiments.tunes.dataset import TRAINED, FrontEnds, TunesSize, collect, make_features, paired
from scav_model.experiments.tunes.results import KEYS, MEASURES, controls_table, plot, search_rows, table
from scav_model.experiments.tunes.systems import SYSTEMS, training_config
from scav_model.experiments.tunes.tuning import tune, tuning_table
from scav_model.model import AudioVisualModel
from scav_model.retrieval import encode
from scav_model.storage.files import LOCK, working_in, write_text
from scav_model.training import CHECKPOINT, TrainResult

STAMP = "tunes.json"
FULL, QUICK = TunesSize(), TunesSize(tunes=48, epochs=6, batch_size=16)
Condition = Literal["async", "noise", "reordered", "sync"]
Model = Literal["cav", "scav_euclidean", "scav_dtw", "scav_sinkhorn"]
CONDITIONS: tuple[Condition, ...] = ("async", "noise", "reordered", "sync")
MODELS: tuple[Model, ...] = ("cav", "scav_euclidean", "scav_dtw", "scav_sinkhorn")
CONTROLLED: tuple[Model, ...] = ("cav", "scav_dtw")


def run_tunes(
    out: Path = Path("runs/tunes"),
    conditions: Sequence[Condition] | None = None,
    models: Sequence[Model] = MODELS,
    seeds: int | None = None,
    quick: bool = False,
    controls: bool = True,
    tuning: bool = False,
    visual: str = "gray:16x32",
    audio: str = "log_mel",
    seed: int = 0,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Engrave, play, train and search; write results.json, controls.json, table.md and retrieval.png in `out`.

    Args:
        out: Folder for engravings, clips, features, checkpoints and results.
        conditions: Conditions to compare the models in: async (sound and picture have tempo curves of their own), noise
            (async, with noise in both), reordered (async, with clips of the same notes in another order in the
            gallery), sync (one tempo curve for both). Null is all, or async with --quick.
        models: Models to compare.
        seeds: Number of trainings of each model, with weights of their own; null is 3, or 1 with --quick.
        quick: Few tunes and epochs: shows in two minutes that everything runs, not how well.
        controls: Whether to train on shuffled pairs, and to search among sounds with permuted bars, with CAV and
            SCAV-DTW.
        tuning: Instead, train each model at several learning rates and scales and search among tunes that no result is
            of; writes tuning.json.
        visual: Front end of the picture, as scav extract takes it.
        audio: Front end of the sound, as scav extract takes it: log_mel, or notes (pip install --no-deps basic-pitch).
        seed: Seed of the first training; the others count up from it.
        threads: CPU threads to train with and processes to engrave, render and decode with; null is one per core.
    """
    conditions = conditions or (("async",) if quick else CONDITIONS)
    seeds = seeds if seeds is not None else 1 if quick else 3
    if seeds < 1:
        raise ValueError(f"expected at least 1 seed, got {seeds}")
    if not models:
        raise ValueError(f"expected at least one model, got none; {', '.join(MODELS)} are known")
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        # One worker would be this process and a hand-over.
        workers = 0 if torch.get_num_threads() == 1 else torch.get_num_threads()
        with working_in(out, "runs the tunes"):
            experiment = TunesExperiment(out, QUICK if quick else FULL, FrontEnds(visual, audio), workers, resume)
            if tuning:
                print(tuning_table(tune(out, experiment.store("async"), experiment.size, models, seed)))
            else:
                experiment.run(conditions, models, range(seed, seed + seeds), controls)
    finally:
        torch.set_num_threads(before)


class TunesExperiment:
    """One folder of the experiment, and what is read from it.

    Args:
        resume: keep what an earlier run with the same settings left; else start anew.
    """

    def __init__(self, out: Path, size: TunesSize, front_ends: FrontEnds, workers: int, resume: bool) -> None:
        self.out, self.size, self.front_ends, self.workers = out, size, front_ends, workers
        if not resume and (out / STAMP).exists():
            clear(out)
        settings = {"version": __version__, **asdict(front_ends), **asdict(size)}
        prepare_folder(out, STAMP, settings, resume=resume, anew="start anew without resuming")
        self.collection = collect(out, size, workers)
        self.stores: dict[str, FeatureStore] = {}

    def run(
        self, conditions: Sequence[Condition], models: Sequence[Model], seeds: Sequence[int], controls: bool
    ) -> None:
        """Fill in what is missing, and write the results of all conditions, models and seeds."""
        started = time.perf_counter()
        labels = {name: system.label for name, system in SYSTEMS.items()}
        order = {name: place for place, name in enumerate((*CONDITIONS, *MODELS))}
        rows: list[Row] = []
        # All models of a seed first: a run that is stopped has something to compare.
        for seed in seeds:
            for condition in conditions:
                for model in models:
                    rows += self.rows(condition, model, seed)
                    rows.sort(key=lambda row: (order[row["condition"]], order[row["model"]], row["seed"]))
                    write_json(self.out / "results.json", rows)
        text = table(rows, labels)
        if controls:
            found = [row for model in models if model in CONTROLLED for row in self.control_rows(model, seeds[0])]
            write_json(self.out / "controls.json", found)
            text += f"\n\n{controls_table(found, labels)}"
        write_text(self.out / "table.md", text + "\n")
        plot(rows, labels, self.out / "retrieval.png")
        print(text)
        minutes = (time.perf_counter() - started) / 60
        print(f"{minutes:.1f} min; {self.out}/results.json, controls.json, table.md and retrieval.png written")

    def store(self, name: str) -> FeatureStore:
        """Return the features of a set, made now if they are not there yet."""
        if name not in self.stores:
            folder = make_features(self.collection, name, self.front_ends, self.workers)
            self.stores[name] = FeatureStore.open(folder)
        return self.stores[name]

    def rows(self, condition: Condition, model: Model, seed: int) -> list[Row]:
        """Return the results of a model in a condition; train it and search with it if they are not there yet."""
        trained_on = condition if condition in TRAINED else "async"
        folder = self.out / trained_on / f"seed-{seed}" / model
        path = folder / f"{condition}.json"
        if path.exists():
            return read_json(path)
        if condition != trained_on:
            self.rows("async", model, seed)
            found = self.search(load_model(folder / CHECKPOINT)[0], condition, model, seed)
            write_json(path, found)
            return found
        training = self.store(trained_on).select("train")
        config = training_config(SYSTEMS[model], self.size, len(training), seed)

        def announce() -> None:
            print(f"{condition}, seed {seed}, {SYSTEMS[model].label}: training", flush=True)

        def search(trained: TrainResult) -> list[Row]:
            return self.search(trained.model, condition, model, seed)

        return train_once(path, config, training, search, announce) or []

    def search(self, model: AudioVisualModel, condition: Condition, name: Model, seed: int) -> list[Row]:
        """Return the rows of a trained model among a condition's held-out clips."""
        galleries = [self.store("async" if condition == "reordered" else condition).select("test")]
        if condition == "reordered":
            galleries.append(self.store("reordered"))
        encoded = [encode(model, clips) for clips in galleries]
        video, audio = (concatenate(sides) for sides in zip(*encoded, strict=True))
        found = search_rows(video, audio, self.own_distance(name))
        return [
            {key: row[key] for key in (*KEYS, *MEASURES)}
            for row in ({"condition": condition, "model": name, "seed": seed, **row} for row in found)
        ]

    def own_distance(self, model: Model) -> Distance:
        """Return the distance that a model is searched by unless another is asked for."""
        return retrieval_distance(training_config(SYSTEMS[model], self.size, 2, 0))

    def control_rows(self, model: Model, seed: int) -> list[Row]:
        """Return the rows of both controls of a model."""
        return self.shuffled_rows(model, seed) + self.bars_rows(model, seed)

    def shuffled_rows(self, model: Model, seed: int) -> list[Row]:
        """Train on shuffled pairs and search among true ones, unless that is done."""
        store = self.store("async")
        training = ShuffledPairs.draw(store.select("train"), seed)

        def announce() -> None:
            print(f"shuffled pairs, {SYSTEMS[model].label}: training", flush=True)

        def search(trained: TrainResult) -> list[Row]:
            found = shuffled_rows(*encode(trained.model, store.select("test")), self.own_distance(model))
            return [{"model": model, "seed": seed, **row} for row in found]

        config = training_config(SYSTEMS[model], self.size, len(training), seed)
        return train_once(self.out / "shuffled" / model / f"seed-{seed}.json", config, training, search, announce) or []

    def bars_rows(self, model: Model, seed: int) -> list[Row]:
        """Search with a model of the async condition among sounds with permuted bars, unless that is done."""
        folder = self.out / "async" / f"seed-{seed}" / model
        path = folder / "bars.json"
        if not path.exists():
            self.rows("async", model, seed)
            trained = load_model(folder / CHECKPOINT)[0]
            clips, permuted = paired(self.store("async").select("test"), self.store("bars"))
            row = bars_row(*encode(trained, clips), encode(trained, permuted)[1], self.own_distance(model), seed)
            write_json(path, [{"model": model, "seed": seed, **row}])
        return read_json(path)


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """Return clips of one length, one after the other."""
    return Sequences(torch.cat([part.steps for part in parts]), torch.cat([part.lengths for part in parts]))


def clear(folder: Path) -> None:
    """Empty the folder of an earlier run, but for the lock of this process."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
