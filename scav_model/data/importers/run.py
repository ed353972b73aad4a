"""From a source of any format to a feature store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scav_model.data.folders import passed_over_line
from scav_model.data.importers.clip import ImportConfig, ImportedClip, Reader
from scav_model.data.importers.hdf5 import read_hdf5
from scav_model.data.importers.layouts import arranged, rates_of
from scav_model.data.importers.npz import read_npz
from scav_model.data.importers.tars import read_tars
from scav_model.data.store.header import Entry, Skipped, StoreError, StoreHeader
from scav_model.data.store.writer import StoreWriter
from scav_model.progress import Progress
from scav_model.storage.text import printable, say

READERS: dict[str, Reader] = {"npz": read_npz, "hdf5": read_hdf5, "webdataset": read_tars}
FIRST_CLIPS = 8  # clips that decide how many features the steps of a new store have


def import_features(kind: str, source: Path | str, out: Path | str, config: ImportConfig) -> tuple[int, int]:
    """Put the features at `source` into the store at `out`; return how many clips were taken and how many refused.

    The same call goes on where an earlier one stopped. A clip that cannot be used is named and listed with the reason,
    and so is an archive that ends early. What is passed over is counted by kind.

    Raises:
        StoreError: an unknown format, no usable clip at all, or a store that was begun with other settings.
        ValueError: the steps per second are not known.
    """
    if kind not in READERS:
        raise StoreError(f"expected a format out of {', '.join(READERS)}, got {kind!r}")
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"nothing at {source} to import features from")
    rates = rates_of(config)
    dims = _dims(kind, source, config)
    layout: dict[str, Any] = {} if config.layout == "steps" else {"layout": config.layout}
    if config.layout == "synchformer":
        layout["segment_overlap"] = config.segment_overlap
    video, audio = (
        {"dim": dim, "rate_hz": rate, "encoder": "imported", "model": kind, **layout}
        for dim, rate in zip(dims, rates, strict=True)
    )
    header = StoreHeader(video, audio, dtype=config.dtype)
    taken = 0
    origins: dict[str, str] = {}
    passed_over: Counter[str] = Counter()
    with StoreWriter(out, header, shard_bytes=config.shard_bytes) as writer:
        for read in Progress(READERS[kind](source, config, passed_over), desc="clips", unit="clip"):
            clip = arranged(read, config)
            if clip.id in origins:
                reason: str | None = f"the id is already used, in {origins[clip.id]}; rename one of the clips"
            elif clip.id in writer.done or clip.id in writer.skipped:
                reason = None
            else:
                reason = _add(writer, clip, config, rates)
                taken += reason is None
            origins.setdefault(clip.id, clip.origin)
            if reason is not None:
                say(f"skipped {clip.id} ({clip.origin}): {reason}")
                if clip.id not in writer.skipped:
                    writer.skip(Skipped(clip.id, printable(clip.origin), printable(reason)))
        writer.finish()
        if line := passed_over_line(passed_over):
            say(line)
        return taken, len(writer.skipped)


def _dims(kind: str, source: Path, config: ImportConfig) -> tuple[int, int]:
    """Return how many features a step of video and of audio has in most of the first clips: one of them may be odd."""
    refused = ""
    found: Counter[tuple[int, int]] = Counter()
    with closing(READERS[kind](source, config, Counter())) as clips:
        for clip in (arranged(read, config) for read in clips):
            if isinstance(clip.content, str) or (problem := _problem(clip.content)):
                problem = clip.content if isinstance(clip.content, str) else problem
                refused = refused or f"; the first, {clip.id} ({printable(clip.origin)}): {problem}"
                continue
            found[clip.content[0].shape[1], clip.content[1].shape[1]] += 1
            if found.total() == FIRST_CLIPS:
                break
    if not found:
        raise StoreError(
            f"no clip with arrays {config.video_key!r} and {config.audio_key!r} in {source}{refused}; name the arrays, "
            f"or see the layouts of scav features import --help"
        )
    return found.most_common(1)[0][0]


def _add(writer: StoreWriter, clip: ImportedClip, config: ImportConfig, rates: tuple[float, float]) -> str | None:
    """Return the reason why a clip was not taken, or None."""
    if isinstance(clip.content, str):
        return clip.content
    dims = writer.header.video["dim"], writer.header.audio["dim"]
    if problem := _problem(clip.content, dims):
        return problem
    with np.errstate(over="ignore"):  # The store refuses what is not finite.
        steps = [torch.from_numpy(np.array(array, dtype=np.float32, order="C")) for array in clip.content]
    seconds = max(len(steps[0]) / rates[0], len(steps[1]) / rates[1])
    return writer.add(Entry(clip.id, clip.split or config.split, seconds, clip.label), *steps)


def _problem(content: Sequence[NDArray[Any]], dims: Sequence[int] | None = None) -> str | None:
    """Return why two arrays are no features, or None if they are."""
    for index, (name, array) in enumerate(zip(("video", "audio"), content, strict=True)):
        numbers = array.ndim == 2 and len(array) and array.shape[1] and array.dtype.kind in "fiu"
        if not numbers or (dims is not None and array.shape[1] != dims[index]):
            dim = "features" if dims is None else dims[index]
            return f"{name}: expected numbers of shape (steps, {dim}), got {array.dtype} {array.shape}"
    return None
