"""Encode features in a stream and write them to an index."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scav_model.data import Batch, Features, FeatureStore, collate
from scav_model.data.describe import front_end_differences
from scav_model.data.manifest import Clip
from scav_model.data.store.header import DTYPES
from scav_model.index.header import HEADER, SHARD_BYTES, SIDES, Header, SearchIndexError
from scav_model.index.shard import Encoded
from scav_model.index.writer import IndexWriter
from scav_model.model import AudioVisualModel
from scav_model.progress import Progress
from scav_model.storage.strict_json import is_writable


@dataclass(frozen=True)
class Added:
    """Result of adding features to an index.

    Attributes:
        clips: how many were added.
        known: how many were skipped, because the index has their ids.
        refused: ids of clips that were left out because their features are NaN or infinite, or their files cannot be
            used.
        seconds: wall-clock time.
    """

    clips: int
    known: int
    refused: list[str] = field(default_factory=list)
    seconds: float = 0.0


def open_writer(folder: Path, header: Header, *, shard_bytes: int = SHARD_BYTES) -> IndexWriter:
    """Return a writer of a new index, or of one that was begun with the same settings.

    Raises:
        SearchIndexError: the folder has an index of other settings.
    """
    if not (folder / HEADER).exists():
        return IndexWriter.create(folder, header, shard_bytes=shard_bytes)
    writer = IndexWriter(folder, shard_bytes=shard_bytes)
    if differing := writer.header.differences(header):
        writer.close()
        raise SearchIndexError(
            f"{folder} was built with other settings ({'; '.join(differing)}); repeat those, or choose another folder"
        )
    return writer


def check_features(header: Header, found: dict[str, dict[str, Any]]) -> None:
    """
    Raises:
        SearchIndexError: the features have another size than those of the index, or come from other front ends.
    """
    for side in SIDES:
        if found[side]["dim"] != header.features[side]["dim"]:
            raise SearchIndexError(
                f"expected {side} features of {header.features[side]['dim']} a step, as the index was made of, got "
                f"{found[side]['dim']}; extract them with the same front end"
            )
    differing = front_end_differences(header.features, found)
    if differing:
        raise SearchIndexError(
            f"these features are of other front ends than the index's ({'; '.join(differing)}); extract them with those"
        )


def media_of(features: Features, manifest: Mapping[str, Clip] | None) -> Callable[[int], dict[str, Any]]:
    """Return a function that gives the media of clip i: path and start from the manifest, or else from the store, and
    the rest from the store."""
    columns: dict[str, list[Any]] = {}
    if isinstance(features, FeatureStore):
        paths = [None if path is None else str(path.resolve()) for path in features.paths]
        starts = [None if path is None else start for path, start in zip(paths, features.starts.tolist(), strict=True)]
        columns = {"seconds": features.seconds.tolist(), "label": features.labels, "split": features.splits}
        columns |= {"path": paths, "start": starts}
    ids = features.ids

    def media(index: int) -> dict[str, Any]:
        found = {name: values[index] for name, values in columns.items() if values[index] is not None}
        clip = None if manifest is None else manifest.get(ids[index])
        if clip is not None:
            found |= {"path": str(Path(clip.path).resolve()), "start": clip.start}
            found.setdefault("split", clip.split)
            if clip.label is not None:
                found.setdefault("label", clip.label)
            if clip.duration is not None:
                found.setdefault("seconds", clip.duration)
        if not is_writable(found.get("path", "")):
            del found["path"]
        return found

    return media


@torch.no_grad()
def add_features(
    writer: IndexWriter,
    model: AudioVisualModel,
    features: Features,
    *,
    manifest: Mapping[str, Clip] | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    skip_bad: bool = False,
) -> Added:
    """Encode clips and add those that the index does not have; the same call resumes an interrupted one.

    Memory holds a batch and the clips of one shard, however many clips there are.

    Args:
        manifest: clips by id, from which hits get their media files.
        batch_size: Clips to encode at a time.
        skip_bad: Leave out clips whose features are NaN or infinite, and name them, instead of ending there.

    Raises:
        SearchIndexError: features of another size or front end; NaN or infinite features, naming the clip; a full disk.
            Shards that were committed before stay.
    """
    if batch_size < 1:
        raise SearchIndexError(f"expected batch_size to be at least 1, got {batch_size}")
    started = time.perf_counter()
    media = media_of(features, manifest)
    rest = [index for index, name in enumerate(features.ids) if name not in writer.ids]
    refused: list[str] = []
    model.eval()
    with Progress(total=len(features), initial=len(features) - len(rest), desc="index", unit="clip") as bar:
        for first in range(0, len(rest), batch_size):
            chosen = rest[first : first + batch_size]
            batch = collate(features, chosen)
            bad = bad_clips(batch)
            if bad and not skip_bad:
                side, name = next(iter(bad.items()))[::-1]
                raise SearchIndexError(
                    f"{side} features of {name!r} are NaN or infinite; extract the clip again, or leave such clips out "
                    "with --skip_bad"
                )
            refused += bad
            encoded = encode_batch(model, batch.to(device), writer.header)
            for index, name, steps in zip(chosen, batch.ids, encoded, strict=True):
                if name not in bad:
                    writer.add(Encoded(name, steps, media(index)))
            bar.update(len(chosen))
    writer.commit()
    clips = len(rest) - len(refused)
    return Added(clips, len(features) - len(rest), refused, time.perf_counter() - started)


def bad_clips(batch: Batch) -> dict[str, str]:
    """Return the clips with NaN or infinite features: the side that has them, by id."""
    bad: dict[str, str] = {}
    for side, steps in (("video", batch.video), ("audio", batch.audio)):
        finite = steps.isfinite().flatten(1).all(1).tolist()
        bad |= {name: side for name, good in zip(batch.ids, finite, strict=True) if not good}
    return bad


def encode_batch(model: AudioVisualModel, batch: Batch, header: Header) -> list[dict[str, torch.Tensor]]:
    """Return the steps (T, D) of each clip, for each side of the index, on the CPU and in the dtype of the index."""
    inputs = {
        "video": (model.visual, batch.video, batch.video_lengths),
        "audio": (model.audio, batch.audio, batch.audio_lengths),
    }
    clips: list[dict[str, torch.Tensor]] = [{} for _ in batch.ids]
    for side in header.sides:
        encoder, steps, lengths = inputs[side]
        rows = encoder(steps, lengths).to(DTYPES[header.dtype]).cpu()
        for clip, row, length in zip(clips, rows, lengths.tolist(), strict=True):
            # A copy: a view would keep its whole batch in memory until its shard is written.
            clip[side] = row[:length].clone()
    return clips
