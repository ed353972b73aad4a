"""Clips in WebDataset's tars: members `<id>.video.npy`, `<id>.audio.npy` and `<id>.json`, one clip after the other."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

from scav_model.data.folders import is_hidden
from scav_model.data.importers.clip import (
    MAX_TEXT_BYTES,
    ImportConfig,
    ImportedClip,
    ImportProblem,
    check_size,
    file_name,
    file_problem,
    file_split,
    files_of,
    reason_of,
    split_name,
    text_of,
)
from scav_model.data.importers.npy import open_npy
from scav_model.storage.strict_json import parse_json
from scav_model.storage.text import printable

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
METADATA = re.compile(r"__[^/]*__($|/)")  # WebDataset's own members
MAX_HEADER_BYTES = 1 << 20  # of a member's extended header
PIECE = 1 << 20  # bytes read at a time where an archive is only searched for more


@dataclass
class _Sample:
    """Members of one clip, by suffix; the first thing wrong with them."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    problem: str | None = None

    def clip(self, path: Path, config: ImportConfig) -> ImportedClip:
        name, split = split_name(self.key)
        try:
            if self.problem is not None:
                raise ImportProblem(self.problem)
            about = parse_json(self.members["json"]) if "json" in self.members else {}
            if not isinstance(about, dict):
                raise ImportProblem(f"json: expected an object with label and split, got {type(about).__name__}")
            label, given = (text_of(key, about.get(key)) for key in ("label", "split"))
            found = []
            for key in config.keys:
                if f"{key}.npy" not in self.members:
                    raise ImportProblem(f"no {key} array; the members of a clip must follow each other")
                found.append(open_npy(key, io.BytesIO(self.members[f"{key}.npy"])))
            described = [(key, array.dtype, array.shape) for key, array in zip(config.keys, found, strict=True)]
            check_size(config, described)
            video, audio = (array.read() for array in found)
        except Exception as error:
            # One damaged clip must not end the import of the others.
            return ImportedClip(name, str(path), reason_of(error))
        return ImportedClip(name, str(path), (video, audio), label, given or split)


class _Reads:
    """A file for `tarfile`, which would otherwise allocate whatever size a header claims."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ImportProblem(f"a member's header claims {size} bytes; the archive is damaged")
        self.last = self.file.read(size)
        return self.last

    def seek(self, position: int) -> int:
        return self.file.seek(position)

    def tell(self) -> int:
        return self.file.tell()


def read_tars(source: Path, config: ImportConfig, passed_over: Counter[str]) -> Generator[ImportedClip]:
    """Yield the clips of an archive, or of those below a folder, and what is wrong with an archive."""
    for path in files_of(source, SUFFIXES, passed_over):
        split = file_split(file_name(path, source))
        for clip in _clips(path, source, config, passed_over):
            yield replace(clip, split=clip.split or split)


def _clips(path: Path, source: Path, config: ImportConfig, passed_over: Counter[str]) -> Generator[ImportedClip]:
    sample: _Sample | None = None
    try:
        with _opened(path) as file:
            reads = _Reads(file)
            # Not webdataset's reader: it holds members of any size, and divides names at their first dot.
            with tarfile.open(fileobj=cast("IO[bytes]", reads), mode="r:") as tar:
                position = -1
                while (member := tar.next()) is not None:
                    # Otherwise the archive keeps every member that it has read.
                    tar.members.clear()  # type: ignore[attr-defined]
                    if member.size < 0 or tar.offset <= position:
                        raise ImportProblem("a member's header claims a size below 0")
                    position = tar.offset
                    key, suffix = _divide(member, config, passed_over)
                    if not suffix:
                        continue
                    if sample is None or sample.key != key:
                        if sample is not None:
                            yield sample.clip(path, config)
                        sample = _Sample(key)
                    _take(sample, suffix, member, file, config)
            if reads.last != bytes(tarfile.BLOCKSIZE):
                raise ImportProblem("it has no end mark")
            if sample is not None:
                yield sample.clip(path, config)
            if any(any(piece) for piece in iter(lambda: file.read(PIECE), b"")):
                raise ImportProblem("it goes on after its end mark, as archives do that were put one after the other")
    except Exception as error:
        # Whatever a damaged archive raises, the others are read on.
        last = f", from {printable(sample.key)} on" if sample is not None else ""
        problem = ImportProblem(f"the archive is cut off or damaged{last}: {reason_of(error)}; make or copy it again")
        yield file_problem(path, source, problem)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        plain = stack.enter_context(path.open("rb"))
        start = plain.read(6)
        plain.seek(0)
        opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
        yield stack.enter_context(opener(plain)) if opener else plain


def _divide(member: tarfile.TarInfo, config: ImportConfig, passed_over: Counter[str]) -> tuple[str, str]:
    """Return a member's clip and suffix; both are empty where it is no part of a clip."""
    name = posixpath.normpath(f"/{member.name}").lstrip("/")
    parts = name.split("/")
    if member.isdir() or METADATA.match(name):
        return "", ""
    if any(map(is_hidden, parts)):
        passed_over["hidden"] += 1
        return "", ""
    for suffix in sorted((*(f"{key}.npy" for key in config.keys), "json"), key=len, reverse=True):
        if name.lower().endswith(f".{suffix.lower()}"):
            return name[: -len(suffix) - 1], suffix
    passed_over[printable(posixpath.splitext(name)[1].lower()) or "without suffix"] += 1
    return "", ""


def _take(sample: _Sample, suffix: str, member: tarfile.TarInfo, file: IO[bytes], config: ImportConfig) -> None:
    """Read a member of a clip, or note why not."""
    limit = MAX_TEXT_BYTES if suffix == "json" else config.max_clip_bytes + MAX_HEADER_BYTES
    size = member.size + sum(map(len, sample.members.values()))
    if suffix in sample.members:
        sample.problem = f"{suffix} comes twice in the archive; leave one"
    elif not member.isreg():
        sample.problem = f"{suffix} is a link or a device; put the file itself into the archive"
    elif member.issparse():
        sample.problem = f"{suffix} is sparse; make the archive without --sparse"
    elif size > limit and suffix == "json":
        sample.problem = f"json: expected at most {limit} bytes, got {member.size}"
    elif size > limit:
        sample.problem = (
            f"{suffix}: {size} bytes are more than max_clip_bytes = {config.max_clip_bytes}; raise it to import them"
        )
    sample.members.setdefault(suffix, b"")
    if sample.problem is None:
        file.seek(member.offset_data)
        sample.members[suffix] = file.read(member.size)
        if len(sample.members[suffix]) < member.size:
            raise ImportProblem(f"expected {member.size} bytes of {suffix}, got {len(sample.members[suffix])}")
