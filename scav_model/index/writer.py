"""Change an index, so that a crash at any moment leaves the whole version before the change.

A shard is written once, under a new name, and is part of the index once the header lists it. The next writer removes
files that a killed process left unlisted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import torch
from safetensors.torch import save
from torch import Tensor

from scav_model.data.ids import name_problem
from scav_model.data.store.header import DTYPES
from scav_model.index.bounds import has_bounds, make_bounds, principal_directions
from scav_model.index.header import (
    FOLDER,
    SHARD_BYTES,
    Header,
    SearchIndexError,
    Shard,
    load_tensors,
    write_file,
)
from scav_model.index.index import IndexReader
from scav_model.index.shard import Encoded, check_media, write_shard
from scav_model.storage.committed_folder import FolderWriter
from scav_model.storage.files import LOCK, is_partial, make_folder


class IndexWriter(FolderWriter):
    """The one writer of an index; readers keep the version that they opened.

    Args:
        folder: folder of an index.
        shard_bytes: bytes of encoded steps in a shard; memory holds a few times as much.
    """

    def __init__(self, folder: Path | str, *, shard_bytes: int = SHARD_BYTES) -> None:
        if shard_bytes < 1:
            raise SearchIndexError(f"expected shard_bytes to be at least 1, got {shard_bytes}")
        self.shard_bytes = shard_bytes
        # Read before the lock file is made, so that a mistyped folder stays as it is.
        Header.read(Path(folder))
        super().__init__(Path(folder), FOLDER)
        self._gathered: list[Encoded] = []
        self._bytes = 0
        try:
            index = IndexReader.open(self.folder)
            self.header = index.header
            self.ids = set(index.numbers)
            self._clear()
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path | str, header: Header, *, shard_bytes: int = SHARD_BYTES) -> IndexWriter:
        """Make an empty index in a new or empty folder."""
        folder = Path(folder)
        make_folder(folder)
        # Checked before the lock file is made, so that a mistyped folder stays as it is, and once more when others are
        # locked out.
        _check_empty(folder)
        descriptor = FOLDER.lock(folder)
        try:
            _check_empty(folder)
            with _explained(folder, "nothing was written"):
                header.write(folder)
        finally:
            os.close(descriptor)
        return cls(folder, shard_bytes=shard_bytes)

    def add(self, clip: Encoded) -> None:
        """Add a clip. It is part of the index from the next `commit`, which every full shard calls.

        Raises:
            SearchIndexError: the id is taken or unprintable, the steps have another size or are not finite, or no
                index can hold the media; the clip is not added.
        """
        if clip.id in self.ids:
            raise SearchIndexError(f"{clip.id!r} is in the index already; delete it first, or give another id")
        if problem := name_problem("id", clip.id):
            raise SearchIndexError(problem)
        try:
            check_media(clip.media)
            orjson.dumps(clip.media)
        except (TypeError, ValueError) as error:
            raise SearchIndexError(f"media of {clip.id!r}: {error}") from None
        if set(clip.steps) != set(self.header.sides):
            expected = " and ".join(self.header.sides)
            raise SearchIndexError(f"{clip.id!r}: expected steps of {expected}, got {', '.join(clip.steps) or 'none'}")
        for side, steps in clip.steps.items():
            if steps.ndim != 2 or steps.shape[1] != self.header.dim or not len(steps):
                raise SearchIndexError(
                    f"{side} of {clip.id!r}: expected (steps, {self.header.dim}), got {tuple(steps.shape)}"
                )
            if steps.dtype != DTYPES[self.header.dtype]:
                raise SearchIndexError(f"{side} of {clip.id!r}: expected {self.header.dtype}, got {steps.dtype}")
            if not _all_finite(steps):
                raise SearchIndexError(f"{side} of {clip.id!r}: encoded steps are NaN or infinite; leave the clip out")
        self.ids.add(clip.id)
        self._gathered.append(clip)
        self._bytes += clip.bytes
        if self._bytes >= self.shard_bytes:
            self.commit()

    def commit(self) -> None:
        """Write the added clips to the disk; the header, written last, makes them part of the index.

        Raises:
            SearchIndexError: the disk is full or fails; the index is as before.
        """
        if not self._gathered:
            return
        clips = self._sorted(self._gathered)
        self._gathered, self._bytes = [], 0
        try:
            with self._change():
                self.header.shards.append(self._write(clips))
        except BaseException:
            self.ids.difference_update(clip.id for clip in clips)
            raise

    def delete(self, ids: Iterable[str]) -> int:
        """Delete clips and return how many; `compact` frees their space.

        Raises:
            SearchIndexError: the index has no clip of an id; then none is deleted.
        """
        self.commit()
        index = IndexReader(self.folder, self.header)
        chosen = [index.number(name) for name in dict.fromkeys(ids)]
        if not chosen:
            return 0
        index.live[chosen] = False
        gone = np.flatnonzero(~index.live).astype(np.int64)
        with self._change():
            name = f"deleted-{self.header.version:06d}.bin"
            self.header.deleted = write_file(self.folder, name, gone.tobytes())
            self.header.deleted_clips = len(gone)
        self.ids = set(index.numbers) - {index.id(number) for number in chosen}
        return len(chosen)

    def compact(self) -> int:
        """Write all clips anew, in full shards, without the deleted ones, and return the bytes that this freed.

        The disk needs space for both versions until the new one is written.
        """
        self.commit()
        before = sum(file.bytes for file in self.header.files())
        index = IndexReader(self.folder, self.header)
        with self._change():
            # Computed anew, from more clips than there were at first.
            self.header.directions, self.header.common_steps = None, {}
            self.header.shards = [self._write(clips) for clips in self._batches(index)]
            self.header.deleted, self.header.deleted_clips = None, 0
        self._clear()
        return before - sum(file.bytes for file in self.header.files())

    def _batches(self, index: IndexReader) -> Iterator[list[Encoded]]:
        gathered: list[Encoded] = []
        size = 0
        for number in np.flatnonzero(index.live).tolist():
            shard, clip = index.at(number)
            steps = {side: shard.steps(side, clip) for side in self.header.sides}
            gathered.append(Encoded(shard.ids[clip], steps, shard.media(clip)))
            size += gathered[-1].bytes
            if size >= self.shard_bytes:
                yield self._sorted(gathered)
                gathered, size = [], 0
        if gathered:
            yield self._sorted(gathered)

    def _sorted(self, clips: list[Encoded]) -> list[Encoded]:
        """Return the clips with those of equal length next to each other, which exact search reads without copying."""
        return sorted(clips, key=lambda clip: [len(clip.steps[side]) for side in self.header.sides])

    def _write(self, clips: Sequence[Encoded]) -> Shard:
        made = self._bounds(clips) if has_bounds(self.header) else None
        shard = write_shard(self.folder, self.header.next_shard, clips, self.header.sides, made)
        self.header.next_shard += 1
        return shard

    def _bounds(self, clips: Sequence[Encoded]) -> dict[str, Tensor]:
        steps = {side: [clip.steps[side] for clip in clips] for side in self.header.sides}
        if self.header.directions is None:
            found = {side: principal_directions(rows) for side, rows in steps.items()}
            name = f"directions-{self.header.next_shard:06d}.safetensors"
            self.header.directions = write_file(self.folder, name, save(found))
            self.header.common_steps = {
                side: Counter(len(one) for one in rows).most_common(1)[0][0] for side, rows in steps.items()
            }
        file = self.header.directions
        sizes = {side: (torch.float32, [None, self.header.dim]) for side in steps}
        directions = load_tensors(self.folder / file.name, FOLDER.read_file(self.folder, file), sizes)
        made: dict[str, Tensor] = {}
        for side, rows in steps.items():
            made |= make_bounds(self.header, side, rows, directions[side])
        return made

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Write the header after changes to it, or restore the one before them."""
        before = Header.read(self.folder)
        try:
            with _explained(self.folder, f"the index is what it was, {before.clips} clips"):
                yield
                self.header.version += 1
                self.header.write(self.folder)
        except BaseException:
            # The header may be on the disk already where the failure came after its renaming.
            self.header = Header.read(self.folder)
            self._clear()
            raise

    def _clear(self) -> None:
        """Remove files that the header does not list."""
        FOLDER.remove_unlisted(self.folder, {file.name for file in self.header.files()})


def _check_empty(folder: Path) -> None:
    others = [path.name for path in folder.iterdir() if path.name != LOCK and not is_partial(path)]
    if others:
        raise SearchIndexError(f"{folder} is not empty, it holds {others[0]}; choose another folder")


def _all_finite(steps: Tensor) -> bool:
    # A sum is a third of the work, and finite where all are; a sum of finite numbers may overflow.
    return bool(steps.sum(dtype=torch.float32).isfinite()) or bool(steps.isfinite().all())


@contextmanager
def _explained(folder: Path, state: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise SearchIndexError(f"{folder} could not be written to ({reason}): {state}; make room and repeat") from error
