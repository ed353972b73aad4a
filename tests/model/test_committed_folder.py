"""Committed folders, under feature stores and indexes: lock, header, files with checksums, mapped rows."""

from __future__ import annotations

import json
import os
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scav_model.storage.committed_folder import FolderFormat, FolderWriter, MappedFiles, as_rows, read_ahead


class WrongError(ValueError):
    pass


class DamagedError(WrongError):
    pass


class MissingError(DamagedError):
    pass


BOX = FolderFormat(
    kind="box",
    header="box.json",
    versions=(1, 2),
    prefixes=("item-",),
    checksum=zlib.crc32,
    mismatch="is damaged: its CRC-32",
    no_folder="make a box",
    old_version="make another box",
    restore="copy the box again",
    error=WrongError,
    damaged=DamagedError,
    missing=MissingError,
)
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


@dataclass(frozen=True)
class Item:
    name: str
    bytes: int
    checksum: int | None


@pytest.fixture
def item(tmp_path: Path) -> Item:
    content = b"head" + ROWS.tobytes()
    (tmp_path / "item-0").write_bytes(content)
    return Item("item-0", len(content), zlib.crc32(content))


def write(folder: Path, values: dict[str, Any]) -> None:
    BOX.write_header(folder, {"seal": BOX.header_checksum(values), **values}, indent=1)


def read(folder: Path) -> dict[str, Any]:
    def unseal(content: Any) -> tuple[Any, dict[str, Any]]:
        if content.pop("seal") != BOX.header_checksum(content):
            raise ValueError("the seal is broken")
        return content["format"], content

    return BOX.read_header(folder, unseal, lambda values, version: values)


def test_a_header_is_read_as_it_was_written_however_it_is_spaced(tmp_path: Path) -> None:
    write(tmp_path, {"format": 2, "items": ["é"]})
    assert read(tmp_path) == {"format": 2, "items": ["é"]}
    content = json.loads((tmp_path / "box.json").read_text())
    (tmp_path / "box.json").write_text(json.dumps(dict(reversed(content.items()))))
    assert read(tmp_path) == {"format": 2, "items": ["é"]}


def test_a_header_that_cannot_be_used_is_an_error_of_the_format(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no box at {tmp_path} \(no box.json in it\); make a box"):
        read(tmp_path)
    write(tmp_path, {"format": 3})
    with pytest.raises(
        WrongError, match="is a box of format 3, and this version reads 1 and 2; make another box"
    ) as old:
        read(tmp_path)
    assert old.type is WrongError
    text = (tmp_path / "box.json").read_text()
    (tmp_path / "box.json").write_text(text.replace("3", "1", 1))
    with pytest.raises(DamagedError, match=r"not the header of a box \(the seal is broken\); copy the box again"):
        read(tmp_path)


def test_a_listed_file_is_read_if_it_is_the_one_that_was_written(tmp_path: Path, item: Item) -> None:
    files = MappedFiles(tmp_path, BOX)
    content = (tmp_path / item.name).read_bytes()
    assert BOX.read_file(tmp_path, item) == files.checked(item).tobytes() == content
    (tmp_path / item.name).write_bytes(b"heat" + content[4:])
    for call in (lambda: BOX.read_file(tmp_path, item), lambda: MappedFiles(tmp_path, BOX).checked(item)):
        with pytest.raises(
            DamagedError, match=f"item-0 is damaged: its CRC-32 is [0-9a-f]{{8}}, not {item.checksum:08x}"
        ):
            call()
    unknown = Item(item.name, item.bytes, None)
    assert BOX.read_file(tmp_path, unknown)[:4] == b"heat"


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (lambda path: path.unlink(), MissingError, "is missing; copy the box again"),
        (lambda path: os.truncate(path, 5), DamagedError, "is damaged: expected it to have 28 bytes, found 5"),
        (lambda path: (path.unlink(), path.mkdir()), DamagedError, "is damaged: it is a link, a folder"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), DamagedError, "is damaged: it is a link"),
        (lambda path: (path.unlink(), os.mkfifo(path)), DamagedError, "is damaged: it is a link, a folder, a pipe"),
    ],
)
def test_a_file_that_is_not_there_or_none_is_refused(
    tmp_path: Path, item: Item, spoil: Any, error: type[ValueError], reason: str
) -> None:
    spoil(tmp_path / item.name)
    for call in (lambda: BOX.read_file(tmp_path, item), lambda: MappedFiles(tmp_path, BOX).open([item])):
        with pytest.raises(error, match=reason) as caught:
            call()
        assert caught.type is error


def test_a_mapped_file_that_was_cut_before_its_first_use_is_not_read(tmp_path: Path, item: Item) -> None:
    files = MappedFiles(tmp_path, BOX)
    files.open([item])
    os.truncate(tmp_path / item.name, 0)
    with pytest.raises(DamagedError, match="expected it to have 28 bytes, found 0"):
        files.content(item)


def test_a_mapped_file_outlives_its_name_and_holds_no_descriptor(tmp_path: Path, item: Item) -> None:
    before = len(os.listdir("/dev/fd"))
    files = MappedFiles(tmp_path, BOX)
    files.open([item])
    assert len(os.listdir("/dev/fd")) == before
    (tmp_path / item.name).unlink()
    rows = as_rows(files.checked(item), 4, 3, 2, torch.float32)
    assert torch.equal(rows, torch.from_numpy(ROWS))
    with pytest.raises(MissingError):
        pickle.loads(pickle.dumps(files)).content(item)


def test_writing_to_rows_changes_no_file(tmp_path: Path, item: Item) -> None:
    rows = as_rows(MappedFiles(tmp_path, BOX).content(item), 4, 3, 2, torch.float32)
    read_ahead(rows)
    read_ahead(rows[3:])
    rows.zero_()
    assert (tmp_path / item.name).read_bytes()[4:] == ROWS.tobytes()


class Writer(FolderWriter):
    committed = 0

    def commit(self) -> None:
        self.committed += 1


def test_one_writer_at_a_time_commits_at_its_end(tmp_path: Path) -> None:
    with Writer(tmp_path, BOX) as writer:
        with pytest.raises(WrongError, match=f"another process is writing to {tmp_path}; wait for it to end"):
            Writer(tmp_path, BOX)
        assert writer.committed == 0
    assert writer.committed == 1
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, BOX) as writer:
        raise KeyboardInterrupt
    assert writer.committed == 1
    Writer(tmp_path, BOX).close()


def test_files_that_no_header_lists_are_removed(tmp_path: Path, item: Item) -> None:
    for name in ("item-1", ".item-2.77.partial", "mine.txt"):
        (tmp_path / name).touch()
    BOX.remove_unlisted(tmp_path, {item.name})
    assert {path.name for path in tmp_path.iterdir()} == {"item-0", "mine.txt"}
