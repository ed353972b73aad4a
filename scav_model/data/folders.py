"""Files below a folder, and the media files among them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scav_model.data.text_files import ManifestError
from scav_model.storage.text import printable

# Suffixes of files that have sound alone.
SOUND = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
# What browsers play, by the suffix of the file.
PLAYED = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".webm": "video/webm",
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
}
# Suffixes of files that hold video and can hold sound, and that FFmpeg reads.
# fmt: off
MEDIA = (
    ".3g2", ".3gp", ".3gp2", ".3gpp", ".amv", ".asf", ".avi", ".dav", ".divx", ".dv", ".dvr-ms", ".evo", ".f4v",
    ".flv", ".gxf", ".ismv", ".m2t", ".m2ts", ".m4v", ".mj2", ".mk3d", ".mkv", ".mod", ".mov", ".mp4", ".mpe",
    ".mpeg", ".mpeg4", ".mpg", ".mts", ".mxf", ".nsv", ".nut", ".ogm", ".ogv", ".ogx", ".qt", ".rm", ".rmvb",
    ".tod", ".trp", ".ts", ".vob", ".vro", ".webm", ".wm", ".wmv", ".wtv",
)
# fmt: on


@dataclass
class Walk:
    """Files below a folder.

    Attributes:
        files: those taken, in the order of their paths.
        passed_over: how many of the others there are, by suffix or other kind.
    """

    files: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, as the `._x.mp4` that macOS puts beside `x.mp4` are."""
    return name.startswith(".")


def walk(root: Path, suffixes: tuple[str, ...]) -> Walk:
    """Return the files below `root` whose names end in one of `suffixes`, in any case.

    Linked folders are entered once each, after the others, unless they hold `root` themselves.
    """
    found = Walk()

    def unreadable(error: OSError) -> None:
        found.passed_over["unreadable folder"] += 1

    for path in _below(root, found.passed_over, unreadable):
        if not path.name.lower().endswith(suffixes):
            found.passed_over[printable(path.suffix.lower()) or "without suffix"] += 1
        elif path.is_file():
            found.files.append(path)
        else:
            found.passed_over["not a file"] += 1
    found.files.sort()
    return found


def _below(root: Path, passed_over: Counter[str], unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    entered: set[tuple[int, int]] = set()
    starts = [root]
    real_root = root.resolve()
    for start in starts:
        if start != root and real_root.is_relative_to(start.resolve()):
            continue
        for name, folders, files in os.walk(start, onerror=unreadable):
            folder = Path(name)
            state = folder.stat()
            if (state.st_dev, state.st_ino) in entered:
                folders.clear()
                continue
            entered.add((state.st_dev, state.st_ino))
            passed_over["hidden"] += sum(map(is_hidden, (*folders, *files)))
            folders[:] = sorted(below for below in folders if not is_hidden(below))
            # os.walk names linked folders and does not enter them.
            starts += [folder / below for below in folders if (folder / below).is_symlink()]
            yield from (folder / file for file in files if not is_hidden(file))


def passed_over_line(counts: Counter[str]) -> str | None:
    """Return what was passed over in one line, or None if nothing was."""
    kinds = [f"{count} {kind}" for kind, count in counts.most_common() if count]
    return f"passed over: {', '.join(kinds)}" if kinds else None


def walk_media(root: Path) -> Walk:
    """Return the media files below `root`."""
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder of media files")
    return walk(root, MEDIA)


def by_stem(files: list[Path]) -> dict[str, Path]:
    """Return media files by name without suffix; of two of one name the first."""
    found: dict[str, Path] = {}
    for path in files:
        found.setdefault(path.stem, path)
    return found
