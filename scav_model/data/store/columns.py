"""The manifest in columns: 200,000 clips are half a dozen arrays, not as many objects."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors.numpy import load, save

from scav_model.data.ids import are_names, name_problem
from scav_model.data.store.header import ITEM_BYTES, StoreError, StoreHeader
from scav_model.storage.files import sha256_of_bytes
from scav_model.storage.strict_json import read_json
from scav_model.storage.tensors import load_expected, read_head
from scav_model.storage.text import shown

Ints = NDArray[np.int64]
# No clip has more steps.
MAX_STEPS = 1 << 32


@dataclass
class Columns:
    """G clips; every array is (G,)."""

    ids: list[str]
    shard: Ints  # number of the shard
    video_row: Ints  # first row of the clip in its shard's video
    audio_row: Ints
    video_lengths: Ints  # steps
    audio_lengths: Ints
    seconds: NDArray[np.float64]
    start: NDArray[np.float64]  # second of the media file at which the clip begins
    split: Ints  # number in split_names
    label: Ints  # number in label_names; -1: none
    split_names: list[str]
    label_names: list[str]
    paths: list[str]  # media file of each clip, as the manifest spells it; "": not known

    def take(self, indices: Sequence[int] | Ints) -> Columns:
        """Return the clips at `indices`, in that order."""
        chosen = np.asarray(indices, dtype=np.int64)
        arrays = {name: getattr(self, name)[chosen] for name in ARRAYS}
        ids, paths = ([texts[index] for index in chosen.tolist()] for texts in (self.ids, self.paths))
        return Columns(ids=ids, paths=paths, split_names=self.split_names, label_names=self.label_names, **arrays)

    def equals(self, other: Columns) -> bool:
        """Return True if both have the same clips with the same values."""

        def plain(columns: Columns) -> list[Any]:
            return [value.tolist() if isinstance(value, np.ndarray) else value for value in vars(columns).values()]

        return plain(self) == plain(other)

    @classmethod
    def of_lines(cls, lines: Iterable[bytes], shards: Sequence[str]) -> Columns:
        """Read the lines of a manifest.

        Raises:
            StoreError: a line is damaged or names an unknown shard; the message names the line.
        """
        numbers = {name: number for number, name in enumerate(shards)}
        split_names: dict[str, int] = {}
        label_names: dict[str, int] = {}
        ids: list[str] = []
        paths: list[str] = []
        rows: list[tuple[int, int, int, float, float, int, int]] = []
        for line in lines:
            try:
                clip = orjson.loads(line)
                _check_line(clip)
                label = clip["label"]
                rows.append(
                    (
                        numbers[clip["shard"]],
                        clip["video_length"],
                        clip["audio_length"],
                        clip["seconds"],
                        clip.get("start", 0.0),
                        split_names.setdefault(clip["split"], len(split_names)),
                        -1 if label is None else label_names.setdefault(label, len(label_names)),
                    )
                )
                ids.append(clip["id"])
                paths.append(clip.get("path", ""))
            except (KeyError, TypeError, ValueError) as error:
                raise StoreError(f"the store's manifest, line {len(ids) + 1}, is damaged: {error!r}") from error
        columns = [np.array(column) for column in zip(*rows, strict=True)] if rows else [np.zeros(0)] * 7
        shard, video, audio, seconds, start, split, label_numbers = columns
        whole = [column.astype(np.int64) for column in (shard, video, audio, split, label_numbers)]
        return cls(
            ids=ids,
            shard=whole[0],
            video_row=_first_rows(whole[0], whole[1]),
            audio_row=_first_rows(whole[0], whole[2]),
            video_lengths=whole[1],
            audio_lengths=whole[2],
            seconds=seconds.astype(np.float64),
            start=start.astype(np.float64),
            split=whole[3],
            label=whole[4],
            split_names=list(split_names),
            label_names=list(label_names),
            paths=paths,
        )

    def to_index(self, manifest: bytes) -> bytes:
        """Return the columns as the content of an index file of this very manifest."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        arrays["ids"] = _bytes("\n".join(self.ids))
        # Where no path is known there is nothing to keep of any.
        arrays["paths"] = _bytes("\0".join(self.paths) if any(self.paths) else "")
        names = {"splits": self.split_names, "labels": self.label_names, "manifest": sha256_of_bytes(manifest)}
        return save(arrays, metadata={"columns": json.dumps(names)})

    @classmethod
    def of_index(cls, index: bytes, manifest: bytes) -> Columns | None:
        """Read what `to_index` made; None if it is of another manifest, or no index."""
        try:
            names = read_json(read_head(index)[0]["__metadata__"]["columns"].encode())
            if names["manifest"] != sha256_of_bytes(manifest):
                return None
            arrays = load_expected(load, index, EXPECTED)
            ids = arrays.pop("ids").tobytes().decode()
            paths = arrays.pop("paths").tobytes().decode()
            listed = ids.split("\n") if ids else []
            return cls(
                ids=listed,
                split_names=_texts(names["splits"]),
                label_names=_texts(names["labels"]),
                paths=paths.split("\0") if paths else [""] * len(listed),
                **arrays,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def check(self, header: StoreHeader) -> None:
        """
        Raises:
            StoreError: the columns do not fit the shards that the header lists.
        """
        clips, shards = header.clips, len(header.shards)
        for name in (*ARRAYS, "ids", "paths"):
            if len(getattr(self, name)) != clips:
                raise StoreError(f"the manifest names {len(getattr(self, name))} clips and the shards hold {clips}")
        if not clips:
            return
        listed = np.array([shard.clips for shard in header.shards])
        if not np.array_equal(self.shard, np.repeat(np.arange(shards), listed)):
            raise StoreError("the manifest's clips do not lie in the shards that the header lists")
        widths = [int(side["dim"]) * ITEM_BYTES[header.dtype] for side in (header.video, header.audio)]
        used = np.zeros(shards, dtype=object)
        for lengths, rows, width in (
            (self.video_lengths, self.video_row, widths[0]),
            (self.audio_lengths, self.audio_row, widths[1]),
        ):
            if lengths.min() < 1 or lengths.max() >= MAX_STEPS:
                raise StoreError(f"expected clips of 1 step or more, got {lengths.min()} to {lengths.max()}")
            if not np.array_equal(rows, _first_rows(self.shard, lengths)):
                raise StoreError("the manifest's clips do not lie one after the other")
            first = np.cumsum(listed) - listed
            # Of Python's integers, which do not overflow.
            used += np.add.reduceat(lengths, first).astype(object) * width
        for shard, needed in zip(header.shards, used.tolist(), strict=True):
            if needed > shard.bytes:
                raise StoreError(f"{shard.name} has {shard.bytes} bytes, and its clips need {needed}")
        for numbers, names, lowest in ((self.split, self.split_names, 0), (self.label, self.label_names, -1)):
            if numbers.min() < lowest or numbers.max() >= len(names):
                raise StoreError("the manifest's clips have splits or labels that it does not name")
        for seconds in (self.seconds, self.start):
            if not (seconds.min() >= 0 and math.isfinite(seconds.max())):
                raise StoreError(f"expected seconds of 0 or more, got {seconds.min()} to {seconds.max()}")
        if not are_names(self.ids):
            raise StoreError("expected ids of printable characters")


ARRAYS = ("shard", "video_row", "audio_row", "video_lengths", "audio_lengths", "seconds", "start", "split", "label")
_FLOATS = ("seconds", "start")
EXPECTED: Mapping[str, tuple[Any, Sequence[int | None]]] = {
    **{name: (np.dtype(np.float64 if name in _FLOATS else np.int64), (None,)) for name in ARRAYS},
    "ids": (np.dtype(np.uint8), (None,)),
    "paths": (np.dtype(np.uint8), (None,)),
}


def _check_line(clip: Any) -> None:
    """
    Raises:
        KeyError, TypeError, ValueError: a field is missing or not what it should be.
    """
    for name in ("video_length", "audio_length"):
        if type(clip[name]) is not int or not 1 <= clip[name] < MAX_STEPS:
            raise ValueError(f"expected {name} to be 1 or more, got {shown(clip[name])}")
    for name, seconds in (("seconds", clip["seconds"]), ("start", clip.get("start", 0.0))):
        if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
            raise ValueError(f"expected {name} to be 0 or more, got {shown(seconds)}")
    name, label, path = clip["id"], clip["label"], clip.get("path", "")
    if problem := name_problem("id", name):
        raise ValueError(problem)
    if type(clip["split"]) is not str or type(clip["shard"]) is not str or not (label is None or type(label) is str):
        raise ValueError("expected shard, split and label to be text")
    if type(path) is not str or "\0" in path:
        raise ValueError(f"expected path to be a file's, got {shown(path)}")


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or any(type(value) is not str for value in values):
        raise ValueError("expected a list of texts")
    return cast(list[str], values)


def _first_rows(shard: Ints, lengths: Ints) -> Ints:
    """Return the first row of each clip within its shard; clips of a shard are neighbors, in order."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    first_of_shard = np.flatnonzero(np.diff(shard, prepend=-1))
    return starts - np.repeat(starts[first_of_shard], np.diff(np.append(first_of_shard, len(shard))))
