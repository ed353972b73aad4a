"""CM-ACC's claim, measured: actively selected dictionaries beat random ones where random ones are redundant.

A training set of N clips has (1 − r) N distinct clips once each, and r N copies of a few others. Models learn from it
with dictionaries of one size, and search the test clips. What differs is how the dictionary is selected, and whether
copies of a clip count as its negatives or are masked.

| source | candidates | selection |
|---|---|---|
| random | the latest clips | uniform |
| active | the latest clips, as they were encoded when they were trained on | CM-ACC's |
| anew | clips drawn from the training set, encoded for each selection | CM-ACC's |
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Literal, cast

import torch
from torch import Tensor

from scav_kernels._version import __version__
from scav_model.config import Config, NegativesConfig, to_dict
from scav_model.data import Features, FeatureSet, open_features
from scav_model.distances import Sequences, retrieval_distance
from scav_model.experiments.demo.systems import FULL as DEMO
from scav_model.experiments.demo.systems import SYSTEMS
from scav_model.experiments.downstream.clips import FULL, QUICK, make_clips
from scav_model.experiments.downstream.models import SystemName, coarser
from scav_model.experiments.downstream.results import deviation
from scav_model.experiments.folder import as_stored, check_settings, prepare_folder, train_once
from scav_model.experiments.tables import Row, markdown, write_json
from scav_model.objectives.dictionary import clip_keys
from scav_model.objectives.sources import SelectedSource
from scav_model.progress import Progress
from scav_model.retrieval import encode, evaluate
from scav_model.storage.files import working_in, write_text
from scav_model.training import CHECKPOINT, TrainResult

ANEW = "anew"
STAMP, RESULT, ROWS = "active-settings.json", "result.json", "active.json"
COPY_MARK = "#"
# Selections that the dictionary's diversity is the mean of.
SELECTIONS = 20
BATCH = 32


@dataclass(frozen=True)
class Cell:
    """A model to train."""

    repeats: int  # percent of the training clips that are copies
    source: str
    masked: bool  # True if copies are known as such, and no negatives
    seed: int

    @property
    def name(self) -> str:
        return f"{self.repeats}-{self.source}-{'masked' if self.masked else 'plain'}-{self.seed}"


@dataclass(frozen=True)
class ActiveSettings:
    """What all models share."""

    system: str
    clips: int  # in a training set, copies included
    copied: int  # clips that the copies are of
    steps: int  # of the optimizer
    size: int  # of the dictionary
    pool: int  # candidates
    every: int  # steps between two selections
    dim: int
    coarsen: int  # steps that became one

    @property
    def momentum(self) -> float:
        """Share of the momentum encoders' weights kept in a step: the mean age of what they hold is a quarter run.

        MoCo's 0.999 belongs to hundreds of thousands of steps; over a few hundred it would hardly move.
        """
        return max(0.0, 1 - 4 / self.steps)

    def config(self, cell: Cell) -> Config:
        """The settings of one model's training run."""
        epochs = self.steps // (self.clips // BATCH)
        system = next(system for system in SYSTEMS if system.name == self.system)
        config = system.config(replace(DEMO, epochs=epochs, batch_size=BATCH, dim=self.dim), cell.seed)
        return replace(
            config,
            model=replace(config.model, visual_blocks=1, audio_blocks=1),
            negatives=NegativesConfig(
                source="random" if cell.source == "random" else "active",
                encode_anew=cell.source == ANEW,
                copy_mark=COPY_MARK if cell.masked else None,
                size=self.size,
                pool=self.pool,
                every=self.every,
                momentum=self.momentum,
            ),
        )


def run_active(
    features: Path | None = None,
    out: Path = Path("runs/active"),
    shares: Sequence[int] = (0, 50, 80, 95),
    sources: Sequence[Literal["random", "active", "anew"]] = ("random", "active", "anew"),
    seeds: int = 5,
    system: SystemName = "scav_euclidean",
    clips: int = 768,
    copied: int = 16,
    steps: int = 400,
    size: int = 32,
    pool: int = 256,
    every: int = 4,
    dim: int = 32,
    coarsen: int = 1,
    quick: bool = False,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Train every cell, search the test clips, and write active.json and active.md.

    Args:
        features: Feature store with the splits train and test; null renders clips of the demo.
        out: Folder for a checkpoint and a result per cell, active.json and active.md.
        shares: Shares of copies in the training set, in percent, from 0 to 99.
        sources: Ways to select the dictionary; anew is active with candidates encoded for each selection.
        seeds: Models of each cell, with seeds from 0 on; a seed also draws the training set.
        system: Distance, by the name of the demo's system.
        clips: Training clips, copies included; a multiple of 32.
        copied: Clips that the copies are of.
        steps: Steps of the optimizer, of 32 clips each; momentum is 1 − 4 / steps.
        size: Clips in the dictionary.
        pool: Candidates of a selection.
        every: Steps between two selections.
        dim: Size of an encoded step.
        coarsen: Steps in a row that become their mean, before anything else, to save time.
        quick: One seed, few clips and steps: shows in seconds that everything runs, not how well.
        threads: CPU threads; null takes as many as PyTorch does.
    """
    if quick:
        shares, seeds, clips, copied, steps, size, pool = (0, 50), 1, 32, 4, 4, 8, 16
    outside = [share for share in shares if not 0 <= share < 100]
    if outside or not shares:
        raise ValueError(f"shares must be from 0 to 99 %, got {', '.join(map(str, outside)) or 'none'}")
    if clips < BATCH or clips % BATCH:
        raise ValueError(f"clips must be a multiple of {BATCH}, the clips of a step, got {clips}")
    if steps < clips // BATCH:
        raise ValueError(f"steps must be at least {clips // BATCH}, a pass over the clips, got {steps}")
    if copied < 1 or seeds < 1:
        raise ValueError(f"copied and seeds must be at least 1, got {copied} and {seeds}")
    if threads is not None:
        torch.set_num_threads(threads)
    shared = ActiveSettings(system, clips, copied, steps, size, pool, every, dim, coarsen)
    with working_in(out, "runs an experiment"):
        settings = {"version": __version__, "features": None if features is None else str(features), "quick": quick}
        prepare_folder(out, STAMP, settings, resume=resume, anew="choose another folder")
        if features is None:
            features, _, _ = make_clips(out, QUICK if quick else FULL)
        training, held_out = (coarser(open_features(features, split), coarsen) for split in ("train", "test"))
        rows = []
        for cell in Progress([*cells(shares, sources, seeds)], desc="models", unit="model"):
            rows.append(train_cell(cell, shared, training, held_out, out / "models" / cell.name))
            write_json(out / ROWS, rows)
        text = described(rows, shared)
        write_text(out / "active.md", text + "\n")
    print(text)


def cells(shares: Sequence[int], sources: Sequence[str], seeds: int) -> Iterator[Cell]:
    """Yield all models, seed by seed, so that an interrupted run has as many of each kind."""
    for seed in range(seeds):
        for share in shares:
            # Without copies there is nothing to mask.
            for masked in (False, True) if share else (False,):
                for source in sources:
                    yield Cell(share, source, masked, seed)


def training_set(training: Features, cell: Cell, clips: int, copied: int) -> FeatureSet:
    """Return `clips` clips of which `cell.repeats` percent are copies; ids are NAME#0, NAME#1 and so on.

    The same seed draws the same clips, whatever the source.
    """
    copies = round(clips * cell.repeats / 100)
    needed = clips - copies + (copied if copies else 0)
    if needed > len(training):
        raise ValueError(
            f"expected {needed} distinct training clips for {cell.repeats} % copies, got {len(training)}; lower clips"
        )
    generator = torch.Generator().manual_seed(cell.seed)
    order = torch.randperm(len(training), generator=generator)[:needed].tolist()
    single, several = order[: clips - copies], order[clips - copies :]
    places = [(place, 0) for place in single]
    places += [(several[number % copied], number // copied) for number in range(copies)]
    sides = {place: training.clip(place) for place in order}
    return FeatureSet(
        [f"{training.ids[place]}{COPY_MARK}{number}" for place, number in places],
        [sides[place][0] for place, _ in places],
        [sides[place][1] for place, _ in places],
    )


def train_cell(cell: Cell, shared: ActiveSettings, training: Features, held_out: Features, folder: Path) -> Row:
    """Return the row of one model: R@1 in percent, mean of both directions, and what its dictionary holds."""
    config = shared.config(cell)
    settings = as_stored({"config": to_dict(config), "clips": shared.clips, "copied": shared.copied})
    settings["coarsen"] = shared.coarsen
    clips = training_set(training, cell, shared.clips, shared.copied)

    def search(trained: TrainResult) -> dict[str, Any]:
        video, audio = encode(trained.model, held_out)
        found = evaluate(video, audio, retrieval_distance(trained.config), modes=("sequence",))
        row = {
            "repeats": cell.repeats,
            "source": cell.source,
            "masked": cell.masked,
            "seed": cell.seed,
            "R@1": mean(row["R@1"] for row in found),
            **dictionary_measures(cast(SelectedSource, trained.objective.source), trained, clips.ids, video, audio),
            "gallery": len(held_out),
        }
        return {"settings": settings, "row": row}

    path = folder / RESULT
    found = train_once(path, config, clips, search, lambda: Progress.write(f"{cell.name}: training", file=sys.stderr))
    found = found or {}
    check_settings(path, found["settings"], settings, anew="choose another folder")
    # Hundreds of models are not needed once they have been searched.
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return dict(found["row"])


@torch.no_grad()
def dictionary_measures(
    source: SelectedSource, trained: TrainResult, ids: Sequence[str], video: Sequences, audio: Sequences
) -> Row:
    """Return what 20 more selections of the trained model hold, in percent, mean of both modalities.

    `diversity`: distinct clips. `copies`: entries of clips that have copies. `pool_copies`: the same of the candidates.
    `hardness`: share of the softmax that falls on the dictionary, mean over held-out clips; a dictionary of clips that
    are far from all others has a small one, and teaches little.

    Args:
        source: of the trained model's negatives.
        trained: the model.
        ids: of the training clips.
        video, audio: held-out clips, encoded.
    """
    contrast = trained.objective.contrast
    scale, own = contrast.scale, contrast.distance.pairs(video, audio)
    device = source.videos.steps.device
    mark = source.config.copy_mark
    names = [name.partition(COPY_MARK)[0] for name in ids]
    clip_of = dict(zip(clip_keys(ids, device, mark).tolist(), names, strict=True))
    several = {name for name in names if names.count(name) > 1}
    nothing = torch.empty(0, dtype=torch.int64, device=device)

    def clips_of(keys: Tensor) -> list[str]:
        return [clip_of[key] for key in keys.tolist()]

    distinct, copies, available, hardness = [], [], [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.config.seed)
        for _ in range(SELECTIONS):
            candidates = clips_of(source.candidates(device)[0].keys)
            available.append(mean(name in several for name in candidates))
            source.renew(contrast, nothing)
            videos, audios = (shelf.first(source.held).clips for shelf in (source.videos, source.audios))
            for distances in (contrast.distance.all_pairs(video, audios), contrast.distance.all_pairs(videos, audio).T):
                against = (-scale * distances).logsumexp(1)
                hardness.append(float((against + scale * own).sigmoid().mean()))
            for shelf in (source.videos, source.audios):
                held = clips_of(shelf.first(source.held).keys)
                distinct.append(len(set(held)) / len(held))
                copies.append(mean(name in several for name in held))
    return {
        "diversity": 100 * mean(distinct),
        "copies": 100 * mean(copies),
        "pool_copies": 100 * mean(available),
        "hardness": 100 * mean(hardness),
    }


def described(rows: Sequence[Row], shared: ActiveSettings) -> str:
    """Return the table of these rows under a line that says what was done."""
    seeds = len({row["seed"] for row in rows})
    note = (
        f"{shared.system}, {shared.clips} training clips, copies of {shared.copied}, {shared.steps} steps, dictionary "
        f"of {shared.size} from a pool of {shared.pool}, momentum {shared.momentum:g}, D = {shared.dim}, "
        f"{shared.coarsen} steps made one; R@1 in % among {rows[0]['gallery']} clips, mean of both directions; "
        f"mean ± standard deviation of {seeds} seeds."
    )
    return f"{note}\n\n{table(rows)}"


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table: R@1 and what the dictionary holds, by share of copies and source."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["repeats"], row["masked"], row["source"]), []).append(row)
    lines = [
        [
            f"{share}",
            "yes" if masked else "no",
            source,
            *(deviation([row[name] for row in found]) for name in ("R@1", "diversity", "copies", "hardness")),
        ]
        for (share, masked, source), found in groups.items()
    ]
    heads = ["copies, %", "masked", "source", "R@1", "distinct, %", "copies in it, %", "hardness, %"]
    return markdown(heads, lines, names=3)
