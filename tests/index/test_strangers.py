"""An index that a stranger made, checksums and all, is refused in one line or answers."""

import json
import os
import random
import re
import struct
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from scav_model.index import (
    DamagedIndexError,
    Encoded,
    IndexWriter,
    SearchIndex,
    SearchIndexError,
    queries_by_id,
    search,
)
from tests.index.survival import answers, make_damageable
from tests.index.worlds import clip, header

pytestmark = pytest.mark.slow

ODD = [None, True, -1, 0, 1.5, 10**12, 1 << 62, 10**40, float("nan"), float("inf"), "", "x", [], {}, [1], {"a": 1}]
FIELDS = [
    "format checkpoint model_sha256 metric options per_step dim dtype sides features version next_shard shards",
    "deleted deleted_clips directions common_steps",
]


@contextmanager
def refused_in_one_line(kinds=(SearchIndexError, FileNotFoundError)):
    """Lets nothing through, and errors of these kinds where they are short."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if "\n" in text or len(text) > 1200:
            raise AssertionError(f"not one short line: {text}") from error


@pytest.fixture
def folder(tmp_path):
    make_damageable(tmp_path / "index")
    return tmp_path / "index"


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def write_header(folder, values):
    crc32 = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    (folder / "index.json").write_text(json.dumps({"crc32": crc32, "index": values}))


def rewrite(folder, change):
    """Change the header as a stranger may who knows its checksum."""
    values = json.loads((folder / "index.json").read_text())["index"]
    change(values)
    write_header(folder, values)


def use(folder):
    index = SearchIndex.open(folder)
    answers(index)
    return [problem for found in index.problems() for problem in found]


def test_every_flipped_bit_is_an_error_or_changes_nothing(folder):
    right = answers(SearchIndex.open(folder))
    generator = random.Random(1)
    names = sorted(path.name for path in folder.iterdir() if path.name != ".lock")
    assert len(names) == 18
    for name in names:
        content = (folder / name).read_bytes()
        for bit in generator.sample(range(8 * len(content)), 12):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(changed)
            with refused_in_one_line():
                index = SearchIndex.open(folder)
                assert answers(index) == right, (name, bit)
                assert any(name in problem for found in index.problems() for problem in found), (name, bit)
        (folder / name).write_bytes(content)
    assert use(folder) == []


@pytest.mark.parametrize("field", " ".join(FIELDS).split())
def test_no_value_of_a_field_crashes(folder, field):
    kept = (folder / "index.json").read_bytes()
    for value in [*ODD, deep(20), deep(60), deep(900)]:
        rewrite(folder, lambda values, value=value: values.update({field: value}))
        with refused_in_one_line():
            use(folder)
        with refused_in_one_line():
            IndexWriter(folder).close()
        (folder / "index.json").write_bytes(kept)
    rewrite(folder, lambda values: values.pop(field))
    with refused_in_one_line():
        use(folder)


@pytest.mark.parametrize("field", ["clips", "sequences", "begins", "columns", "means", "vectors", "bounds"])
def test_no_value_of_a_shard_crashes(folder, field):
    kept = (folder / "index.json").read_bytes()
    for value in [*ODD, {"video": 8, "audio": -8}, {"video": 1 << 50, "audio": 8}, {"video": {}, "audio": {}}]:
        rewrite(folder, lambda values, value=value: values["shards"][1].update({field: value}))
        with refused_in_one_line():
            assert use(folder) == []
            assert (field, value) in [("bounds", None), ("vectors", None)]
        (folder / "index.json").write_bytes(kept)


@pytest.mark.parametrize("field", ["name", "bytes", "crc32"])
@pytest.mark.parametrize("role", ["sequences", "columns", "bounds", "video", "directions", "deleted"])
def test_no_value_of_a_file_crashes(folder, role, field):
    kept = (folder / "index.json").read_bytes()
    names = ["../index.json", "/etc/passwd", "index.json", ".lock", "shard-0/../x", "shard-000000.clips.safetensors\n"]
    for value in [*ODD, *(names if field == "name" else [])]:

        def change(values, value=value):
            shard = values["shards"][0]
            file = values[role] if role in values else shard["means"][role] if role == "video" else shard[role]
            file[field] = value

        rewrite(folder, change)
        with refused_in_one_line():
            assert use(folder) != []
        (folder / "index.json").write_bytes(kept)


@pytest.mark.parametrize("side", ["dim", "rate_hz", "encoder", "model"])
def test_no_value_of_a_side_crashes(folder, side):
    kept = (folder / "index.json").read_bytes()
    for value in ODD:
        rewrite(folder, lambda values, value=value: values["features"]["video"].update({side: value}))
        with refused_in_one_line():
            use(folder)
        (folder / "index.json").write_bytes(kept)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{}", "utf-8"),
        (b"[]", "expected the file to be an object"),
        (b"{}", "has no 'index'"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b'{"index": {}, "index": {}}', "the key 'index' comes twice"),
        (b'{"index": {"a": NaN}}', "expected finite numbers, got NaN"),
        (b'{"index": {"a": ' + b"9" * 5000 + b"}}", "expected integers of at most"),
        (b'{"index": {}, "crc32": "0"}', "expected 'crc32'"),
    ],
)
def test_a_header_that_is_none(folder, content, reason):
    (folder / "index.json").write_bytes(content)
    with pytest.raises(DamagedIndexError, match=re.escape(reason)) as caught:
        SearchIndex.open(folder)
    assert "\n" not in str(caught.value)


def replace(folder, role, content, also=None):
    """Put other content into a file of the first shard, or beside the shards, with its checksum."""
    values = json.loads((folder / "index.json").read_text())["index"]
    shard = values["shards"][0]
    file = values[role] if role in values else shard["means"][role] if role == "video" else shard[role]
    (folder / file["name"]).write_bytes(content)
    file.update(bytes=len(content), crc32=zlib.crc32(content))
    if also is not None:
        also(values)
    write_header(folder, values)


def tensors(folder, role):
    values = json.loads((folder / "index.json").read_text())["index"]
    file = values[role] if role in values else values["shards"][0][role]
    return load((folder / file["name"]).read_bytes())


def text(value):
    return torch.frombuffer(bytearray(value), dtype=torch.uint8)


def set_item(name, place, value):
    return lambda found: found[name].view(-1).__setitem__(place, value)


CHANGES = {
    "columns": [
        lambda found: found.pop("ids"),
        lambda found: found.update(more=torch.zeros(1)),
        lambda found: found.update(ids=text(b"a\nb")),
        lambda found: found.update(ids=text(b"\xff" * 40)),
        lambda found: found.update(ids=text(b"\n" * 13)),
        lambda found: found.update(ids=text(b"\x1b[2J\n" * 13 + b"x")),
        lambda found: found.update(media=text(b"{}")),
        lambda found: found.update(media=text(b"[" * 3000 + b"\n{}" * 13)),
        lambda found: found.update(media=text(b"\n".join([b"[]"] * 14))),
        lambda found: found.update(media=text(b"\n".join([b'{"path": 3}'] * 14))),
        lambda found: found.update(media=text(b"\n".join([b'{"path": "a\\u0000b"}'] * 14))),
        lambda found: found.update(media=text(b"\n".join([b'{"start": "x"}'] * 14))),
        lambda found: found.update(media=text(b"\n".join([b'{"seconds": -1}'] * 14))),
        lambda found: found.update(media=text(b"\n".join([b'{"label": [1]}'] * 14))),
        lambda found: found.update(video_lengths=found["video_lengths"].float()),
        lambda found: found.update(video_lengths=found["video_lengths"][None]),
        lambda found: found.update(video_lengths=found["video_lengths"][:-1]),
        set_item("video_lengths", 0, -1),
        set_item("video_lengths", 0, 0),
        set_item("video_lengths", 0, 1 << 62),
        set_item("audio_lengths", 3, 11),
    ],
    "bounds": [
        lambda found: found.pop("video_norms"),
        lambda found: found.update(audio_means=found["audio_means"][:, :-1].contiguous()),
        lambda found: found.update(audio_means=found["audio_means"].double()),
        lambda found: found.update(audio_targets=found["audio_targets"][:-1]),
        set_item("audio_targets", 0, 1 << 62),
        set_item("audio_targets", 0, -5),
        set_item("audio_norms", 0, float("nan")),
        set_item("audio_means", 0, float("inf")),
    ],
    "directions": [
        lambda found: found.pop("video"),
        lambda found: found.update(video=torch.zeros(3), audio=torch.zeros(3)),
        lambda found: found.update(video=torch.zeros(3, 9), audio=torch.zeros(3, 9)),
        lambda found: found.update(video=found["video"].double(), audio=found["audio"].double()),
    ],
}


@pytest.mark.parametrize(
    ("role", "number"), [(role, number) for role, changes in CHANGES.items() for number in range(len(changes))]
)
def test_tensors_of_another_kind_are_refused(folder, role, number):
    found = tensors(folder, role)
    CHANGES[role][number](found)
    replace(folder, role, save(found))
    with refused_in_one_line():
        problems = use(folder)
        # What is only wrong, and not malformed, cannot be told from what its writer meant.
        assert problems != [] or role == "bounds"
    with refused_in_one_line(), IndexWriter(folder) as writer:
        writer.compact()


@pytest.mark.parametrize("role", ["columns", "bounds", "directions"])
def test_safetensors_with_another_head_are_refused(folder, role):
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    heads = [
        b"",
        b"[" * 3000,
        b"{}",
        b"\xff" * 9,
        json.dumps({"ids": {"dtype": "I64", "shape": [1 << 60], "data_offsets": [0, 8]}}).encode(),
        json.dumps({"ids": {"dtype": "I64", "shape": [-1], "data_offsets": [-8, 0]}}).encode(),
        json.dumps({"ids": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}).encode(),
        json.dumps({"ids": {"dtype": "I64", "shape": [0], "data_offsets": [0, 0]}}).encode(),
    ]
    for head in heads:
        replace(folder, role, struct.pack("<Q", len(head)) + head + bytes(8))
        with refused_in_one_line():
            assert use(folder) != []
        replace(folder, role, struct.pack("<Q", 1 << 62) + head + bytes(8))
        with refused_in_one_line():
            assert use(folder) != []
        for name, content in kept.items():
            (folder / name).write_bytes(content)


def test_means_of_another_size_or_of_no_number_are_refused(folder):
    right = (folder / "shard-000000.video.means.bin").read_bytes()
    assert len(right) == 4 * 14 * 8
    for content in (right[:-1], right + b"x", right[: 4 * 13 * 8], b"x"):
        replace(folder, "video", content)
        with pytest.raises(DamagedIndexError, match=f"14 means of 8 numbers, 448 bytes, got {len(content)} bytes"):
            SearchIndex.open(folder)
    replace(folder, "video", np.full(14 * 8, np.nan, dtype=np.float32).tobytes())
    index = SearchIndex.open(folder)
    with pytest.raises(SearchIndexError, match="means of some videos are NaN or infinite"):
        search(index, queries_by_id(index, ["clip-3"], "audio"), 30, mode="mean")


@pytest.mark.parametrize("numbers", [[-1, 3], [3, 40], [3, 3], [5, 3], [3], [1 << 62, 3]])
def test_deleted_numbers_of_no_clip_are_refused(folder, numbers):
    replace(folder, "deleted", np.array(numbers, dtype=np.int64).tobytes())
    with pytest.raises(DamagedIndexError, match=r"expected 2 numbers of clips below 40, ascending"):
        SearchIndex.open(folder)


@pytest.mark.parametrize("claimed", [10**6, 10**12, 1 << 60])
def test_what_a_header_claims_is_checked_before_there_is_room_made_for_it(folder, claimed):
    kept = (folder / "index.json").read_bytes()
    for change in (
        lambda values: values["shards"][0].update(clips=claimed),
        lambda values: values["shards"][0]["columns"].update(bytes=claimed),
        lambda values: values.update(dim=claimed),
        lambda values: values.update(deleted_clips=claimed),
    ):
        rewrite(folder, change)
        with pytest.raises(DamagedIndexError):
            SearchIndex.open(folder)
        (folder / "index.json").write_bytes(kept)


def test_files_of_a_terabyte_of_zeros_are_not_read(folder):
    names = sorted(path.name for path in folder.iterdir() if "000001" not in path.name and path.name != ".lock")
    for name in names:
        kept = (folder / name).read_bytes()
        os.truncate(folder / name, 10**12)
        with pytest.raises(DamagedIndexError, match=f"{name} is damaged"):
            SearchIndex.open(folder)
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "loop"])
def test_files_that_are_none_are_refused(folder, tmp_path, kind):
    names = sorted(path.name for path in folder.iterdir() if "000001" not in path.name)
    outside = tmp_path / "outside"
    for name in names:
        before = (folder / name).read_bytes()
        (folder / name).rename(outside)
        if kind == "link":
            (folder / name).symlink_to(outside)
        elif kind == "loop":
            (folder / name).symlink_to(folder / name)
        elif kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).mkdir()
        if name not in ("index.json", ".lock"):
            with pytest.raises(DamagedIndexError, match=rf"{name} is damaged: it is a link, a folder, a pipe"):
                SearchIndex.open(folder)
        with refused_in_one_line():
            use(folder)
            assert name == ".lock"
        with refused_in_one_line((OSError, SearchIndexError)), IndexWriter(folder):
            pytest.fail(f"a writer took {name}")
        assert outside.read_bytes() == before
        (folder / name).rmdir() if kind == "folder" else (folder / name).unlink()
        outside.rename(folder / name)


@pytest.mark.parametrize(
    "media", [{"path": 3}, {"path": ""}, {"path": "a\0"}, {"start": -1}, {"seconds": float("nan")}, {"path": "\udcff"}]
)
def test_no_writer_takes_media_that_no_reader_would(folder, media):
    with IndexWriter(folder) as writer, pytest.raises(SearchIndexError, match="media of 'clip-99'"):
        writer.add(Encoded("clip-99", clip(99).steps, media))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("somebody's own")
    with pytest.raises(SearchIndexError, match=r"is not empty, it holds mine\.txt"):
        IndexWriter.create(tmp_path, header())
    assert [path.name for path in Path(tmp_path).iterdir()] == ["mine.txt"]
