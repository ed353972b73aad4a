"""Check a reproduction before it starts: lists, features, shapes, values, folder, memory, disk and time."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from scav_model.config import Config
from scav_model.data import Features, FeatureStore
from scav_model.data.describe import describe_features
from scav_model.data.ids import ids_sha256
from scav_model.data.store.reader import open_features, read_skipped
from scav_model.data.store.verify import Report, SideStatistics
from scav_model.devices import to_device
from scav_model.doctor import Finding
from scav_model.experiments.folder import check_earlier_run, is_used
from scav_model.experiments.reproduce.cost import RowCost, measure
from scav_model.experiments.reproduce.published import CLIPS, FRONT_ENDS, LABELS
from scav_model.experiments.tables import read_object

SAMPLE = 64  # clips of a split whose values are read
CLIP_SUFFIX = re.compile(r"_\d{6}$")  # of an id: the second of its video at which the clip begins
SKIPPED = 0.05  # share of clips that could not be used, above which the check warns
FEW = 0.75  # share of the published clips, below which the check warns
T = TypeVar("T")


def examine(
    dataset: str,
    features: Path,
    configs: Mapping[str, Config],
    out: Path,
    stamp: str,
    settings: Callable[[Mapping[str, Features]], Mapping[str, Any]],
    *,
    hybrid_k: Sequence[int],
    resume: bool,
) -> Iterator[Finding]:
    """Yield what was found, one finding after the other. A problem says what to do.

    Args:
        dataset: vggsound or music.
        features: folder of the features.
        configs: settings of each row to train.
        out: folder of the results; nothing is written there.
        stamp: file in `out` that holds the settings of a run.
        settings: makes these settings of the splits.
        hybrid_k: clips that hybrid search takes from the ranking by mean.
        resume: whether the run is to resume.
    """
    device = next(iter(configs.values())).device
    found, _ = attempt("device", lambda: f"{to_device(device)}", "name a device of this machine by --device")
    yield found
    usable = found.state == "ok"
    splits: dict[str, Features] = {}
    for split in ("train", "test"):
        advice = "make the features with scav extract, and name their folder by --features"
        found, opened = attempt(f"list, {split}", partial(open_features, features, split), advice)
        if opened is None:
            yield found
            continue
        if not len(opened):
            yield Finding(found.name, "problem", f"no clip in {features}", advice)
            continue
        splits[split] = opened
        yield Finding(found.name, "ok", f"{len(opened)} clips, SHA-256 of their ids {ids_sha256(opened.ids)}")
    if len(splits) < 2:
        return
    yield from check_lists(dataset, splits, hybrid_k)
    for split, opened in splits.items():
        yield from check_values(split, opened)
    yield from check_features(splits["train"], splits["test"])
    yield from check_folder(out, stamp, settings(splits), resume=resume)
    if not usable:
        return
    costs: dict[str, RowCost] = {}
    for row, config in configs.items():
        advice = "change the row's settings by --settings, for example {compute: {chunk: 64}} where memory is short"
        found, cost = attempt(f"time, {row}", partial(measure, config, splits, hybrid_k), advice)
        if cost is None:
            yield found
            continue
        costs[row] = cost
        yield Finding(
            found.name,
            "ok",
            f"{LABELS[row]}: about {duration(cost.train)} for {cost.steps} steps, then {duration(cost.search)} of "
            "search",
        )
    yield from check_memory(next(iter(configs.values())), splits["test"])
    if costs:
        yield check_disk(out, configs, costs)
        total = sum(cost.train + cost.search for cost in costs.values())
        yield Finding("time, in all", "ok", f"about {duration(total)} on this machine, as busy as it is now")


def attempt(name: str, action: Callable[[], T], advice: str) -> tuple[Finding, T | None]:
    """Return what `action` returns, and a finding that says so; a problem with that advice if it raises an error."""
    try:
        result = action()
    except (OSError, RuntimeError, ValueError, ArithmeticError, ImportError) as error:
        return Finding(name, "problem", " ".join(f"{error}".split()), advice), None
    return Finding(name, "ok", f"{result}"), result


def check_lists(dataset: str, splits: Mapping[str, Features], hybrid_k: Sequence[int]) -> Iterator[Finding]:
    """Check that test clips were not trained on, and that there are about as many clips as were published."""
    names = {split: set(opened.ids) for split, opened in splits.items()}
    shared = sorted(names["train"] & names["test"])
    videos = {split: {CLIP_SUFFIX.sub("", name) for name in ids} for split, ids in names.items()}
    both = sorted(videos["train"] & videos["test"])
    if shared:
        yield Finding(
            "lists",
            "problem",
            f"clips in both splits: {len(shared)}, such as {', '.join(shared[:3])}",
            "take them out of the training clips, and extract again",
        )
    elif both:
        yield Finding(
            "lists",
            "warning",
            f"videos with clips in both splits: {len(both)}, such as {', '.join(both[:3])}",
            "divide by video if the results shall tell how new videos are found",
        )
    else:
        yield Finding("lists", "ok", "no clip and no video is in both splits")
    for split, expected in CLIPS.get(dataset, {}).items():
        if len(splits[split]) < FEW * expected:
            yield Finding(
                f"list, {split}",
                "warning",
                f"{len(splits[split])} clips, where about {expected} were published; recalls among fewer clips are "
                "higher, and models of fewer clips are worse",
                "see scav manifest's list of missing files",
            )
    if large := [k for k in hybrid_k if k >= len(splits["test"])]:
        yield Finding(
            "hybrid_k",
            "warning",
            f"{', '.join(map(str, large))} of {len(splits['test'])} test clips is a search by sequence, and left out",
            "name smaller numbers",
        )
    for split, opened in splits.items():
        if isinstance(opened, FeatureStore):
            skipped = len(read_skipped(opened.folder))
            if skipped > SKIPPED * (skipped + sum(map(len, splits.values()))):
                yield Finding(
                    "skipped",
                    "warning",
                    f"{skipped} clips of {opened.folder} could not be used",
                    f"scav features info {opened.folder} counts the reasons",
                )
            if not opened.header.finished:
                yield Finding(
                    f"features, {split}", "problem", f"{opened.folder} is unfinished", "repeat its scav extract"
                )
            break


def check_values(split: str, features: Features) -> Iterator[Finding]:
    """Read some clips of a split, evenly spaced, and check their numbers."""
    about = describe_features(features)
    stored = isinstance(features, FeatureStore)
    # A feature file knows no seconds: its steps are taken as the time.
    sides = [SideStatistics(name, about[name] if stored else {"rate_hz": 1.0}) for name in about]
    report = Report()
    chosen = range(0, len(features), max(1, len(features) // SAMPLE))
    for index in chosen:
        try:
            clip = features.clip(index)
        except (OSError, ValueError, RuntimeError) as error:
            report.problems.append(f"{features.ids[index]} cannot be read: {error}")
            continue
        for side, steps in zip(sides, clip, strict=True):
            seconds = float(features.seconds[index]) if isinstance(features, FeatureStore) else float(len(steps))
            side.add(features.ids[index], steps, seconds, True)
    for side in sides:
        side.report(report)
    for problem in report.problems:
        yield Finding(
            f"values, {split}", "problem", problem, "extract these clips again; scav features verify names all"
        )
    for warning in report.warnings:
        yield Finding(f"values, {split}", "warning", warning, "check the weights that made the features")
    if not report.problems and not report.warnings:
        yield Finding(
            f"values, {split}", "ok", f"{len(chosen)} clips read: finite, changing, as long as they should be"
        )


def check_features(train: Features, test: Features) -> Iterator[Finding]:
    """Compare the features of both splits with each other, and with the paper's."""
    for side, (encoder, dim, rate) in FRONT_ENDS.items():
        of_train, of_test = (describe_features(features)[side] for features in (train, test))
        name = f"features, {side}"
        if different := [key for key in of_train if of_train[key] != of_test.get(key)]:
            there = "; ".join(f"{key} {of_train[key]!r} and {of_test.get(key)!r}" for key in different)
            yield Finding(name, "problem", f"training and test clips differ: {there}", "extract both alike")
            continue
        lengths = torch.cat(
            [features.video_lengths if side == "video" else features.audio_lengths for features in (train, test)]
        )
        shape = f"{int(lengths.min())} to {int(lengths.max())} steps of {of_train['dim']} features"
        made = f"{of_train.get('encoder', 'an unknown encoder')} {of_train.get('model', '')}".strip()
        hz = of_train.get("rate_hz")
        text = f"{shape}, {'an unknown rate' if hz is None else f'{hz:g} steps a second'}, by {made}"
        differs = of_train["dim"] != dim or hz not in (None, rate) or of_train.get("encoder") not in (None, encoder)
        if of_train.get("untrained"):
            yield Finding(name, "problem", f"{text}: its weights are untrained", "extract with trained weights")
        elif differs:
            paper = f"the paper has {dim} features by {encoder}, {rate:g} steps a second"
            yield Finding(
                name, "warning", f"{text}; {paper}", "extract as docs/reproduce.md says, or report the change"
            )
        else:
            yield Finding(name, "ok", text)


def check_folder(out: Path, stamp: str, settings: Mapping[str, Any], *, resume: bool) -> Iterator[Finding]:
    """Check that the run can write to `out`, and that an earlier run there has its settings."""
    there = existing(out)
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        yield Finding("results", "problem", f"{there} cannot be written to", "name another folder by --out")
        return
    path = out / stamp
    try:
        if path.exists():
            check_earlier_run(path, read_object(path), settings, resume=resume, anew="remove it")
        elif is_used(out):
            raise FileExistsError(f"{out} holds something else: it has no {stamp}")
    except (OSError, ValueError) as error:
        yield Finding("results", "problem", str(error), "name another folder by --out, or add --resume")
        return
    yield Finding("results", "ok", f"{out} " + ("holds an earlier part of this run" if path.exists() else "is free"))


def check_memory(config: Config, test: Features) -> Iterator[Finding]:
    """Check that the encoded test clips fit into memory."""
    longest = int(test.video_lengths.max()) + int(test.audio_lengths.max())
    needed = 4 * len(test) * longest * config.model.dim
    device = to_device(config.device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()
    if free is None:
        return
    text = f"{size(needed)} for the encoded test clips, {size(free)} free on {device}"
    if needed > free:
        yield Finding("memory", "problem", text, "use a machine with more memory, or --device cpu")
    else:
        yield Finding("memory", "ok", text)


def available_memory() -> int | None:
    """Return the bytes of memory that processes can still get; None if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


def check_disk(out: Path, configs: Mapping[str, Config], costs: Mapping[str, RowCost]) -> Finding:
    """Check that the checkpoints of all rows, and the one that is being replaced, fit onto the disk."""
    needed = 0
    for row, cost in costs.items():
        kept = configs[row].checkpoints
        needed += cost.checkpoint * (1 + kept.keep + (kept.best is not None))
    needed += max(cost.checkpoint for cost in costs.values())
    free = shutil.disk_usage(existing(out)).free
    text = f"{size(needed)} for checkpoints in {out}, {size(free)} free"
    if needed > free:
        return Finding("disk", "problem", text, "make room, or name a folder on another disk by --out")
    return Finding("disk", "ok", text)


def existing(path: Path) -> Path:
    """Return the path, or the nearest of its parents that exists."""
    path = path.absolute()
    return next(part for part in (path, *path.parents) if part.exists())


def size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
