"""Clips in `.npz` archives, one each."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from scav_model.data.importers.clip import (
    MAX_TEXT_BYTES,
    ImportConfig,
    ImportedClip,
    ImportProblem,
    check_size,
    file_name,
    files_of,
    reason_of,
    split_name,
    text_of,
)
from scav_model.data.importers.npy import open_npy


def read_npz(source: Path, config: ImportConfig, passed_over: Counter[str]) -> Generator[ImportedClip]:
    """Yield the clips of an archive, or of those below a folder."""
    for path in files_of(source, (".npz",), passed_over):
        name, split = split_name(file_name(path, source))
        try:
            clip = _clip(name, path, config)
        except Exception as error:
            # A damaged archive can raise almost anything, and must not end the import of the others.
            clip = ImportedClip(name, str(path), reason_of(error))
        yield replace(clip, split=clip.split or split)


def _clip(name: str, path: Path, config: ImportConfig) -> ImportedClip:
    with ExitStack() as stack:
        archive = stack.enter_context(zipfile.ZipFile(path))
        members = set(archive.namelist())
        found = []
        for key in config.keys:
            if f"{key}.npy" not in members:
                raise ImportProblem(f"no {key} array")
            found.append(open_npy(key, stack.enter_context(archive.open(f"{key}.npy"))))
        check_size(config, [(key, array.dtype, array.shape) for key, array in zip(config.keys, found, strict=True)])
        texts = {}
        for key in ("label", "split"):
            if f"{key}.npy" in members:
                array = open_npy(key, stack.enter_context(archive.open(f"{key}.npy")))
                if array.nbytes > MAX_TEXT_BYTES:
                    raise ImportProblem(f"{key}: expected a short text, got {array.nbytes} bytes")
                texts[key] = text_of(key, array.read())
        video, audio = (array.read() for array in found)
        return ImportedClip(name, str(path), (video, audio), **texts)
