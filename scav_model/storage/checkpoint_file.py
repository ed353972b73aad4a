"""Checkpoint files: PyTorch's archives, sealed by a SHA-256 in the archive's comment."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from scav_model.devices import to_device
from scav_model.storage.files import replacing

FORMAT = 4
# Version 0.5.0 wrote format 3: without the SHA-256, and otherwise the same.
UNSEALED_FORMAT = 3
# An archive ends with the length of its comment and the comment; PyTorch writes none.
LENGTH_BYTES = 2
COMMENT = b"SHA-256 of the bytes before it: "
DIGEST_BYTES = 2 * hashlib.sha256().digest_size
SEAL_BYTES = len(COMMENT) + DIGEST_BYTES


class _HashedFile:
    """Hashes what is written; PyTorch writes an archive from its start to its end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def save(path: Path, state: dict[str, Any]) -> None:
    """Replaces `path` by `state`. Whatever interrupts this, `path` holds the old file or the new one, whole."""
    with replacing(path) as file:
        hashed = _HashedFile(file)
        torch.save({"format": FORMAT, **state}, hashed)  # type: ignore[arg-type]
        file.seek(-LENGTH_BYTES, os.SEEK_END)
        file.write(SEAL_BYTES.to_bytes(LENGTH_BYTES, "little") + COMMENT + hashed.digest.hexdigest().encode())


def load(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read what `save` wrote: tensors and plain values only, so that a file from elsewhere cannot run code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint, a damaged one, or one of another version; an unknown device.
    """
    if not path.is_file():
        if path.exists():
            raise ValueError(f"expected a checkpoint, {path} is no regular file; name a checkpoint.pt")
        raise FileNotFoundError(f"no checkpoint at {path}")
    device = to_device(device)
    with path.open("rb") as file:
        sealed = _is_sealed(path, file)
        try:
            state = torch.load(file, map_location=device, weights_only=True)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(
                f"{path} is not a checkpoint of this program, or is damaged ({type(error).__name__}); "
                "name another one, or train again"
            ) from error
        found = state.get("format") if isinstance(state, dict) else None
        if not isinstance(found, int) or found not in (UNSEALED_FORMAT, FORMAT):
            raise ValueError(
                f"{path} has checkpoint format {found}, expected {UNSEALED_FORMAT} or {FORMAT}; "
                "it was written by another version"
            )
        if not sealed and (found == FORMAT or not _parts_are_whole(file)):
            raise ValueError(_damaged(path))
    return state


def _is_sealed(path: Path, file: BinaryIO) -> bool:
    """Return whether the file has the right SHA-256; False where it has none. Afterwards the file is at its start."""
    size = file.seek(0, os.SEEK_END)
    sealed_bytes = size - SEAL_BYTES - LENGTH_BYTES
    found = b""
    if sealed_bytes >= 0:
        file.seek(size - SEAL_BYTES)
        found = file.read(SEAL_BYTES)
    file.seek(0)
    if not found.startswith(COMMENT):
        return False
    digest = hashlib.sha256()
    while sealed_bytes > 0:
        block = file.read(min(sealed_bytes, 1 << 22))
        if not block:
            break
        digest.update(block)
        sealed_bytes -= len(block)
    # As PyTorch wrote it, without a comment.
    digest.update(bytes(LENGTH_BYTES))
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length != SEAL_BYTES or digest.hexdigest().encode() != found.removeprefix(COMMENT):
        raise ValueError(_damaged(path))
    file.seek(0)
    return True


def _parts_are_whole(file: BinaryIO) -> bool:
    """Return whether each part of an archive has the CRC-32 that it was written with; PyTorch does not check."""
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except Exception:
        # Damage makes the library raise errors of many kinds.
        return False


def _damaged(path: Path) -> str:
    return (
        f"{path} is damaged: its content is not what was written, by its checksum; "
        "copy it again, name another checkpoint of the run, or train again"
    )
