"""The clips of the tunes on disk: engraved, split, rendered, and turned into features.

Below `out`:

    engravings/NAME.npz                        engraved tunes; NAME.failed where Verovio failed
    engravings-reordered/NAME.npz              test tunes, pitches exchanged among every four notes
    data.json                                  how many tunes, clusters and clips there are
    <set>/<split>/ID.mp4                       clips of a set: async, noise, sync, reordered, bars
    <set>/manifest.jsonl, <set>/features/      what `scav extract` would read and write

Each stage reads only what the one before left on disk, and each file appears whole, so that a stopped run can go on.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scav_model.data import FeatureStore
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip, read_manifest, write_manifest
from scav_model.data.store.header import HEADER, StoreHeader
from scav_model.data.workers import parallel_map
from scav_model.encoders import EncoderOptions, both_encoders
from scav_model.experiments.tables import write_json
from scav_model.experiments.tunes.corpus import Tune, read_tunes, reorder
from scav_model.experiments.tunes.engraving import Score, engrave_all
from scav_model.experiments.tunes.excerpts import Excerpt, cut, notes_of, permute_bars
from scav_model.experiments.tunes.render import ClipTask, render_clip
from scav_model.experiments.tunes.splits import SHARES, cluster, split_tunes, without_near_duplicates
from scav_model.storage.files import remove_partial

SPLIT_SEED = 0
ENGRAVINGS, REORDERED = "engravings", "engravings-reordered"
VIDEO_RATE = 10.0  # frames/s
# Sets that models are trained on; the others hold test clips alone.
TRAINED = ("async", "noise", "sync")


@dataclass(frozen=True)
class TunesSize:
    """Sizes of the experiment."""

    tunes: int | None = None  # the first of the collection; None: all
    epochs: int = 10
    batch_size: int = 32
    dim: int = 64


@dataclass(frozen=True)
class FrontEnds:
    """Front ends, as `scav extract` takes them."""

    visual: str
    audio: str


@dataclass(frozen=True)
class Collection:
    """Engraved tunes and their excerpts by split."""

    tunes: Mapping[str, Tune]
    excerpts: Mapping[str, Sequence[Excerpt]]  # by split
    folder: Path  # of the experiment
    scores: Mapping[str, Score]


def collect(out: Path, size: TunesSize, workers: int) -> Collection:
    """Engrave the tunes, split them by clusters, and cut them into excerpts."""
    found = {tune.name: tune for tune in read_tunes()[: size.tunes]}
    scores = engrave_all({name: tune.abc for name, tune in found.items()}, out / ENGRAVINGS, workers, "engraving")
    tunes = {name: found[name] for name in scores}
    clusters = cluster([*tunes.values()], scores)
    splits = split_tunes(clusters, SPLIT_SEED)
    cuts = {
        split: [excerpt for name in names for excerpt in cut(name, scores[name])] for split, names in splits.items()
    }
    excerpts = {
        split: cuts[split] if split == "train" else without_near_duplicates(cuts[split], scores) for split in SHARES
    }
    write_json(
        out / "data.json",
        {
            "tunes": len(found),
            "engraved": len(tunes),
            "clusters": len(clusters),
            "splits": {
                split: {"tunes": len(splits[split]), "cut": len(cuts[split]), "clips": len(excerpts[split])}
                for split in SHARES
            },
            "rhythms": dict(Counter(tune.rhythm for tune in tunes.values()).most_common(5)),
        },
    )
    return Collection(tunes, excerpts, out, scores)


def reordered_scores(collection: Collection, workers: int) -> dict[str, Score]:
    """Return the test tunes with pitches exchanged among every four notes, engraved."""
    names = dict.fromkeys(excerpt.tune for excerpt in collection.excerpts["test"])
    abcs = {
        name: reorder(collection.tunes[name].abc, np.random.default_rng(zlib.crc32(name.encode()))) for name in names
    }
    return engrave_all(abcs, collection.folder / REORDERED, workers, "engraving in another order")


def set_excerpts(collection: Collection, name: str, workers: int) -> Iterator[tuple[str, Excerpt]]:
    """Yield the excerpts of a set and their splits; an excerpt in another order must differ from its own."""
    if name in TRAINED:
        yield from ((split, excerpt) for split in SHARES for excerpt in collection.excerpts[split])
        return
    reordered = reordered_scores(collection, workers) if name == "reordered" else {}
    for excerpt in collection.excerpts["test"]:
        original = collection.scores[excerpt.tune]
        if name == "bars":
            differs = permute_bars(excerpt, original) is not None
        else:
            differs = excerpt.tune in reordered and is_reordered(excerpt, original, reordered[excerpt.tune])
        if differs:
            yield "test", excerpt


def is_reordered(excerpt: Excerpt, original: Score, reordered: Score) -> bool:
    """Return True if the reordered tune has the excerpt's notes, at the same times, in another order."""
    if not np.array_equal(reordered.onsets, original.onsets):
        return False
    before, after = (notes_of(excerpt, score).pitches for score in (original, reordered))
    return not np.array_equal(before, after)


def clip_tasks(collection: Collection, name: str, workers: int) -> list[tuple[Clip, ClipTask]]:
    """Return the clips of a set, and how to make each."""
    engravings = collection.folder / (REORDERED if name == "reordered" else ENGRAVINGS)
    made = []
    for split, excerpt in set_excerpts(collection, name, workers):
        path = collection.folder / name / split / f"{excerpt.id}.mp4"
        clip = Clip(f"{name}-{excerpt.id}", path, split, label=collection.tunes[excerpt.tune].rhythm or None)
        sync, noise, bars = (name == kind for kind in ("sync", "noise", "bars"))
        source = engravings / f"{excerpt.tune}.npz"
        made.append((clip, ClipTask(excerpt, source, path, sync=sync, noise=noise, bars=bars)))
    return made


def make_features(collection: Collection, name: str, front_ends: FrontEnds, workers: int) -> Path:
    """Render the set's clips, write its manifest and extract its features; return the folder of the features."""
    folder = collection.folder / name
    made = clip_tasks(collection, name, workers)
    for split in {clip.split for clip, _ in made}:
        (folder / split).mkdir(parents=True, exist_ok=True)
        remove_partial(folder / split)
    missing = [task for _, task in made if not task.out.exists()]
    if missing:
        for _ in parallel_map(render_clip, missing, workers=workers, description=f"{name}: clips"):
            pass
    write_manifest(folder / "manifest.jsonl", [clip for clip, _ in made])
    features = folder / "features"
    clips = read_manifest(folder / "manifest.jsonl")
    if not ((features / HEADER).exists() and StoreHeader.read(features).clips == len(clips)):
        config = ExtractionConfig(frame_rate=VIDEO_RATE, workers=workers, max_bad_share=0.0)
        extract(clips, features, *both_encoders(front_ends.visual, front_ends.audio, EncoderOptions()), config)
    return features


def paired(first: FeatureStore, second: FeatureStore) -> tuple[FeatureStore, FeatureStore]:
    """Return the clips of both sets that are of the same excerpts, in the same order."""
    names = [{clip.partition("-")[2]: place for place, clip in enumerate(store.ids)} for store in (first, second)]
    both = [name for name in names[0] if name in names[1]]
    one, two = (
        store.subset([places[name] for name in both]) for store, places in zip((first, second), names, strict=True)
    )
    return one, two
