"""Paths of a command line, and what they lead to, for error messages. Nothing here imports torch."""

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SOUND = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
VIDEO = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")

FOLDER, FILE = "a folder", "a file"
INDEX, STORE, RUN, MODEL = "a search index", "a feature store", "a training run's folder", "a saved model's folder"
FEATURES, CHECKPOINT, LINES, MEDIA = "a feature file", "a checkpoint", "a JSON file", "a media file"
WEIGHTS = "the weights of a saved model"
# Files by which a folder is known.
MARKS = {"index.json": INDEX, "header.json": STORE, "model.safetensors": MODEL, "checkpoint.pt": RUN}
# Who takes such a thing.
TAKERS = {
    INDEX: "scav search and scav index take that",
    STORE: "--features takes that",
    FEATURES: "--features takes that",
    RUN: "--checkpoint takes that",
    MODEL: "--checkpoint takes that",
    CHECKPOINT: "--checkpoint takes that",
    LINES: "scav extract and --manifest take manifests",
    MEDIA: "scav extract and scav search take that",
    WEIGHTS: "name its folder",
}
SOURCE = ("a feature store, one split of it (STORE:SPLIT) or a feature file", (STORE, FOLDER, FEATURES, FILE))
ANY_FILE = ("a file", (FEATURES, CHECKPOINT, LINES, MEDIA, WEIGHTS, FILE))
# What a parameter takes, by its name: in words, and as `kind` has it.
WANTED = {
    "index": ("the folder of a search index", (INDEX, FOLDER)),
    "store": ("the folder of a feature store", (STORE, FOLDER)),
    "features": SOURCE,
    "train_features": SOURCE,
    "eval_features": SOURCE,
    "checkpoint": (
        "a checkpoint, a training run's folder or a saved model's folder",
        (CHECKPOINT, RUN, MODEL, FOLDER, FILE),
    ),
    "manifest": ("a manifest, a file of JSON Lines", (LINES, FILE)),
    "batch": ("a file with a query a line", ANY_FILE[1]),
    "query": ("a media file", (MEDIA, FILE)),
    "recording": ("a media file", (MEDIA, FILE)),
    "output": ("the name of a file to write", (LINES, FILE)),
    "listing": ("a data set's list, a file", ANY_FILE[1]),
    "results": ("a results.json of scav probe temporal", ANY_FILE[1]),
}


def kind(path: Path) -> str:
    """Return what a folder or a file is, as far as the names in it and its first bytes tell."""
    if path.is_dir():
        return next((what for name, what in MARKS.items() if (path / name).is_file()), FOLDER)
    if path.suffix.lower() in SOUND + VIDEO:
        return MEDIA
    if not path.is_file():
        return FILE
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return WEIGHTS if (path.parent / "config.json").is_file() and path.name == "model.safetensors" else FEATURES
    if start.startswith(b"PK\3\4") and path.suffix.lower() in (".pt", ".pth", ".ckpt"):
        return CHECKPOINT
    return LINES if start.lstrip().startswith(b"{") else FILE


def check(arguments: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: a path leads to what its parameter does not take; the message says what that is.
    """
    for name, path in paths(arguments):
        if "\0" in str(path):
            raise ValueError(f"expected {name} to be a path, got {str(path)!r}; no path has the character NUL")
        if name not in WANTED or not path.exists():
            continue
        wanted, kinds = WANTED[name]
        found = kind(path)
        if found not in kinds:
            inner = path / "results.json"
            fix = f"name {inner}" if name == "results" and inner.is_file() else TAKERS.get(found, "name another")
            raise ValueError(f"expected {wanted}, got {path}, which is {found}; {fix}")


def paths(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    """Return every path among the arguments, with its parameter's name."""
    for name, value in arguments.items():
        for entry in value.values() if isinstance(value, dict) else [value]:
            if isinstance(entry, Path):
                yield name, entry


def told(error: OSError) -> str:
    """Return what an operating system's error says of which path, and what to do."""
    path = error.filename
    if error.errno is None or path is None:
        return error.strerror or str(error)
    path = os.fsdecode(path) if isinstance(path, bytes) else str(path)
    if error.errno in ADVICE:
        return ADVICE[error.errno].format(path)
    return f"{path}: {error.strerror}"


ADVICE = {
    errno.ENOENT: "expected a file or folder at {}, found none; check the name",
    errno.EISDIR: "expected a file, got the folder {}; name a file",
    errno.ENOTDIR: "expected a folder at {}, got a file, or something below a file; name another",
    errno.EEXIST: "expected a folder at {}, got a file; name another",
    errno.ENAMETOOLONG: "{} is longer than names of files may be; name another",
    errno.EACCES: "no permission to use {}; change its mode or owner, or name another",
    errno.EPERM: "no permission to use {}; change its mode or owner, or name another",
    errno.EROFS: "{} is on a disk that cannot be written to; name another",
    errno.ELOOP: "{} is a link that leads back to itself; name another",
}
