import json
import zlib
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save

import scav_kernels
from scav_model.distances import Distance
from scav_model.index import (
    DamagedIndexError,
    Encoded,
    IndexWriter,
    SearchIndex,
    SearchIndexError,
    queries_by_id,
    search,
)
from scav_model.index.header import write_file
from scav_model.index.parts import StoredItems
from tests.index.worlds import DIM, clip, header


def found_ids(index):
    return [index.id(number) for number in np.flatnonzero(index.live)]


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_what_is_read_is_what_was_written(make_index, dtype, tmp_path):
    kind = getattr(torch, dtype)
    with IndexWriter.create(tmp_path / "one", header(dtype=dtype)) as writer:
        for number in range(11):
            writer.add(clip(number, kind))
            if number == 6:
                writer.commit()
    index = SearchIndex.open(tmp_path / "one")
    assert len(index) == 11
    assert len(index.shards) == 2
    for number in range(11):
        place = index.number(f"clip-{number}")
        for side in ("video", "audio"):
            assert torch.equal(index.steps(side, place), clip(number, kind).steps[side].float())
        assert index.media(place) == {"path": f"/media/{number}.mp4"}


@pytest.mark.parametrize("even", [64, 3, 1])
def test_parts_hold_every_clip_once_in_order(index, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    index.has_bounds = False
    seen, databases = [], 0
    for part in StoredItems(index, "audio").parts(queries_by_id(index, ["clip-1"], "video").sequences, "exact", "auto"):
        if isinstance(part.items, scav_kernels.SearchIndex):
            databases += 1
            rows = [index.steps("audio", number) for number in part.numbers.tolist()]
            assert {len(steps) for steps in rows} == {part.items.like.shape[1]}
            assert len(rows) == len(part.items)
        else:
            for number, steps, length in zip(part.numbers.tolist(), *part.items, strict=True):
                assert torch.equal(steps[:length], index.steps("audio", number))
                assert not steps[length:].any()
        seen += part.numbers.tolist()
    assert seen == list(range(30))
    assert bool(databases) == (even < 64)


def test_means_are_those_of_what_is_stored(index):
    shard = index.shards[1]
    means = shard.means("video")
    assert means.dtype == torch.float32
    for number in range(len(shard)):
        mean = shard.steps("video", number).float().mean(0)
        torch.testing.assert_close(means[number], mean / mean.norm())


def test_a_shard_is_written_when_it_is_full(tmp_path):
    size = clip(1).bytes
    with IndexWriter.create(tmp_path / "index", header(), shard_bytes=3 * size) as writer:
        for number in (1, 2, 3, 5, 6):
            writer.add(clip(number))
        assert [shard.clips for shard in writer.header.shards] == [3]
        assert len(SearchIndex.open(tmp_path / "index")) == 3
    assert [shard.clips for shard in SearchIndex.open(tmp_path / "index").header.shards] == [3, 2]


def test_delete_and_compact(make_index):
    folder = make_index(20)
    before = SearchIndex.open(folder)
    with IndexWriter(folder) as writer:
        assert writer.delete(["clip-3", "clip-17", "clip-3"]) == 2
        with pytest.raises(SearchIndexError, match=r"'clip-3' is not in .*: it was deleted"):
            writer.delete(["clip-4", "clip-3"])
        with pytest.raises(SearchIndexError, match=r"'clip-99' is not in .*: no clip has that id"):
            writer.delete(["clip-99"])
    kept = [f"clip-{number}" for number in range(20) if number not in (3, 17)]
    after = SearchIndex.open(folder)
    assert sorted(found_ids(after)) == sorted(kept)
    assert len(before) == 20, "an open reader keeps its version"
    asked = queries_by_id(before, ["clip-3"], "video")
    for mode in ("exact", "hybrid", "mean"):
        assert search(before, asked, 1, mode=mode).hits[0][0].id == "clip-3"
        hits = search(after, asked, 18, mode=mode).hits[0]
        assert sorted(hit.id for hit in hits) == sorted(kept)
    with IndexWriter(folder) as writer:
        assert writer.compact() > 0
    compacted = SearchIndex.open(folder)
    assert sorted(found_ids(compacted)) == sorted(kept)
    assert compacted.header.deleted is None
    assert len(compacted.shards) == 1
    assert files(folder) == sorted({"index.json", ".lock", *(file.name for file in compacted.header.files())})
    for mode in ("exact", "mean"):
        found, again = (search(index, asked, 5, mode=mode).hits[0] for index in (after, compacted))
        assert [(hit.id, hit.distance) for hit in found] == [(hit.id, hit.distance) for hit in again]


def test_a_deleted_id_can_be_added_anew(make_index):
    folder = make_index(4)
    new = Encoded("clip-1", clip(77).steps, {})
    with IndexWriter(folder) as writer:
        with pytest.raises(SearchIndexError, match="'clip-1' is in the index already"):
            writer.add(new)
        writer.delete(["clip-1"])
        writer.add(new)
    index = SearchIndex.open(folder)
    assert len(index) == 4
    assert torch.equal(index.steps("video", index.number("clip-1")), clip(77).steps["video"].float())


def test_one_writer_at_a_time(make_index):
    folder = make_index(2)
    with IndexWriter(folder), pytest.raises(SearchIndexError, match="another process is writing"):
        IndexWriter(folder)
    IndexWriter(folder).close()


def test_one_side_is_half_an_index(make_index, tmp_path):
    with IndexWriter.create(tmp_path / "audios", header(sides=["audio"])) as writer:
        for number in range(5):
            writer.add(Encoded(f"clip-{number}", {"audio": clip(number).steps["audio"]}, {}))
    index = SearchIndex.open(tmp_path / "audios")
    asked = queries_by_id(SearchIndex.open(make_index(5)), ["clip-2"], "video")
    assert search(index, asked, 1).hits[0][0].id == "clip-2"
    with pytest.raises(SearchIndexError, match="holds audio alone, and this search needs video"):
        queries_by_id(index, ["clip-2"], "video")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"video": torch.zeros(3, DIM)}, "expected steps of video and audio, got video"),
        ({"video": torch.zeros(3, DIM), "audio": torch.zeros(3, DIM + 1)}, r"audio of 'a': expected \(steps, 8\), got"),
        ({"video": torch.zeros(0, DIM), "audio": torch.zeros(3, DIM)}, r"video of 'a': expected \(steps, 8\)"),
        ({"video": torch.full((3, DIM), torch.nan), "audio": torch.zeros(3, DIM)}, "video of 'a': .* NaN or infinite"),
        ({"video": torch.zeros(3, DIM), "audio": torch.full((3, DIM), torch.inf)}, "audio of 'a': .* NaN or infinite"),
    ],
)
def test_a_bad_clip_is_refused_by_name(make_index, steps, message):
    folder = make_index(2)
    with IndexWriter(folder) as writer, pytest.raises(SearchIndexError, match=message):
        writer.add(Encoded("a", {side: one.bfloat16() for side, one in steps.items()}, {}))
    assert found_ids(SearchIndex.open(folder)) == ["clip-0", "clip-1"]


def test_no_index_there(tmp_path, make_index):
    with pytest.raises(FileNotFoundError, match="make one with scav index build"):
        SearchIndex.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="make one with scav index build"):
        IndexWriter(tmp_path)
    assert files(tmp_path) == []
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(SearchIndexError, match=r"it holds letter\.txt; choose another folder"):
        IndexWriter.create(tmp_path, header())


def to_format_2(folder):
    """Rewrite an index in format 2: means in other files, beside FAISS indexes of them."""
    header = json.loads((folder / "index.json").read_text())["index"]
    index = SearchIndex.open(folder)
    for number, (shard, reader) in enumerate(zip(header["shards"], index.shards, strict=True)):
        vectors = {}
        for side in header["sides"]:
            steps = [reader.steps(side, clip).float() for clip in range(len(reader))]
            vectors[f"{side}_means"] = torch.stack([one.mean(0) for one in steps])
            vectors[f"{side}_segments"] = torch.zeros(len(reader), 4, DIM)
            (folder / shard["means"][side]["name"]).unlink()
        del shard["means"]
        names = [f"shard-{number:06d}.{side}.faiss" for side in header["sides"]]
        described = [asdict(write_file(folder, name, b"a FAISS index")) for name in names]
        shard["flat"] = dict(zip(header["sides"], described, strict=True))
        shard["vectors"] = asdict(write_file(folder, f"shard-{number:06d}.vectors.safetensors", save(vectors)))
    header["format"] = 2
    crc32 = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    (folder / "index.json").write_text(json.dumps({"crc32": crc32, "index": header}))


def test_an_index_of_format_2_answers_and_grows(make_index):
    folder = make_index(20)
    queries = queries_by_id(SearchIndex.open(folder), ["clip-3", "clip-12"], "video")

    def found():
        index = SearchIndex.open(folder)
        assert [problem for problems in index.problems() for problem in problems] == []
        answers = [search(index, queries, 9, mode=mode).hits for mode in ("mean", "hybrid", "exact")]
        return [[[hit.id for hit in row] for row in answer] for answer in answers]

    right = found()
    to_format_2(folder)
    assert found() == right
    with IndexWriter(folder) as writer:
        writer.add(clip(40))
        writer.commit()
        writer.delete(["clip-40"])
    assert found() == right
    assert json.loads((folder / "index.json").read_text())["index"]["format"] == 3
    assert not [name for name in files(folder) if name.endswith(".faiss")]
    path = folder / "shard-000001.vectors.safetensors"
    kept = path.read_bytes()
    path.write_bytes(kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:])
    with pytest.raises(DamagedIndexError, match=r"vectors\.safetensors is damaged: its CRC-32"):
        search(SearchIndex.open(folder), queries, 3, mode="mean")
    path.write_bytes(kept)
    with IndexWriter(folder) as writer:
        writer.compact()
    assert found() == right
    assert not [name for name in files(folder) if "vectors" in name]


@pytest.mark.parametrize("asked", ["interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn"])
@pytest.mark.parametrize("built", [pytest.param("interpolated_euclidean", marks=pytest.mark.slow), "dtw"])
@pytest.mark.parametrize("side", ["video", pytest.param("audio", marks=pytest.mark.slow)])
def test_another_distance_finds_what_an_index_of_it_finds(make_index, built, asked, side):
    per_step = asked in ("dtw", "soft_dtw")
    index = SearchIndex.open(make_index(100, metric=built, per_step=built == "dtw"))
    other = SearchIndex.open(make_index(100, name="other", metric=asked, per_step=per_step))
    view = index.measured_by(Distance(asked))
    queries = queries_by_id(index, ["clip-3", "clip-4", "clip-17"] * 12, side)  # enough that bounds are tried
    for _ in range(2):
        found, expected = (search(one, queries, 5).hits for one in (view, other))
        assert [[(hit.id, hit.distance) for hit in hits] for hits in found] == [
            [(hit.id, pytest.approx(hit.distance, rel=1e-5)) for hit in hits] for hits in expected
        ]
    assert index.header.metric == built
    assert search(index, queries, 5, mode="mean").hits == search(view, queries, 5, mode="mean").hits


def test_bounds_are_of_the_metric_that_the_index_was_built_with(make_index):
    index = SearchIndex.open(make_index())
    assert index.has_bounds
    assert index.measured_by(Distance("interpolated_euclidean")).has_bounds
    for other in (Distance("interpolated_euclidean", {"squared": True}), Distance("dtw")):
        assert not index.measured_by(other).has_bounds
    with pytest.raises(SearchIndexError, match="use --mode hybrid"):
        search(index.measured_by(Distance("dtw")), queries_by_id(index, ["clip-1"], "video"), mode="bounds")
