"""Clips in HDF5 files: groups with two datasets, reached by links within the file alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from scav_model.extras import needed_by
from scav_model.storage.text import printable

SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
MAX_SOFT_LINKS = 16  # one after the other
# Filters that HDF5 and h5py bring; others are plugins, loaded from wherever the environment says.
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}


def read_hdf5(source: Path, config: ImportConfig, passed_over: Counter[str]) -> Generator[ImportedClip]:
    """Yield the clips of a file, or of those below a folder."""
    with needed_by("HDF5", "h5py"):
        import h5py
    for path in files_of(source, SUFFIXES, passed_over):
        name = file_name(path, source)
        try:
            with h5py.File(path, "r") as file:
                for clip in _clips(file, path, name, config):
                    yield replace(clip, split=clip.split or file_split(name))
        except Exception as error:
            # Whatever a damaged file raises, the others are read on.
            yield file_problem(path, source, error)


def _clips(file: Any, path: Path, file_id: str, config: ImportConfig) -> Generator[ImportedClip]:
    import h5py

    entered = set()
    names = [""]
    while names:
        name = names.pop()
        origin = f"{path}:/{name}"
        clip_id, split = split_name(name or file_id)
        try:
            group = _member(file, name)
            if group is None:
                raise ImportProblem("a soft link to nothing")
            if not isinstance(group, h5py.Group):
                continue
            clip = _clip(group, clip_id, origin, config)
        except Exception as error:
            # One damaged clip must not end the import of the others.
            yield ImportedClip(clip_id, origin, reason_of(error))
            continue
        if clip is not None:
            yield replace(clip, split=clip.split or split)
            continue
        # A group can hold a link to one that holds it.
        address = h5py.h5o.get_info(group.id).addr
        if address not in entered:
            entered.add(address)
            names += reversed([f"{name}/{below}".lstrip("/") for below in group])


def _member(group: Any, name: str, soft_links: int = 0) -> Any:
    """Return what a path below a group leads to, or None where there is nothing.

    h5py's own look-ups would follow a link into another file.
    """
    import h5py

    if soft_links > MAX_SOFT_LINKS:
        raise ImportProblem("soft links without end")
    here = group.file["/"] if name.startswith("/") else group
    for part in filter(None, name.split("/")):
        raw = part.encode("utf-8", "surrogateescape")
        if part == ".":
            continue
        if not isinstance(here, h5py.Group) or not here.id.links.exists(raw):
            return None
        kind = here.id.links.get_info(raw).type
        if kind == h5py.h5l.TYPE_HARD:
            here = here[raw]
        elif kind == h5py.h5l.TYPE_SOFT:
            target = here.id.links.get_val(raw).decode("utf-8", "surrogateescape")
            here = _member(here, target, soft_links + 1)
        else:
            raise ImportProblem(
                f"{printable(part)} is a link to another file, which is not opened; import that file itself"
            )
    return here


def _clip(group: Any, clip_id: str, origin: str, config: ImportConfig) -> ImportedClip | None:
    """Return a group's clip, or None where it has none of the arrays."""
    import h5py

    found, problems = [], []
    for key in config.keys:
        try:
            item = _member(group, key)
        except ImportProblem as error:
            problems.append(error)
            continue
        if isinstance(item, h5py.Dataset):
            found.append((key, item))
        else:
            problems.append(ImportProblem(f"no {key} array"))
    if not found and all("array" in str(problem) for problem in problems):
        return None
    if problems:
        raise problems[0]
    for key, item in found:
        _check_storage(key, item, config)
    check_size(config, [(key, item.dtype, item.shape or ()) for key, item in found])
    label, split = (_attribute(group, key) for key in ("label", "split"))
    video, audio = (item[()] for _, item in found)
    return ImportedClip(clip_id, origin, (video, audio), label, split)


def _check_storage(key: str, item: Any, config: ImportConfig) -> None:
    """Refuse a dataset whose numbers lie in other files, or need more than HDF5 itself to be read."""
    # Before its shape is asked for, which can open a virtual dataset's sources.
    if item.is_virtual or item.external:
        raise ImportProblem(
            f"{key} lies in other files (virtual or external), which are not opened; write its numbers into this one"
        )
    properties = item.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code = properties.get_filter(index)[0]
        if code not in FILTERS:
            raise ImportProblem(
                f"{key} is compressed by the plugin filter {code}; expected {', '.join(FILTERS.values())} or none"
            )
    if item.chunks and math.prod(item.chunks) * item.dtype.itemsize > config.max_clip_bytes:
        raise ImportProblem(f"{key}: a chunk of {item.chunks} is more than max_clip_bytes = {config.max_clip_bytes}")


def _attribute(group: Any, key: str) -> str | None:
    import h5py

    if not h5py.h5a.exists(group.id, key.encode()):
        return None
    attribute = h5py.h5a.open(group.id, key.encode())
    size = math.prod(attribute.shape) * attribute.dtype.itemsize
    if size > MAX_TEXT_BYTES:
        raise ImportProblem(f"{key}: expected a short text, got {size} bytes")
    return text_of(key, group.attrs[key])
