"""Fingerprints: a clip found again among others after it was encoded again, cropped, cut, sped up and the like.

The transformed picture searches the original pictures, the transformed sound the original sounds. Nothing is trained
for this.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch

from scav_model.data import Features, FeatureStore, open_features
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip, read_manifest
from scav_model.data.store.header import HEADER, StoreHeader
from scav_model.data.workers import parallel_map
from scav_model.distances import POOLED_COSINE, Distance, Sequences, retrieval_distance
from scav_model.encoders.described import described_encoder
from scav_model.experiments.downstream.models import FEATURES, KEYS, Comparison, coarser, encode_sides, raw_sides
from scav_model.experiments.downstream.results import write_rows
from scav_model.experiments.downstream.transformations import TRANSFORMATIONS, transform
from scav_model.experiments.probes.results import Results
from scav_model.experiments.tables import Row
from scav_model.retrieval import evaluate
from scav_model.storage.files import remove_partial, working_in

RAW_DISTANCE = "interpolated_euclidean"


@torch.no_grad()
def run_fingerprint(
    comparison: Comparison,
    *,
    transformations: Sequence[Literal["reencode", "crop", "cut", "noise", "speed", "pitch", "stretch"]] = (
        "reencode",
        "crop",
        "cut",
        "noise",
        "speed",
        "pitch",
        "stretch",
    ),
    clips: int = 256,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Row]:
    """Return a row for each model, transformation, side and embedding; write results.json and table.md.

    A row's `accuracy` is R@1 in percent: transformed clips that find their original first.

    Args:
        transformations: What is done to the clips; scav_model.experiments.downstream.transformations has the filters.
        clips: Test clips to transform and to search among, the first of the split.
        resume: Keep the finished models of an earlier run with the same settings.
    """
    unknown = [name for name in transformations if name not in TRANSFORMATIONS]
    if unknown or not transformations:
        raise ValueError(
            f"transformations must be some of {', '.join(TRANSFORMATIONS)}, got {', '.join(unknown) or 'none'}"
        )
    if clips < 2:
        raise ValueError(f"clips must be at least 2, to search among, got {clips}")
    originals = comparison.clips("test")
    originals = originals.subset(range(min(clips, len(originals))))
    settings = {**comparison.settings(), "clips": len(originals)}
    out = comparison.out / "fingerprint"
    with working_in(out, "runs an experiment"):
        results = Results(out, settings, (*KEYS, "task"), resume=resume, overwrite=overwrite)
        stores = {name: transformed_features(comparison, originals, name, out) for name in transformations}

        @functools.lru_cache(maxsize=1)
        def encoded(model: str, tasks: bool | None, seed: int) -> tuple[Mapping[str, Sequences], Distance]:
            """Encode the originals once for all transformations."""
            if model == FEATURES:
                return raw_sides(originals), Distance(RAW_DISTANCE)
            trained, config = comparison.model(dict(zip(KEYS, (model, tasks, seed), strict=True)))
            return encode_sides(trained, originals), retrieval_distance(config)

        def search(cell: Row) -> list[Row]:
            items, distance = encoded(*(cell[key] for key in KEYS))
            found = stores[cell["task"].removeprefix("fingerprint ")]
            if cell["model"] == FEATURES:
                queries: Mapping[str, Sequences] = raw_sides(found)
            else:
                queries = encode_sides(comparison.model(cell)[0], found)
            changed = TRANSFORMATIONS[cell["task"].removeprefix("fingerprint ")].sides
            return [row for side in changed for row in find_again(queries[side], items[side], side, distance)]

        cells = [{**cell, "task": f"fingerprint {name}"} for cell in comparison.cells() for name in transformations]
        rows = results.fill(cells, search)
        note = f"R@1 in % among {len(originals)} clips, mean ± standard deviation over seeds."
        write_rows(comparison, out, rows, note)
        return rows


def find_again(queries: Sequences, items: Sequences, side: str, distance: Distance) -> list[Row]:
    """Return R@1 of queries whose own item has the same number, by mean and by sequence."""
    rows = []
    for embedding, by in (("mean", Distance(POOLED_COSINE)), ("sequence", distance)):
        found = evaluate(queries, items, by, modes=("sequence",))
        recall = next(row["R@1"] for row in found if row["direction"] == "v2a")
        rows.append({"side": side, "embedding": embedding, "accuracy": recall, "chance": 100 / len(items.lengths)})
    return rows


def transformed_features(comparison: Comparison, originals: Features, name: str, out: Path) -> Features:
    """Return the features of the transformed clips in the order of the originals; make what is missing in `out`."""
    if comparison.manifest is None:
        raise ValueError("expected the clips' media files; name the manifest that has them with --manifest")
    listed = {clip.id: clip for clip in read_manifest(comparison.manifest)}
    missing = [name for name in originals.ids if name not in listed]
    if missing:
        raise ValueError(f"{comparison.manifest} does not list {missing[0]!r}; name the manifest of the features")
    folder = out / "clips" / name
    folder.mkdir(parents=True, exist_ok=True)
    remove_partial(folder)
    made = [Clip(clip_id, folder / f"{number:05d}.mp4", "test") for number, clip_id in enumerate(originals.ids)]
    work = [(listed[clip.id], name, clip.path) for clip in made if not clip.path.exists()]
    for _ in parallel_map(_transform, work, workers=0, description=name):
        pass
    store = FeatureStore.open(comparison.features)
    features = out / "features" / name
    if not ((features / HEADER).exists() and StoreHeader.read(features).clips == len(made)):
        visual, audio = (
            described_encoder(getattr(store.header, side), side, owner="feature store") for side in ("video", "audio")
        )
        config = ExtractionConfig(frame_rate=store.header.video["rate_hz"], workers=0, max_bad_share=0.0)
        extract(made, features, visual, audio, config)  # type: ignore[arg-type]
    found = coarser(open_features(features), comparison.coarsen)
    places = {clip_id: place for place, clip_id in enumerate(found.ids)}
    return found.subset([places[clip_id] for clip_id in originals.ids])


def _transform(work: tuple[Clip, str, Path]) -> None:
    transform(*work)
