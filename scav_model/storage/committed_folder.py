"""Folders that one process writes and many read; feature stores and search indexes are such folders.

The header is a JSON file that lists the other files. A writer holds the lock, writes each file whole under a new name,
and replaces the header last. So a file that the header does not list is no part of the folder: the next writer removes
it. Readers take no lock. They check what they read against the sizes and checksums in the header, and keep the files
that they have mapped even when a writer removes their names.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scav_model.storage.files import LOCK, lock, open_inside, remove_unlisted, write_whole
from scav_model.storage.strict_json import read_json_file
from scav_model.storage.text import shown

if TYPE_CHECKING:
    from typing import Self

T = TypeVar("T")
# Python's own mmap holds a descriptor for each file, of which systems often allow a process 1024.
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class ListedFile(Protocol):
    """A file as the header lists it; `checksum` None: the header has none."""

    @property
    def name(self) -> str: ...

    @property
    def bytes(self) -> int: ...

    @property
    def checksum(self) -> int | str | None: ...


@dataclass(frozen=True)
class FolderFormat:
    """One kind of committed folder: its names, its checksums and its errors.

    Attributes:
        kind: name of such a folder in errors, such as "search index".
        header: file name of the header.
        versions: numbers of the formats that can be read.
        prefixes: beginnings of the names of the files that a header lists.
        checksum: makes the checksum of the header or of a file.
        mismatch: words for a file whose checksum is wrong: "is damaged: its CRC-32".
        no_folder: advice where there is no header.
        old_version: advice where the format is not one of `versions`.
        restore: advice where a file is damaged.
        error, damaged, missing: errors of a folder that cannot be used, of damaged files and of missing ones.
    """

    kind: str
    header: str
    versions: tuple[int, ...]
    prefixes: tuple[str, ...]
    checksum: Callable[[bytes | memoryview], int | str]
    mismatch: str
    no_folder: str
    old_version: str
    restore: str
    error: type[ValueError]
    damaged: type[ValueError]
    missing: type[ValueError]

    def header_checksum(self, values: dict[str, Any]) -> int | str:
        """Return the checksum of a header's values, which does not depend on spaces and the order of keys."""
        return self.checksum(json.dumps(values, sort_keys=True).encode())

    def write_header(self, folder: Path, content: dict[str, Any], indent: int) -> None:
        """Replace the header: from now on the files that it lists are the folder's."""
        write_whole(folder / self.header, (json.dumps(content, indent=indent) + "\n").encode())

    def read_header(
        self,
        folder: Path,
        unseal: Callable[[Any], tuple[Any, dict[str, Any]]],
        parse: Callable[[dict[str, Any], int], T],
    ) -> T:
        """Read and check the header.

        Args:
            folder: the committed folder; it may come from a stranger.
            unseal: takes the JSON value; checks the checksum and returns the number of the format and the values. It
                raises ValueError if it cannot.
            parse: makes the header of the values, if the format is one of `versions`; raises ValueError if it cannot.

        Raises:
            FileNotFoundError: the folder has no header.
            ValueError: `damaged` if the header is not what was written, `error` if its format is unknown.
        """
        try:
            with open_inside(folder, self.header) as file:
                version, values = unseal(read_json_file(file))
            if version in self.versions:
                return parse(values, version)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"no {self.kind} at {folder} (no {self.header} in it); {self.no_folder}") from None
        except ValueError as error:
            raise self.damaged(
                f"{folder / self.header} is damaged, or not the header of a {self.kind} ({error}); {self.restore}"
            ) from error
        raise self.error(
            f"{folder} is a {self.kind} of format {shown(version)}, and this version reads "
            f"{' and '.join(map(str, self.versions))}; {self.old_version}"
        )

    def lock(self, folder: Path) -> int:
        """Lock the folder against other writers, and return the descriptor that holds the lock until it is closed."""
        descriptor = lock(folder / LOCK)
        if descriptor is None:
            raise self.error(f"another process is writing to {folder}; wait for it to end, or choose another folder")
        return descriptor

    def remove_unlisted(self, folder: Path, listed: Collection[str]) -> None:
        """Remove the files that killed writers left; `listed` are the names that the header lists."""
        remove_unlisted(folder, self.prefixes, listed)

    def locate(self, folder: Path, name: str) -> tuple[str, int]:
        """Return the path and the size of a file.

        Raises:
            ValueError: `missing` if there is no such file, `damaged` if it is no regular file.
        """
        # Of strings, because an index has thousands of files.
        path = f"{folder}{os.sep}{name}"
        try:
            state = os.lstat(path)
        except FileNotFoundError:
            raise self.missing(f"{path} is missing; {self.restore}") from None
        if not stat.S_ISREG(state.st_mode):
            raise self.damaged(f"{path} is damaged: it is a link, a folder, a pipe or a device; {self.restore}")
        return path, state.st_size

    def check_size(self, folder: Path, file: ListedFile) -> str:
        """Return the path of a listed file; errors as `locate`, and `damaged` if it has another size."""
        path, size = self.locate(folder, file.name)
        if size != file.bytes:
            raise self.damaged(
                f"{path} is damaged: expected it to have {file.bytes} bytes, found {size}; {self.restore}"
            )
        return path

    def open(self, path: str) -> int:
        """Return a descriptor of a file that `locate` found, for reading."""
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise self.missing(f"{path} is missing; {self.restore}") from None
        except OSError as error:
            raise self.damaged(f"{path} cannot be opened ({error.strerror}); {self.restore}") from None

    def read_file(self, folder: Path, file: ListedFile) -> bytes:
        """Return the content of a listed file, after checking its size and checksum."""
        with os.fdopen(self.open(self.check_size(folder, file)), "rb") as opened:
            try:
                content = opened.read()
            except MemoryError:
                path = folder / file.name
                raise self.damaged(f"{path} has {file.bytes} bytes, more than there is memory for") from None
        self.check_content(folder, file, content)
        return content

    def check_content(self, folder: Path, file: ListedFile, content: bytes | memoryview) -> None:
        """Raise `damaged` if the content of a listed file does not have its checksum."""
        found = self.checksum(content)
        if file.checksum not in (None, found):
            raise self.damaged(
                f"{folder / file.name} {self.mismatch} is {_text(found)}, not {_text(file.checksum)}; {self.restore}"
            )


def _text(checksum: int | str | None) -> str:
    return f"{checksum:08x}" if isinstance(checksum, int) else str(checksum)


class MappedFiles:
    """Listed files in memory, page by page as they are read.

    A file stays readable when a writer removes its name. No descriptor is held. A pickle holds no file: the process
    that unpickles it maps the files again.
    """

    def __init__(self, folder: Path, form: FolderFormat) -> None:
        self.folder, self.format = folder, form
        self._maps: dict[str, NDArray[np.uint8]] = {}
        self._read: set[str] = set()

    def open(self, files: Iterable[ListedFile]) -> None:
        """Map files without reading them; errors as `FolderFormat.check_size`."""
        for file in files:
            descriptor = self.format.open(self.format.check_size(self.folder, file))
            try:
                # By its descriptor, because PyTorch takes no path that is not UTF-8. Copy-on-write, because PyTorch has
                # no read-only tensors: what is written to one reaches a private page, never the file.
                mapped = torch.from_file(f"/dev/fd/{descriptor}", shared=False, size=file.bytes, dtype=torch.uint8)
            except RuntimeError as error:
                path = self.folder / file.name
                raise self.format.damaged(f"{path} cannot be mapped ({error}); {self.format.restore}") from None
            finally:
                os.close(descriptor)
            self._maps[file.name] = mapped.numpy()

    def content(self, file: ListedFile) -> NDArray[np.uint8]:
        """Return the bytes of a file, which is mapped if need be; the caller checks what is in them."""
        if file.name not in self._maps:
            self.open([file])
        if file.name not in self._read:
            # To read beyond the end of a file that has become shorter would end the process.
            with suppress(self.format.missing):
                self.format.check_size(self.folder, file)
            self._read.add(file.name)
        return self._maps[file.name]

    def checked(self, file: ListedFile) -> NDArray[np.uint8]:
        """Return the bytes of a file after checking their checksum."""
        content = self.content(file)
        self.format.check_content(self.folder, file, content.data)
        return content

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_read": set()}


def as_rows(content: NDArray[np.uint8], begin: int, rows: int, dim: int, dtype: torch.dtype) -> Tensor:
    """Return the numbers (rows, dim) that begin at a byte of a mapped file, without copying them."""
    width = dim * dtype.itemsize
    return torch.from_numpy(content[begin : begin + rows * width].reshape(rows, width)).view(dtype)


def read_ahead(rows: Tensor) -> None:
    """Ask the system to read mapped rows from the disk in one go, instead of page by page as they are used."""
    begin = rows.data_ptr()
    page = begin // mmap.PAGESIZE * mmap.PAGESIZE
    _madvise(page, begin + rows.nbytes - page, mmap.MADV_WILLNEED)


class FolderWriter(ABC):
    """The one process that writes to a committed folder; readers keep the version that they opened."""

    def __init__(self, folder: Path, form: FolderFormat) -> None:
        self.folder = folder
        self._lock = form.lock(folder)

    @abstractmethod
    def commit(self) -> None:
        """Write what was added to the disk, the header last."""

    def close(self) -> None:
        """Let other writers in."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Commit what was added, after an error or Ctrl-C too."""
        try:
            self.commit()
        finally:
            self.close()
