"""Files that are there whole or not at all, and are known by their hash."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write what `path` shall hold. Whatever interrupts this, `path` holds the old content or the new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """`replacing`, of content that is at hand."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """`replacing`, of text, in UTF-8."""
    write_whole(path, text.encode())


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable: until then a renamed file may have its old name after a crash."""
    if os.name != "posix":
        return  # Elsewhere a folder cannot be opened.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int | None:
    """A descriptor that holds `path` against other writers until it is closed or this process ends, however it does.

    None where another process holds it.
    """
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"expected {path} to be a regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file of a folder that may come from a stranger, to read it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name leads out of the folder, or is that of a link, a folder, a pipe or a device.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected the plain name of a file in {folder}, got {name[:80]!r}")
    path = folder / name
    # Looked at first, for opening a device may do something.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"expected {path} to be a regular file, found a link, a folder, a pipe or a device")
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hexadecimal; comparable with `sha256sum`."""
    with Path(path).open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """SHA-256 of an open file from where it stands to its end, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 22):
        digest.update(block)
    return digest.hexdigest()
