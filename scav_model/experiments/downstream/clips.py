"""Clips of the bundled demo with labels, and longer ones in which to find an offset.

clips/, manifest.jsonl    4 s clips of the splits train and test, and 8 s clips of the split long
labels.jsonl              per clip, `kinds` (the three that sound, 20 classes) and `first` (which strikes first, 6)
features/                 the feature store
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.frontends import FramePatchConfig, LogMelConfig
from scav_model.data.manifest import Clip, read_manifest, write_manifest
from scav_model.data.store.header import HEADER, StoreHeader
from scav_model.data.workers import parallel_map
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
from scav_model.experiments.demo.render import render
from scav_model.experiments.demo.run import FRAME_RATE
from scav_model.experiments.demo.scene import Scene, SceneConfig, make_scene
from scav_model.storage.files import remove_partial, write_text

LABELS = "labels.jsonl"
COLUMNS = ("kinds", "first")
LONG = SceneConfig(duration=8.0, short_share=0.0, strikes=(6, 14), off_screen=6)


@dataclass(frozen=True)
class ClipCounts:
    """Clips of each split."""

    train: int = 768
    test: int = 256
    long: int = 128


FULL, QUICK = ClipCounts(), ClipCounts(train=32, test=8, long=4)


def scene_of(clip: Clip, seed: int) -> Scene:
    """Return the scene that a clip shows."""
    return make_scene(seed, clip.split, int(clip.path.stem), LONG if clip.split == "long" else None)


def labels_of(scene: Scene) -> dict[str, str]:
    """Return the labels of a scene, by column."""
    sounding = sorted(item.kind.timbre for item in scene.objects if item.kind.timbre)
    return {"kinds": " ".join(sounding), "first": scene.onsets()[0][1].timbre or ""}


def make_clips(out: Path, counts: ClipCounts = FULL, seed: int = 0, workers: int = 0) -> tuple[Path, Path, Path]:
    """Render and extract what is missing in `out`; return the feature store, the manifest and the labels.

    Args:
        out: folder of the clips, the manifest, the labels and the features.
        counts: clips of each split.
        seed: of the scenes.
        workers: processes that render and decode; 0 does so in this one.
    """
    clips = [
        Clip(f"{split}-{index:05d}", out / "clips" / split / f"{index:05d}.mp4", split)
        for split, count in (("train", counts.train), ("test", counts.test), ("long", counts.long))
        for index in range(count)
    ]
    for split in {clip.split for clip in clips}:
        (out / "clips" / split).mkdir(parents=True, exist_ok=True)
        remove_partial(out / "clips" / split)
    missing = [clip for clip in clips if not clip.path.exists()]
    for _ in parallel_map(functools.partial(_render, seed=seed), missing, workers=workers, description="clips"):
        pass
    manifest = out / "manifest.jsonl"
    write_manifest(manifest, clips)
    lines = (json.dumps({"id": clip.id, **labels_of(scene_of(clip, seed))}) for clip in clips)
    write_text(out / LABELS, "\n".join(lines) + "\n")
    features = out / "features"
    if not ((features / HEADER).exists() and StoreHeader.read(features).clips == len(clips)):
        config = ExtractionConfig(frame_rate=FRAME_RATE, workers=workers, max_bad_share=0.0)
        # Read back, so that the store has the paths of the manifest.
        listed = read_manifest(manifest)
        extract(listed, features, FramePatchEncoder(FramePatchConfig()), LogMelEncoder(LogMelConfig()), config)
    return features, manifest, out / LABELS


def _render(clip: Clip, seed: int) -> None:
    render(scene_of(clip, seed), clip.path)
