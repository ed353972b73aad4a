"""The feature store: what is written is read, whatever happens in between."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch
from store_clips import LENGTHS, clips, contents, fill, header

from scav_model.data import FeatureSet, FeatureStore, collate, open_features
from scav_model.data.store import Entry, Skipped, StoreError, StoreWriter
from scav_model.data.store.columns import Columns


@pytest.mark.parametrize("shard_bytes", [1, 300, 1 << 20])
def test_what_was_written_is_read(tmp_path: Path, shard_bytes: int) -> None:
    store = fill(tmp_path / "store", shard_bytes)
    assert store.ids == [f"clip-{index}" for index in range(5)]
    assert store.labels == ["label 0", None, "label 0", "label 1", "label 0"]
    assert store.splits == ["train", "train", "test", "train", "train"]
    assert store.video_lengths.tolist() == [n for n, _ in LENGTHS]
    assert store.audio_lengths.tolist() == [m for _, m in LENGTHS]
    assert (store.video_dim, store.audio_dim) == (4, 6)
    assert (store.video_rate_hz, store.audio_rate_hz) == (5.0, 6.25)
    assert store.seconds.tolist() == [0.6, 0.2, 1.0, 0.4, 0.8]
    for index, (_, video, audio) in enumerate(clips()):
        found = store.clip(index)
        assert torch.equal(found[0], video)
        assert torch.equal(found[1], audio)
        assert found[0].dtype == found[1].dtype == torch.float32
    assert len(store.header.shards) == {1: 5, 300: 2, 1 << 20: 1}[shard_bytes]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_the_room(tmp_path: Path, dtype: str) -> None:
    whole, half = fill(tmp_path / "whole", 1 << 20), fill(tmp_path / "half", 1 << 20, dtype=dtype)
    for index, (_, video, _) in enumerate(clips()):
        found = half.clip(index)[0]
        assert found.dtype == torch.float32
        assert torch.equal(found, video.to(getattr(torch, dtype)).float())
    bytes_of = [sum(n * 4 + m * 6 for n, m in LENGTHS) * width for width in (4, 2)]
    assert whole.header.shards[0].bytes - half.header.shards[0].bytes == pytest.approx(
        bytes_of[0] - bytes_of[1], abs=16
    )


def test_the_manifest_says_what_each_clip_is(tmp_path: Path) -> None:
    fill(tmp_path / "store", 1 << 20)
    first, second, *_ = [json.loads(line) for line in (tmp_path / "store" / "manifest.jsonl").read_text().splitlines()]
    assert first == {
        "id": "clip-0",
        "shard": "shard-00000.safetensors",
        "video_length": 3,
        "audio_length": 4,
        "video_rate_hz": 5.0,
        "audio_rate_hz": 6.25,
        "seconds": 0.6,
        "label": "label 0",
        "split": "train",
    }
    assert second["label"] is None


def test_subsets_splits_and_batches(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", 300)
    assert store.select("test").ids == ["clip-2"]
    assert open_features(tmp_path / "store", "train").ids == ["clip-0", "clip-1", "clip-3", "clip-4"]
    assert open_features(f"{tmp_path}/store:test").ids == ["clip-2"]
    assert len(open_features(tmp_path / "store")) == 5
    some = store.subset([4, 0, 4])
    assert some.ids == ["clip-4", "clip-0", "clip-4"]
    assert torch.equal(some.clip(2)[1], clips()[4][2])
    batch = collate(store.select("train"), [3, 1])
    assert batch.ids == ["clip-4", "clip-1"]
    assert torch.equal(batch.video[0], clips()[4][1])
    assert not batch.video[1, 1:].any()
    with pytest.raises(StoreError, match=r"has no split 'val'; its splits are train, test"):
        open_features(f"{tmp_path}/store:val")


def test_open_features_takes_a_file_too(tmp_path: Path) -> None:
    FeatureSet(["a"], [torch.zeros(2, 4)], [torch.zeros(3, 6)]).save(tmp_path / "set.safetensors")
    assert open_features(tmp_path / "set.safetensors").ids == ["a"]
    with pytest.raises(StoreError, match="one feature file and has no splits, so no 'train'"):
        open_features(tmp_path / "set.safetensors", "train")
    with pytest.raises(FileNotFoundError, match="no feature file at"):
        open_features(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no feature store at .*extract the features first"):
        open_features(tmp_path / "folder")


def test_a_write_to_what_was_read_does_not_reach_the_file(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", 1 << 20)
    before = contents(tmp_path / "store")
    store.clip(0)[0].zero_()
    assert contents(tmp_path / "store") == before
    assert torch.equal(FeatureStore.open(tmp_path / "store").clip(0)[0], clips()[0][1])


def test_a_store_goes_to_other_processes_without_what_it_mapped(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", 1 << 20)
    store.clip(0)
    sent = pickle.dumps(store)
    assert len(sent) < 5_000
    assert torch.equal(pickle.loads(sent).clip(3)[1], clips()[3][2])


def test_an_open_store_holds_no_descriptors(tmp_path: Path) -> None:
    store = fill(tmp_path / "store", 1)
    before = len(os.listdir("/dev/fd"))
    opened = [FeatureStore.open(tmp_path / "store") for _ in range(3)]
    for found in (store, *opened):
        assert all(torch.equal(found.clip(index)[0], clips()[index][1]) for index in range(5))
    assert len(os.listdir("/dev/fd")) == before


def test_an_open_store_keeps_the_shards_that_it_has_read(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    kept = store.clip(4)
    for shard in store.header.shards:
        (tmp_path / "store" / shard.name).unlink()
    assert all(torch.equal(side, right) for side, right in zip(store.clip(4), kept, strict=True))
    with pytest.raises(StoreError, match=r"shard-00000\.safetensors is missing"):
        store.clip(0)


def test_a_folder_needs_no_name_in_utf_8(tmp_path: Path) -> None:
    store = fill(tmp_path / os.fsdecode(b"store \xff"))
    assert torch.equal(store.clip(0)[0], clips()[0][1])


def test_reading_a_clip_reads_no_other(tmp_path: Path) -> None:
    """Thirty-two clips of a MiB each: one costs about one MiB of memory, not all of them."""
    folder = tmp_path / "store"
    with StoreWriter(folder, header(), shard_bytes=1 << 30) as writer:
        for index in range(32):
            steps = torch.full((1 << 16, 4), float(index))
            writer.add(Entry(f"{index}", "train", 1.0), steps, torch.zeros(1, 6))
    program = (
        "import sys\n"
        "from scav_model.data import FeatureStore\n"
        "def resident():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return int(next(line for line in lines if line.startswith('RssFile')).split()[1])\n"
        "store = FeatureStore.open(sys.argv[1])\n"
        "store.clip(0)\n"
        "before = resident()\n"
        "assert float(store.clip(20)[0].sum()) == 20 * 4 * 65536\n"
        "print(resident() - before)\n"
    )
    grown = subprocess.run([sys.executable, "-c", program, str(folder)], check=True, capture_output=True, text=True)
    assert int(grown.stdout) < 8 << 10  # KiB


def test_the_index_is_the_manifest_and_of_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    columns = fill(folder).columns
    manifest = (folder / "manifest.jsonl").read_bytes()
    found = Columns.of_index((folder / "index.safetensors").read_bytes(), manifest)
    assert found is not None
    for name, value in vars(columns).items():
        assert str(getattr(found, name)) == str(value), name
    assert Columns.of_index((folder / "index.safetensors").read_bytes(), manifest + b"\n") is None
    (folder / "index.safetensors").write_bytes(b"\0" * 100)
    assert FeatureStore.open(folder).ids == columns.ids
    (folder / "index.safetensors").unlink()
    assert FeatureStore.open(folder).subset([3]).clip(0)[0].tolist() == clips()[3][1].tolist()


def test_going_on_with_a_store(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole")
    with StoreWriter(tmp_path / "parts", header(), shard_bytes=300) as writer:
        for clip in clips()[:2]:
            writer.add(*clip)
    unfinished = FeatureStore.open(tmp_path / "parts")
    assert (len(unfinished), unfinished.header.finished) == (2, False)
    parts = fill(tmp_path / "parts")
    assert parts.ids == whole.ids
    assert parts.header.finished
    assert all(torch.equal(parts.clip(i)[1], whole.clip(i)[1]) for i in range(5))


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path / "store")
    before = contents(tmp_path / "store")
    other = header(dtype="bfloat16")
    other.video = {**other.video, "preprocessing": {"size": (9, 8)}, "rate_hz": 4.0}
    with pytest.raises(StoreError, match="begun with other settings") as caught:
        StoreWriter(tmp_path / "store", other)
    assert "video.preprocessing.size: there [8, 8], now (9, 8)" in str(caught.value)
    assert "video.rate_hz: there 5.0, now 4.0" in str(caught.value)
    assert "dtype: there 'float32', now 'bfloat16'" in str(caught.value)
    assert "audio" not in str(caught.value).split("(", 1)[1]
    newer = header(versions={"torch": "3.0"})
    newer.audio = {**newer.audio, "versions": {"speechbrain": "9"}}
    StoreWriter(tmp_path / "store", newer).__exit__(None, None, None)
    assert contents(tmp_path / "store") == before


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", header()), pytest.raises(StoreError, match="another process is writing"):
        StoreWriter(tmp_path / "store", header())
    StoreWriter(tmp_path / "store", header()).__exit__(None, None, None)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text("somebody's own\n")
    with pytest.raises(StoreError, match=r"is no feature store and holds manifest\.jsonl; choose another"):
        StoreWriter(tmp_path, header())
    assert (tmp_path / "manifest.jsonl").read_text() == "somebody's own\n"


def test_bad_clips_are_refused_and_unusable_ones_named(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", header(dtype="float16")) as writer:
        good, video, audio = clips()[0]
        with pytest.raises(StoreError, match=r"video of 'clip-0': expected \(steps, 4\), got \(3, 5\)"):
            writer.add(good, torch.zeros(3, 5), audio)
        with pytest.raises(StoreError, match=r"printable characters .*, got 'a"):
            writer.add(Entry("a\nb", "train", 1.0), video, audio)
        assert writer.add(good, video * torch.nan, audio) == "video features are not finite in float16"
        assert writer.add(good, video, audio + 1e6) == "audio features are not finite in float16"
        assert writer.add(good, video, audio) is None
        with pytest.raises(StoreError, match="'clip-0' is in the store already"):
            writer.add(good, video, audio)
        writer.skip(Skipped("bad", "/media/bad.mp4", "no audio stream"))
    with StoreWriter(tmp_path / "store", header(dtype="float16")) as writer:
        assert (writer.done, writer.skipped) == ({"clip-0"}, {"bad"})
        writer.forget_skipped()
        assert writer.skipped == set()
    assert (tmp_path / "store" / "skipped.jsonl").read_bytes() == b""


def test_damage_is_named(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    shard = tmp_path / "store" / "shard-00001.safetensors"
    kept = shard.read_bytes()
    shard.write_bytes(kept[:-1])
    with pytest.raises(StoreError, match=f"to have {len(kept)} bytes, found {len(kept) - 1}"):
        FeatureStore.open(store.folder).clip(4)
    shard.unlink()
    with pytest.raises(StoreError, match=r"shard-00001\.safetensors is missing"):
        FeatureStore.open(store.folder).clip(4)
    manifest = (store.folder / "manifest.jsonl").read_bytes()
    (store.folder / "manifest.jsonl").write_bytes(manifest[:-10])
    with pytest.raises(StoreError, match=r"manifest\.jsonl to have .* bytes"):
        FeatureStore.open(store.folder)
    (store.folder / "manifest.jsonl").write_bytes(manifest.replace(b'"split"', b'"slipt"'))
    with pytest.raises(StoreError, match="line 1, is damaged: KeyError"):
        FeatureStore.open(store.folder)
    (store.folder / "header.json").write_text('{"format": 9}')
    with pytest.raises(StoreError, match="format 9, and this version reads 2 and 3"):
        FeatureStore.open(store.folder)


def test_two_hundred_thousand_lines_are_a_handful_of_arrays() -> None:
    line = {"shard": "s", "video_length": 2, "audio_length": 3, "seconds": 0.4, "label": None, "split": "train"}
    lines = [orjson.dumps({**line, "id": str(index)}) for index in range(2_000)]
    columns = Columns.of_lines(lines, ["s"])
    assert columns.video_row.tolist() == list(range(0, 4_000, 2))
    assert columns.audio_row[-1] == 3 * 1_999
    again = Columns.of_index(columns.to_index(b"m"), b"m")
    assert again is not None
    assert again.ids == columns.ids


@pytest.mark.parametrize("name", ["manifest.jsonl", "skipped.jsonl", "header.json", "shard-00000.safetensors"])
def test_a_full_disk_names_the_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path / "store", header())
    writer.add(*clips()[0])
    writer.skip(Skipped("other", "other.mp4", "no sound"))
    sync = os.fsync

    def full(descriptor: int) -> None:
        if name in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full; make room, then repeat") as caught:
        writer.commit()
    assert caught.value.filename == str(tmp_path / "store" / name)
    monkeypatch.setattr(os, "fsync", sync)
    # What a full disk interrupted may be done again.
    with writer:
        pass
    assert FeatureStore.open(tmp_path / "store").ids == ["clip-0"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as caught:
        StoreWriter(tmp_path / "file" / "store", header())
    assert str(tmp_path / "file") in str(caught.value.filename)
