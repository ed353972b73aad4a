"""Write files whole or not at all, lock folders against other writers, open files of strangers, hash files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from scav_model.storage.text import shown

# Locked by the process that writes to a folder.
LOCK = ".lock"
# A file that is not yet whole is called .NAME.PROCESS.partial
PARTIAL = ".partial"
ADVICE = {
    errno.ENOSPC: "the disk is full; make room",
    errno.EDQUOT: "this user's share of the disk is used up; make room",
    errno.EFBIG: "the file is larger than the file system or ulimit -f allows; raise the limit",
    errno.EIO: "the disk failed; check it",
}


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Make errors of writing `path`, in this block, name it and say what to do.

    Raises:
        OSError: with the errno of the disk's error, `filename` the path, in one line.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        causes = [*_causes(error)]
        # Ctrl-C while PyTorch writes: its writer raises a RuntimeError on top of what its file raised.
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes):
            raise KeyboardInterrupt from error
        number = _errno(causes, str(path))
        if number is None:
            raise
        advice = f": {ADVICE[number]}, then repeat" if number in ADVICE else ""
        raise OSError(number, os.strerror(number) + advice, str(path)) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, the error that it was raised from or on top of, and so on."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _errno(causes: Sequence[BaseException], path: str) -> int | None:
    """Return the number of the first OSError; None if there is none, or if it is of another file."""
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None:
            names = [str(name) for name in (cause.filename, cause.filename2) if name is not None]
            here = not names or any(name == path or name.endswith(PARTIAL) for name in names)
            return cause.errno if here else None
    return errno.EIO if "PytorchStreamWriter failed writing" in str(causes[0]) else None


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for the new content of `path`. Whatever interrupts this, `path` has the old content or the new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
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
    """Replace the content of `path`, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` by a text in UTF-8, as `replacing` does."""
    write_whole(path, text.encode())


def write_figure(path: Path, figure: Any) -> None:
    """Replace the content of `path` by a figure of matplotlib, as PNG, as `replacing` does."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; a folder that exists stays as it is."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk; before, a renamed file may have its old name after a crash."""
    if os.name != "posix":
        return  # Elsewhere a folder cannot be opened.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(path: Path) -> int | None:
    """Lock `path` against other processes, until the returned descriptor is closed or this process ends in any way.

    Returns:
        The descriptor; None if another process has the lock.
    """
    with writing(path):
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"expected {path} to be a regular file")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a file for reading, in a folder that may come from a stranger.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name leads out of the folder, or is that of a link, a folder, a pipe or a device.
    """
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"expected the plain name of a file in {folder}, got {shown(name)}")
    path = folder / name
    # Looked at first, for opening a device may do something.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ValueError(f"expected {path} to be a regular file, found a link, a folder, a pipe or a device")
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


class FolderInUseError(RuntimeError):
    """Another process works in a folder, which the message names."""


@contextmanager
def working_in(folder: Path, work: str) -> Iterator[None]:
    """Lock a folder, made if need be, against other processes that work there, and remove what killed ones left.

    The lock file exists as long as this block; a killed process leaves it behind, unlocked.

    Args:
        folder: the folder to lock.
        work: what another process does there, for the error: "trains".

    Raises:
        FolderInUseError: another process has locked the folder.
    """
    make_folder(folder)
    path = folder / LOCK
    descriptor = _lock_file(path)
    if descriptor is None:
        raise FolderInUseError(
            f"another process {work} in {folder}; wait for it to end, stop it, or choose another folder"
        )
    try:
        remove_partial(folder)
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def is_partial(path: Path) -> bool:
    """Return True if a process is writing the file, or was killed while it wrote it."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partial(folder: Path) -> None:
    """Remove unfinished files of killed processes; no process may be writing in the folder."""
    remove_unlisted(folder, (), ())


def remove_unlisted(folder: Path, prefixes: tuple[str, ...], listed: Collection[str]) -> None:
    """Remove what killed processes left: unfinished files, and files with these prefixes that are not listed."""
    for path in folder.iterdir():
        if is_partial(path) or (path.name.startswith(prefixes) and path.name not in listed):
            path.unlink(missing_ok=True)


def _lock_file(path: Path) -> int | None:
    """Lock a file that its owner removes at the end: the file that has the name now, as `lock` does."""
    while (descriptor := lock(path)) is not None:
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
    return None


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file, in hexadecimal, as `sha256sum` prints it."""
    with Path(path).open("rb") as file:
        return sha256_of(file)


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of an open file from its position to its end, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(1 << 22):
        digest.update(block)
    return digest.hexdigest()


def sha256_of_bytes(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in memory, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
