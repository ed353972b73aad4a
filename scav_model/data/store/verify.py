"""Check a feature store: its files, its numbers, and whether the numbers look like features of a trained encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scav_model.data.store.header import INDEX, MANIFEST, StoreError, StoreHeader
from scav_model.data.store.reader import FeatureStore, manifest_columns, read_list, read_skipped
from scav_model.progress import Progress
from scav_model.storage.files import open_inside, sha256_of

# Steps that a length may differ from duration × rate: encoders drop a last partial step, and at least one is kept. An
# encoder that puts out several patches a step says so, and drops as many.
LENGTH_TOLERANCE = 1.5
# Clips whose means are compared; more would not change the share.
SAMPLE = 1024
# Below this share of the energy, what clips differ by is drowned in what they have in common: a randomly initialized
# ViT-B/32 has 0.8% to 1.3% on the demo's clips, whose log-mel spectra have 10%. It is a weaker sign than the norms, for
# inputs that differ wildly differ in a random tower too (5% to 8% for blocks of random colors).
ALIKE = 0.02
LISTED = 5


@dataclass
class Report:
    """Result of a check.

    Attributes:
        problems: faults, for which the store should not be used.
        warnings: signs of faults, to be looked at.
        clips: how many were checked.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    clips: int = 0


class SideStatistics:
    """Statistics of one side of the store, gathered clip by clip."""

    def __init__(self, name: str, about: dict[str, Any]) -> None:
        self.name, self.rate_hz = name, float(about["rate_hz"])
        self.tolerance = LENGTH_TOLERANCE * about.get("patches_per_step", 1)
        self.bad: list[str] = []
        self.still: list[str] = []
        self.off: list[str] = []
        self._lowest = torch.empty(0)
        self._highest = torch.empty(0)
        self._means: list[Tensor] = []

    def add(self, clip: str, steps: Tensor, seconds: float, sampled: bool) -> None:
        """Add the (steps, dim) of a clip; the means of the `sampled` clips are compared."""
        if abs(len(steps) - seconds * self.rate_hz) > self.tolerance:
            self.off.append(f"{clip} has {len(steps)} steps for {seconds:.2f} s")
        if not bool(steps.isfinite().all()):
            self.bad.append(clip)
            return
        if len(steps) > 1 and bool((steps == steps[0]).all()):
            self.still.append(clip)
        lowest, highest = steps.amin(0), steps.amax(0)
        if len(self._lowest):
            lowest, highest = torch.minimum(self._lowest, lowest), torch.maximum(self._highest, highest)
        self._lowest, self._highest = lowest, highest
        if sampled:
            self._means.append(steps.double().mean(0))

    @property
    def constant(self) -> int:
        """Number of features that have one value in every step of every clip."""
        return int((self._lowest == self._highest).sum())

    @property
    def between(self) -> float | None:
        """Share of the energy of the mean features that differs from clip to clip; None for fewer than two clips."""
        if len(self._means) < 2:
            return None
        means = torch.stack(self._means)
        energy = means.square().sum(1).mean()
        return float((means - means.mean(0)).square().sum(1).mean() / energy) if energy > 0 else 0.0

    def report(self, report: Report) -> None:
        if self.bad:
            report.problems.append(f"{self.name}: NaN or infinite in {_some(self.bad)}")
        if self.off:
            report.problems.append(
                f"{self.name}: lengths that do not fit duration × {self.rate_hz:g} Hz in {_some(self.off)}"
            )
        if self.constant:
            report.warnings.append(f"{self.name}: {self.constant} of {len(self._lowest)} features never change")
        if self.still:
            report.warnings.append(f"{self.name}: every step is the same in {_some(self.still)}")
        if self.between is not None and self.between < ALIKE:
            report.warnings.append(
                f"{self.name}: clips differ by {self.between:.2%} of their features' energy, less than {ALIKE:.0%}: "
                "the weights look untrained, or the clips are all alike"
            )


def verify(folder: Path | str) -> Report:
    """Read the whole store once and say what is wrong with it.

    Checked: each file's size and SHA-256; shapes; NaN and infinities; features and clips that never change; lengths
    against duration × rate; and two signs of untrained weights, normalization layers as they were initialized (seen
    when the encoder was loaded) and clips that hardly differ.
    """
    store = FeatureStore.open(folder)
    header = store.header
    report = Report(clips=len(store))
    _check_lists(store, report)
    if not header.finished:
        report.warnings.append("unfinished: extraction has not tried every clip; repeat its command to go on")
    for name, side in (("video", header.video), ("audio", header.audio)):
        if side.get("untrained"):
            report.warnings.append(
                f"{name}: the weights of {side.get('encoder', '?')} {side.get('model', '')} look untrained: every "
                "normalization layer has gain one and offset zero, as it is initialized"
            )
    repeated = len(store) - len(set(store.ids))
    if repeated:
        report.problems.append(f"{repeated} clips have the id of another")
    sound = set(_sound_shards(store.folder, header, report))
    sides = (SideStatistics("video", header.video), SideStatistics("audio", header.audio))
    _read_clips(store, sound, sides, report)
    for gathered in sides:
        gathered.report(report)
    return report


def _check_lists(store: FeatureStore, report: Report) -> None:
    """Report faults of the lists of clips; the header was checked when the store was opened."""
    folder, header = store.folder, store.header
    if header.manifest_sha256 is None:
        report.warnings.append(
            "no checksums of its lists (format 2): a change of an id, a length or a time would not be seen; repeat the "
            "command that made the store to add them"
        )
    try:
        manifest = read_list(folder, header.manifest)
        columns = manifest_columns(folder, header, manifest)
        columns.check(header)
        if not columns.equals(store.columns):
            report.problems.append(f"{INDEX} names other clips than {MANIFEST}")
    except StoreError as error:
        report.problems.append(str(error))
    try:
        read_skipped(folder)
    except StoreError as error:
        report.problems.append(str(error))
    if header.index_sha256 is not None:
        _has_hash(folder, INDEX, header.index_sha256, report)


def _sound_shards(folder: Path, header: StoreHeader, report: Report) -> Iterator[int]:
    """Yield the numbers of the shards that are as they were written."""
    for number, shard in enumerate(Progress(header.shards, desc="hashes", unit="shard")):
        if _has_hash(folder, shard.name, shard.sha256, report, shard.bytes):
            yield number


def _has_hash(folder: Path, name: str, sha256: str, report: Report, size: int | None = None) -> bool:
    """Return True if a file is as it was written; if not, add a line to the report."""
    try:
        with open_inside(folder, name) as file:
            there = os.fstat(file.fileno()).st_size
            if size not in (None, there):
                report.problems.append(f"{name} has {there} bytes, not {size}")
                return False
            found = sha256_of(file)
    except FileNotFoundError:
        report.problems.append(f"{name} is missing")
        return False
    except ValueError as error:
        report.problems.append(str(error))
        return False
    if found != sha256:
        report.problems.append(f"{name} was changed: its SHA-256 is {found}, not {sha256}")
    return found == sha256


def _read_clips(
    store: FeatureStore, sound: set[int], sides: tuple[SideStatistics, SideStatistics], report: Report
) -> None:
    seconds = store.seconds.tolist()
    stride = max(1, len(store) // SAMPLE)
    for index, (name, shard) in enumerate(
        Progress(list(zip(store.ids, store.shard_numbers, strict=True)), desc="clips", unit="clip")
    ):
        if shard not in sound:
            continue
        try:
            clip = store.clip(index)
        except (StoreError, RuntimeError, ValueError) as error:
            report.problems.append(f"{name} cannot be read: {error}")
            continue
        lengths = (int(store.video_lengths[index]), int(store.audio_lengths[index]))
        for side, steps, length in zip(sides, clip, lengths, strict=True):
            if len(steps) != length:
                report.problems.append(f"{side.name} of {name}: {len(steps)} steps on disk, {length} in the manifest")
            elif length:
                side.add(name, steps, seconds[index], index % stride == 0)


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} clips: {', '.join(names[:LISTED])}{rest}"
