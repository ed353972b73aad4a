"""A store that was damaged, or made by a stranger, is refused in one line or is what it was."""

import hashlib
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load, save
from store_clips import clips, contents, header

from scav_model.data import FeatureStore
from scav_model.data.store import Entry, Skipped, StoreError, StoreWriter
from scav_model.data.store.header import StoreHeader
from scav_model.data.store.reader import read_skipped
from scav_model.data.store.verify import verify


@contextmanager
def refused_in_one_line(kinds: tuple[type[Exception], ...] = (StoreError,)) -> Iterator[None]:
    """Lets nothing through, and errors of these kinds where they are short."""
    try:
        yield
    except kinds as error:
        text = str(error)
        if "\n" in text or len(text) > 1000:
            raise AssertionError(f"not one short line: {text}") from error


def problems(folder: Path) -> list[str]:
    """Return what verify finds, except lengths, which are made up here."""
    return [problem for problem in verify(folder).problems if "lengths that do not fit" not in problem]


def make(folder: Path) -> Path:
    """A store of two shards with everything that a store can have in it."""
    with StoreWriter(folder, header(), shard_bytes=300) as writer:
        for number, (entry, video, audio) in enumerate(clips()):
            path = folder.parent / f"{entry.id}.mp4" if number else None
            writer.add(Entry(entry.id, entry.split, entry.seconds, entry.label, path, number / 4), video, audio)
        writer.skip(Skipped("bad", "/media/bad.mp4", "no audio stream"))
        writer.finish()
    return folder


def lists(folder: Path) -> list[Any]:
    """All that a store says without its features."""
    store = FeatureStore.open(folder)
    tensors = (store.video_lengths, store.audio_lengths, store.seconds, store.starts)
    about = (store.header.video, store.header.audio, store.header.dtype)
    listed = [store.ids, store.labels, store.splits, store.paths, store.shard_numbers, *about]
    return [*listed, *(tensor.tolist() for tensor in tensors), read_skipped(folder)]


def features(folder: Path) -> list[list[Any]]:
    store = FeatureStore.open(folder)
    return [[side.tolist() for side in store.clip(index)] for index in range(len(store))]


def test_every_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "store")
    right, right_features = lists(folder), features(folder)
    generator = random.Random(0)
    names = sorted(name for name in contents(folder) if name != ".lock")
    assert len(names) == 6
    counted = {"refused": 0, "named by verify": 0}
    for name in names:
        content = (folder / name).read_bytes()
        for bit in generator.sample(range(8 * len(content)), 120):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(changed)
            found = "refused"
            with refused_in_one_line():
                assert lists(folder) == right, (name, bit)
                same = features(folder) == right_features
                named = any(name in problem for problem in problems(folder))
                # The numbers in a shard are checked by verify alone.
                assert named, (name, bit)
                assert same or name.startswith("shard-"), (name, bit)
                found = "named by verify"
            counted[found] += 1
        (folder / name).write_bytes(content)
    assert problems(folder) == []
    assert min(counted.values()) > 100


def test_verify_names_each_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "store")
    (folder / "index.safetensors").unlink()
    assert problems(folder) == ["index.safetensors is missing"]
    (folder / "skipped.jsonl").write_bytes((folder / "skipped.jsonl").read_bytes().replace(b"audio", b"video"))
    assert "skipped.jsonl was changed: its SHA-256 is" in problems(folder)[0]
    with pytest.raises(StoreError, match=r"skipped\.jsonl was changed"):
        read_skipped(folder)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the header as a stranger may who knows its checksum."""
    values = json.loads((folder / "header.json").read_text())
    values.pop("sha256")
    change(values)
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (folder / "header.json").write_text(json.dumps({"sha256": digest, **values}))


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ODD = [None, True, -1, 0, 1.5, 10**12, 1 << 62, 10**40, float("nan"), float("inf"), "", "x", [], {}, [1], {"a": 1}]


@pytest.mark.parametrize("field", ["format", *vars(header())])
def test_no_value_of_a_field_crashes(tmp_path: Path, field: str) -> None:
    folder = make(tmp_path / "store")
    right, kept = lists(folder), (folder / "header.json").read_bytes()
    for value in [*ODD, deep(20), deep(60), deep(900)]:
        rewrite(folder, lambda values, value=value: values.update({field: value}))
        outcome(folder, right)
    rewrite(folder, lambda values: values.pop(field))
    with pytest.raises(StoreError):
        FeatureStore.open(folder)
    (folder / "header.json").write_bytes(kept)
    assert lists(folder) == right


def outcome(folder: Path, right: list[Any]) -> None:
    """An error of one line, or the clips that are there."""
    with refused_in_one_line():
        assert lists(folder)[0] == right[0]
        features(folder)
        verify(folder)
    with refused_in_one_line():
        StoreWriter(folder, header()).__exit__(None, None, None)


@pytest.mark.parametrize("side", ["dim", "rate_hz", "encoder", "model", "patches_per_step"])
def test_no_value_of_a_side_crashes(tmp_path: Path, side: str) -> None:
    folder = make(tmp_path / "store")
    right = lists(folder)
    for value in ODD:
        rewrite(folder, lambda values, value=value: values["video"].update({side: value}))
        outcome(folder, right)


@pytest.mark.parametrize("field", ["name", "clips", "bytes", "sha256"])
def test_no_value_of_a_shard_crashes(tmp_path: Path, field: str) -> None:
    folder = make(tmp_path / "store")
    right = lists(folder)
    names = ["../store/shard-00000.safetensors", str(folder / "shard-00000.safetensors"), "shard-00001.safetensors"]
    for value in [*ODD, *(names if field == "name" else [])]:
        rewrite(folder, lambda values, value=value: values["shards"][0].update({field: value}))
        if field != "sha256":
            with pytest.raises(StoreError):
                FeatureStore.open(folder).clip(0)
        outcome(folder, right)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{}", "utf-8"),
        (b"[]", "expected the header to be an object"),
        (b"[" * 100_000, "nested more than 32 deep"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "nested more than 32 deep"),
        (b'{"format": 3, "format": 3}', "the key 'format' comes twice"),
        (b'{"format": NaN}', "expected finite numbers, got NaN"),
        (b'{"format": 1e999}', "expected finite numbers"),
        (b'{"format": ' + b"9" * 5000 + b"}", "expected integers of at most"),
        (b'{"format": 3}', "SHA-256 does not fit"),
        (b'{"format": 2}', "has no 'dtype'"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, content: bytes, reason: str) -> None:
    folder = make(tmp_path / "store")
    (folder / "header.json").write_bytes(content)
    with pytest.raises(StoreError, match=re.escape(reason)) as caught:
        FeatureStore.open(folder)
    assert "\n" not in str(caught.value)


def of_manifest(folder: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the manifest and all that is known of it."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_bytes().splitlines()]
    change(lines)
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (folder / "manifest.jsonl").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    about = {"manifest_bytes": len(content), "manifest_sha256": digest, "index_sha256": None}
    rewrite(folder, lambda values: values.update(about))


@pytest.mark.parametrize(
    "field", ["id", "shard", "video_length", "audio_length", "seconds", "label", "split", "path", "start"]
)
def test_no_value_of_a_line_crashes(tmp_path: Path, field: str) -> None:
    folder = make(tmp_path / "store")
    kept = (folder / "manifest.jsonl").read_bytes()
    for value in [*ODD, "a\nb", "a\0b", 3, 10**9, deep(900)]:
        (folder / "manifest.jsonl").write_bytes(kept)
        of_manifest(folder, lambda lines, value=value: lines[1].update({field: value}))
        with refused_in_one_line():
            verify(folder)
            features(folder)
    (folder / "manifest.jsonl").write_bytes(kept)
    of_manifest(folder, lambda lines: lines.append(lines[0]))
    with pytest.raises(StoreError, match="names 6 clips and the shards hold 5"):
        FeatureStore.open(folder)


@pytest.mark.parametrize("claimed", [10**6, 10**12, 1 << 60])
def test_what_a_header_claims_is_checked_before_there_is_room_made_for_it(tmp_path: Path, claimed: int) -> None:
    folder = make(tmp_path / "store")
    for change in (
        lambda values: values["shards"][0].update(clips=claimed),
        lambda values: values.update(manifest_bytes=claimed),
        lambda values: values["video"].update(dim=claimed),
    ):
        kept = (folder / "header.json").read_bytes()
        rewrite(folder, change)
        with pytest.raises(StoreError):
            FeatureStore.open(folder)
        (folder / "header.json").write_bytes(kept)
    rewrite(folder, lambda values: values.update(skipped_bytes=claimed))
    with pytest.raises(StoreError, match=f"to have {claimed} bytes|expected 'skipped_bytes' to be at most"):
        read_skipped(folder)


def replace_index(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    content = (folder / "index.safetensors").read_bytes()
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    arrays = {name: array.copy() for name, array in load(content).items()}
    names = json.loads(head["__metadata__"]["columns"])
    change(arrays, names)
    index = save(arrays, metadata={"columns": json.dumps(names)})
    (folder / "index.safetensors").write_bytes(index)
    rewrite(folder, lambda values: values.update(index_sha256=hashlib.sha256(index).hexdigest()))


@pytest.mark.parametrize("name", ["header.json", "index.safetensors", "manifest.jsonl", "shard-00000.safetensors"])
def test_files_of_a_terabyte_of_zeros_are_not_read(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "store")
    right = lists(folder)
    if name == "manifest.jsonl":
        rewrite(folder, lambda values: values.update(manifest_bytes=10**12))
    os.truncate(folder / name, 10**12)
    with refused_in_one_line():
        assert lists(folder) == right
        features(folder)
        assert name == "index.safetensors"


def negative(name: str) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda arrays, names: arrays[name].__setitem__(2, -7)


def huge(name: str) -> Callable[[dict[str, Any], dict[str, Any]], object]:
    return lambda arrays, names: arrays[name].__setitem__(2, 1 << 62)


@pytest.mark.parametrize(
    "name", ["shard", "video_row", "audio_row", "video_lengths", "audio_lengths", "split", "label"]
)
def test_an_index_with_other_numbers_is_refused(tmp_path: Path, name: str) -> None:
    for change in (negative(name), huge(name)):
        folder = make(tmp_path / name)
        replace_index(folder, change)
        with pytest.raises(StoreError):
            FeatureStore.open(folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, names: arrays.pop("ids"),
        lambda arrays, names: arrays.update(ids=arrays["ids"][:-9]),
        lambda arrays, names: arrays.update(seconds=arrays["seconds"].astype("f4")),
        lambda arrays, names: arrays.update(seconds=arrays["seconds"][None]),
        lambda arrays, names: arrays.update(other=arrays["seconds"]),
        lambda arrays, names: arrays["seconds"].__setitem__(0, float("nan")),
        lambda arrays, names: arrays["start"].__setitem__(0, float("inf")),
        lambda arrays, names: arrays["ids"].__setitem__(0, 255),
        lambda arrays, names: arrays["ids"].__setitem__(0, 7),
        lambda arrays, names: names.update(splits=3),
        lambda arrays, names: names.update(splits=[["train"]]),
        lambda arrays, names: names.update(labels=[]),
        lambda arrays, names: names.pop("manifest"),
    ],
)
def test_an_index_of_other_shapes_is_refused_or_made_anew(tmp_path: Path, change: Any) -> None:
    folder = make(tmp_path / "store")
    right = lists(folder)
    replace_index(folder, change)
    with refused_in_one_line():
        assert lists(folder) == right


def test_an_index_that_says_other_than_the_manifest_is_named(tmp_path: Path) -> None:
    folder = make(tmp_path / "store")
    replace_index(folder, lambda arrays, names: arrays["seconds"].__setitem__(0, 9.0))
    assert "index.safetensors names other clips than manifest.jsonl" in problems(folder)


def safetensors(head: Any, data: bytes) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def shard_heads() -> list[Any]:
    def side(dtype: Any, shape: Any, offsets: Any) -> dict[str, Any]:
        return {"dtype": dtype, "shape": shape, "data_offsets": offsets}

    video, audio = side("F32", [4, 4], [0, 64]), side("F32", [6, 6], [64, 208])
    return [
        {"video": video},
        {"video": video, "audio": side("F32", [6, 6], [-144, 0])},
        {"video": video, "audio": side("F32", [6, 6], [0, 144])},
        {"video": video, "audio": side("F32", [6, 6], [64, 10**15])},
        {"video": video, "audio": side("F32", [6, 6], [208, 64])},
        {"video": video, "audio": side("F16", [6, 6], [64, 208])},
        {"video": video, "audio": side("F32", [0, 6], [64, 208])},
        {"video": video, "audio": side("F32", [], [64, 208])},
        {"video": video, "audio": side("F32", [6, 6], [64])},
        {"video": video, "audio": side("F32", [6, 6], ["a", "b"])},
        {"video": video, "audio": side("F32", None, None)},
        {"video": video, "audio": side("F32", [6, 6], [float("inf"), 1])},
        {"video": video, "audio": audio, "more": side("F32", [], [208, 208])},
        {"video": video, "audio": 3},
        [video, audio],
        b"\xff" * 30,
        b"[" * 5000,
        deep(900),
    ]


@pytest.mark.parametrize("head", shard_heads())
def test_a_shard_with_another_head_is_refused(tmp_path: Path, head: Any) -> None:
    folder = make(tmp_path / "store")
    content = safetensors(head, bytes(208))
    name = "shard-00000.safetensors"
    (folder / name).write_bytes(content)
    rewrite(folder, lambda values: values["shards"][0].update(bytes=len(content)))
    with pytest.raises(StoreError, match=r"damaged|bytes, and its clips need"):
        FeatureStore.open(folder).clip(0)
    (folder / name).write_bytes(struct.pack("<Q", 1 << 62) + content[8:])
    with pytest.raises(StoreError):
        FeatureStore.open(folder).clip(0)


@pytest.mark.parametrize(
    "name", ["header.json", "manifest.jsonl", "skipped.jsonl", "index.safetensors", "shard-00000.safetensors", ".lock"]
)
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "loop"])
def test_files_that_are_none_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    folder = make(tmp_path / "store")
    right, outside = lists(folder), tmp_path / "outside"
    (folder / name).rename(outside)
    before = outside.read_bytes()
    if kind == "link":
        (folder / name).symlink_to(outside)
    elif kind == "loop":
        (folder / name).symlink_to(folder / name)
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with refused_in_one_line():
        assert lists(folder) == right
        features(folder)
        assert name in ("index.safetensors", ".lock")
        assert name == ".lock" or name in problems(folder)[0]
    # A writer changes nothing outside the folder either.
    with refused_in_one_line((OSError, StoreError)), StoreWriter(folder, header()) as writer:
        writer.add(Entry("one more", "train", 1.0), torch.zeros(1, 4), torch.zeros(1, 6))
        writer.finish()
    assert outside.read_bytes() == before


def test_a_store_without_checksums_opens_and_gets_them(tmp_path: Path) -> None:
    folder = make(tmp_path / "store")
    right = lists(folder)

    def older(values: dict[str, Any]) -> None:
        values["format"] = 2
        for name in ("manifest_sha256", "skipped_sha256", "index_sha256"):
            del values[name]

    rewrite(folder, older)
    values = json.loads((folder / "header.json").read_text())
    del values["sha256"]
    (folder / "header.json").write_text(json.dumps(values))
    # Nothing vouches for its index.
    (folder / "index.safetensors").write_bytes(b"other")
    assert lists(folder) == right
    assert "no checksums of its lists" in verify(folder).warnings[0]
    with StoreWriter(folder, header()) as writer:
        writer.finish()
    assert lists(folder) == right
    assert StoreHeader.read(folder).index_sha256 is not None
    assert problems(folder) == []
    assert not any("no checksums" in warning for warning in verify(folder).warnings)


def test_a_reader_keeps_what_it_opened_while_a_writer_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    with StoreWriter(folder, header(), shard_bytes=1) as writer:
        for clip in clips()[:3]:
            writer.add(*clip)
        opened = FeatureStore.open(folder)
        writer.finish()
    for round in range(2):
        with StoreWriter(folder, header(), shard_bytes=1) as writer:
            writer.add(clips()[3 + round][0], *clips()[3 + round][1:])
            assert FeatureStore.open(folder).ids[:3] == opened.ids
            writer.finish()
    assert opened.ids == ["clip-0", "clip-1", "clip-2"]
    assert all(torch.equal(opened.clip(index)[0], clips()[index][1]) for index in range(3))
    assert len(FeatureStore.open(folder)) == 5


def test_what_killed_writers_left_is_removed_by_the_next(tmp_path: Path) -> None:
    folder = make(tmp_path / "store")
    before = contents(folder)
    for name in (".header.json.1.partial", ".index.safetensors.22.partial", "shard-00007.safetensors"):
        (folder / name).write_bytes(b"half")
    with (folder / "manifest.jsonl").open("ab") as file:
        file.write(b'{"id": "cli')
    StoreWriter(folder, header()).__exit__(None, None, None)
    assert contents(folder) == before


def test_media_move_with_the_store(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "b.mp4"
    work = tmp_path / "work"
    work.mkdir()
    with StoreWriter(work / "store", header()) as writer:
        sides = torch.ones(1, 4), torch.ones(1, 6)
        writer.add(Entry("a", "train", 1.0, None, work / "media" / "a\n.mp4", 2.5), *sides)
        writer.add(Entry("b", "train", 1.0, None, elsewhere), *sides)
        writer.add(Entry("c", "train", 1.0), *sides)
        writer.add(Entry("d", "train", 1.0, None, Path(os.fsdecode(b"/media/\xff.mp4"))), *sides)
        writer.skip(Skipped("e", os.fsdecode(b"/media/\xff.mp4"), "no audio stream"))
        writer.finish()
    work.rename(tmp_path / "moved")
    for _ in range(2):
        store = FeatureStore.open(tmp_path / "moved" / "store")
        assert store.paths == [tmp_path / "moved" / "media" / "a\n.mp4", elsewhere, None, None]
        assert store.starts.tolist() == [2.5, 0.0, 0.0, 0.0]
        assert store.subset([1]).paths == [elsewhere]
        # Once more without the index.
        (store.folder / "index.safetensors").unlink(missing_ok=True)
