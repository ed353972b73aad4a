"""An imported clip, and the checks that all formats share."""

from __future__ import annotations

import math
import posixpath
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scav_model.data.datasets import SPLITS
from scav_model.data.folders import passed_over_line, walk
from scav_model.data.ids import label_problem, name_problem
from scav_model.data.store.header import Dtype, StoreError
from scav_model.data.store.writer import SHARD_BYTES
from scav_model.fields import documented, setting
from scav_model.storage.text import printable, shown

LayoutName = Literal["steps", "synchformer", "cav-mae-sync"]
MAX_TEXT_BYTES = 1 << 20  # of a label or split


class ImportProblem(ValueError):
    """Why a clip, or the rest of a file, cannot be imported."""


@documented
@dataclass(frozen=True)
class ImportConfig:
    """Settings that the files themselves do not record."""

    video_rate_hz: float | None = setting(
        None, "Video steps per second; null takes those of the layout, if it has any."
    )
    audio_rate_hz: float | None = setting(
        None, "Audio steps per second; null takes those of the layout, if it has any."
    )
    layout: LayoutName = setting(
        "steps",
        "Meaning of the arrays: steps is (steps, features). synchformer is (segments, 8, features) of video and "
        "(segments, 6, features) of audio, which are joined to 12.5 and 9.375 steps a second. cav-mae-sync is (frames, "
        "features), or (frames, tokens, features), of which the mean token is taken: 1.6 a second.",
    )
    segment_overlap: float = setting(
        0.5, "Share of a segment of layout synchformer that the next one repeats; tokens of one time are averaged."
    )
    split: str = setting("train", "Split of clips that come without one.")
    video_key: str = setting("video", "Name of the video's array, (steps, features).")
    audio_key: str = setting("audio", "Name of the audio's array, (steps, features).")
    dtype: Dtype = setting("float32", "Numbers on disk; bfloat16 and float16 take half the room of float32.")
    shard_bytes: int = setting(SHARD_BYTES, "Bytes after which a file of the store is written.")
    max_clip_bytes: int = setting(1 << 30, "Bytes of a clip's two arrays in memory, above which it is skipped.")

    def __post_init__(self) -> None:
        for name in ("video_rate_hz", "audio_rate_hz"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < math.inf:
                raise ValueError(f"expected {name} to be above 0 steps/s, got {rate}")
        if self.layout not in get_args(LayoutName):
            raise ValueError(f"expected layout to be one of {', '.join(get_args(LayoutName))}, got {self.layout!r}")
        if not 0 <= self.segment_overlap < 1:
            raise ValueError(f"expected segment_overlap to be at least 0 and below 1, got {self.segment_overlap}")
        if self.max_clip_bytes < 1:
            raise ValueError(f"expected max_clip_bytes to be at least 1, got {self.max_clip_bytes}")
        if problem := name_problem("split", self.split):
            raise ValueError(problem)

    @property
    def keys(self) -> tuple[str, str]:
        return self.video_key, self.audio_key


@dataclass(frozen=True)
class ImportedClip:
    """A clip, or the reason why it, or the rest of a file, cannot be used.

    Attributes:
        id: of the clip, or the name of the file.
        origin: file, for the list of clips that could not be used.
        content: the two arrays, (N, Dv) and (M, Da), or the reason.
        label: class or caption, if known.
        split: if known.
    """

    id: str
    origin: str
    content: tuple[NDArray[Any], NDArray[Any]] | str
    label: str | None = None
    split: str | None = None


# Yields the clips of a source. Counts what it passes over, by kind.
Reader = Callable[[Path, ImportConfig, "Counter[str]"], Generator[ImportedClip]]


def files_of(source: Path, suffixes: tuple[str, ...], passed_over: Counter[str]) -> list[Path]:
    """Return the source itself where it is a file, else the files below it."""
    if source.is_file():
        return [source]
    found = walk(source, suffixes)
    passed_over.update(found.passed_over)
    if not found.files:
        raise StoreError(f"no {suffixes[0]} files in {source} ({passed_over_line(found.passed_over) or 'it is empty'})")
    return found.files


def file_name(path: Path, source: Path) -> str:
    """Return a file's path below the source, without suffix, as an id."""
    below = Path(path.name) if path == source else path.relative_to(source)
    return printable(below.with_suffix("").as_posix())


def file_problem(path: Path, source: Path, error: Exception) -> ImportedClip:
    """Return the entry of a file that cannot be read, or not to its end."""
    below = path.name if path == source else path.relative_to(source).as_posix()
    return ImportedClip(printable(below), str(path), reason_of(error))


def split_name(name: str) -> tuple[str, str | None]:
    """Return an id, and the split that its first folder names, if it does.

    `./test/a`, `/test/a` and `x/../test/a` are all `a` of `test`.
    """
    normal = printable(posixpath.normpath(f"/{name}").lstrip("/"))
    first, separator, rest = normal.partition("/")
    return (rest, first) if separator and first in SPLITS else (normal, None)


def file_split(name: str) -> str | None:
    """Return the split that an archive's first folder, or its whole name, stands for."""
    first = name.split("/")[0]
    return first if first in SPLITS else None


def check_size(config: ImportConfig, described: Sequence[tuple[str, np.dtype[Any], tuple[int, ...]]]) -> None:
    """Refuse a clip by the names, dtypes and shapes of its arrays, before they are allocated.

    Raises:
        ImportProblem: objects, or more bytes than `max_clip_bytes`.
    """
    total = 0
    for name, dtype, shape in described:
        if dtype.hasobject:
            raise ImportProblem(f"{name}: expected numbers, got objects (pickled, or of variable length)")
        # Imported numbers become float32.
        total += math.prod(shape) * max(dtype.itemsize, 4)
    if total > config.max_clip_bytes:
        shapes = " and ".join(f"{name} {shape}" for name, _, shape in described)
        raise ImportProblem(
            f"{total} bytes ({shapes}) are more than max_clip_bytes = {config.max_clip_bytes}; raise it to import them"
        )


def text_of(key: str, value: Any) -> str | None:
    """Return a label or split from a string, UTF-8 bytes, an integer, or an array of one of these.

    None and empty text are None.

    Raises:
        ImportProblem: anything else.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError as error:
            raise ImportProblem(f"{key}: expected UTF-8 text, got {shown(value)}") from error
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or (isinstance(value, str) and not value):
        return None
    problem = label_problem(value) if key == "label" else name_problem(key, value)
    if problem:
        raise ImportProblem(problem)
    return str(value)


def reason_of(error: Exception) -> str:
    """Return why a file could not be read, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ImportProblem) else f"{type(error).__name__}: {text}"
