"""Small files to import, and the reasons of a store."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scav_model.data.importers import ImportConfig

CONFIG = ImportConfig(video_rate_hz=5.0, audio_rate_hz=6.25)
VIDEO = np.arange(12, dtype=np.float32).reshape(3, 4)


def dump(array: np.ndarray) -> bytes:
    """Return an array as a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def save_npz(path: Path, **arrays: object) -> None:
    """Write a clip that can be imported, except for `arrays`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, **{"video": VIDEO, "audio": np.ones((3, 6)), **arrays})  # type: ignore[arg-type]


def good(name: str) -> dict[str, bytes | tarfile.TarInfo]:
    """Return the members of a clip that can be imported."""
    return {f"{name}.video.npy": dump(VIDEO), f"{name}.audio.npy": dump(np.ones((3, 6)))}


def pack(path: Path, members: Mapping[str, bytes | tarfile.TarInfo]) -> None:
    """Write a tar of files by name, or of members without content."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def reasons(store: Path) -> dict[str, str]:
    """Return why clips were skipped, by id."""
    lines = [json.loads(line) for line in (store / "skipped.jsonl").read_text().splitlines()]
    return {line["id"]: line["reason"] for line in lines}
