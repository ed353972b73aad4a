"""The manifest: a JSON Lines file that names the clips, one object a line.

`{"id": "dog-1", "path": "clips/dog-1.mp4", "split": "train", "start": 3.5, "duration": 10.0}`

`path` is absolute or relative to the manifest's folder. `start` and `duration` are seconds and may be left out: a clip
then begins at the file's beginning and lasts to its end. `label`, a class or a caption, may be left out too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scav_model.data.ids import label_problem, name_problem
from scav_model.data.text_files import ManifestError, line_problem, read_text
from scav_model.storage.files import write_whole
from scav_model.storage.strict_json import parse_json
from scav_model.storage.text import shown

__all__ = ["BadLine", "Clip", "ManifestError", "read_manifest", "read_manifest_lenient", "write_manifest"]


@dataclass(frozen=True)
class Clip:
    """One clip of a media file."""

    id: str
    path: Path
    split: str
    start: float = 0.0  # seconds
    duration: float | None = None  # seconds; None: to the end of the file
    label: str | None = None  # class or caption


@dataclass(frozen=True)
class BadLine:
    """A line of a manifest that gives no clip."""

    path: Path  # of the manifest
    number: int  # of the line, from 1
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.reason}"


REQUIRED = ("id", "path", "split")
OPTIONAL = ("start", "duration", "label")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_manifest(path: Path | str) -> list[Clip]:
    """Return the manifest's clips in file order; blank lines are passed over.

    Raises:
        ManifestError: the file or one of its lines cannot be used; the message names the first such line.
    """
    clips = []
    for line in _lines(Path(path)):
        if isinstance(line, BadLine):
            raise ManifestError(f"{line.path}, line {line.number}: {line.reason}")
        clips.append(line)
    if not clips:
        raise ManifestError(f"{path}: expected at least one clip, got an empty manifest")
    return clips


def read_manifest_lenient(path: Path | str) -> tuple[list[Clip], list[BadLine]]:
    """Return the manifest's clips in file order, and the lines that give none, for runs that go on without them.

    Raises:
        ManifestError: the file cannot be read, or no line of it gives a clip.
    """
    clips: list[Clip] = []
    bad: list[BadLine] = []
    for line in _lines(Path(path)):
        if isinstance(line, BadLine):
            bad.append(line)
        else:
            clips.append(line)
    if not clips:
        reason = f"no line is a clip; the first: {bad[0]}" if bad else "got an empty manifest"
        raise ManifestError(f"{path}: expected at least one clip, {reason}")
    return clips, bad


def _lines(path: Path) -> Iterator[Clip | BadLine]:
    first_line: dict[str, int] = {}
    # Not splitlines: JSON strings may hold U+2028 and other characters that it splits at.
    for number, line in enumerate(read_text(path, "manifest").split("\n"), start=1):
        # Files that were put one after the other have marks in the middle.
        line = line.lstrip("\ufeff")
        if not line.strip():
            continue
        try:
            clip = _parse(line, path.parent)
            if clip.id in first_line:
                raise ValueError(f"id {clip.id!r} is already used on line {first_line[clip.id]}; ids must be unique")
        except ValueError as error:
            yield BadLine(path, number, str(error))
            continue
        first_line[clip.id] = number
        yield clip


def write_manifest(path: Path | str, clips: Iterable[Clip]) -> None:
    """Write `clips`, with paths relative to the manifest's folder where they lie below it."""
    path = Path(path)
    folder = path.parent.resolve()
    lines = []
    for clip in clips:
        file = clip.path.resolve()
        entry: dict[str, Any] = {
            "id": clip.id,
            "path": file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file),
            "split": clip.split,
        }
        if clip.start:
            entry["start"] = clip.start
        if clip.duration is not None:
            entry["duration"] = clip.duration
        if clip.label is not None:
            entry["label"] = clip.label
        lines.append(json.dumps(entry) + "\n")
    write_whole(path, "".join(lines).encode())


def _parse(line: str, folder: Path) -> Clip:
    if problem := line_problem(line):
        raise ValueError(problem)
    entry = parse_json(line)
    if not isinstance(entry, dict):
        raise ValueError(f"expected a JSON object like {{'id': …, 'path': …, 'split': …}}, got {shown(line.strip())}")
    if missing := [key for key in REQUIRED if key not in entry]:
        raise ValueError(f"missing {', '.join(map(repr, missing))}; every line needs {', '.join(REQUIRED)}")
    if unknown := [key for key in entry if key not in REQUIRED + OPTIONAL]:
        known = ", ".join(REQUIRED + OPTIONAL)
        raise ValueError(f"unknown {', '.join(map(shown, unknown))}; the known keys are {known}")
    label = entry.get("label")
    problems = (
        name_problem("id", entry["id"]),
        name_problem("split", entry["split"]),
        _path_problem(entry["path"]),
        None if label is None else label_problem(label),
    )
    if problem := next(filter(None, problems), None):
        raise ValueError(problem)
    start = _seconds("start", entry.get("start", 0.0))
    duration = entry.get("duration")
    if duration is not None:
        duration = _seconds("duration", duration)
        if duration == 0:
            raise ValueError("expected 'duration' to be above 0 seconds, got 0; leave it out to use the whole file")
    return Clip(entry["id"], folder / entry["path"], entry["split"], start, duration, label)


def _path_problem(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return f"expected 'path' to be a non-empty string, got {shown(value)}"
    if URL.match(value):
        return f"expected 'path' to be a file on this machine, got the address {shown(value)}; download it first"
    # A surrogate from U+DC80 on stands for a byte of a file name that is not UTF-8.
    if "\0" in value or (
        not value.isascii()
        and any("\ud800" <= character < "\udc80" or "\udcff" < character <= "\udfff" for character in value)
    ):
        return f"expected 'path' to be the name of a file, got {shown(value)}"
    return None


def _seconds(key: str, value: Any) -> float:
    try:
        if not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value) and value >= 0:
            return float(value)
    except OverflowError:
        pass  # An integer beyond the numbers of floats.
    raise ValueError(f"expected {key!r} to be a number of seconds, 0 or more, got {shown(value)}")
