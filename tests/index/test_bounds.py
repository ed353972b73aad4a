"""Summaries for lower bounds in an index, and searches that use them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from scav_model.index import IndexWriter, SearchIndex, SearchIndexError, make_queries, queries_by_id, search
from scav_model.index.parts import StoredItems
from scav_model.index.search import find
from scav_model.retrieval.nearest import nearest
from tests.index.worlds import clip

OPTIONS = [{}, {"squared": True}, {"resample": "y"}, {"resample": "shorter"}]


@pytest.fixture
def folder(make_index, request):
    """An index of 60 clips in shards of 20, two of which were deleted."""
    made = make_index(60, per_shard=20, options=getattr(request, "param", {}))
    with IndexWriter(made) as writer:
        writer.delete(["clip-0", "clip-31"])
    return made


def commonest(index, side):
    """Queries of the length that most clips have."""
    names = [name for name in sorted(index.numbers) if len(index.steps(side, index.number(name))) == 10]
    return queries_by_id(index, names[:5], side)


def answer_of(index, queries, k=7):
    return nearest(queries.sequences, StoredItems(index, queries.target), queries.side, k)


@pytest.mark.parametrize("folder", OPTIONS, indirect=True)
@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize("kept", [1, 25, 100_000])
def test_kept_bounds_change_no_digit(folder, side, kept, monkeypatch):
    index = SearchIndex.open(folder)
    queries = commonest(index, "video") if side == "video" else queries_by_id(index, ["clip-1", "clip-9"], side)
    monkeypatch.setattr(index, "has_bounds", False)
    right = answer_of(index, queries)
    monkeypatch.undo()
    monkeypatch.setattr("scav_model.index.bounds.KEPT", kept)
    index = SearchIndex.open(folder)
    for _ in range(2):
        found = answer_of(index, queries)
        assert torch.equal(found[0], right[0])
        assert torch.equal(found[1], right[1])
        assert found[2].pairs == right[2].pairs == len(queries) * 58
    groups = list(StoredItems(index, "audio").groups())
    assert sum(map(len, groups)) == 58
    assert len(groups) == {1: 3, 25: 3, 100_000: 1}[kept]


def test_one_query_reads_little_of_an_index(make_index):
    folder = make_index(300, per_shard=100)
    index = SearchIndex.open(folder)
    *_, report = answer_of(index, queries_by_id(index, ["clip-5"], "video"), 1)
    assert report.scored < 60
    sound = sum(sum(shard._sound["audio"]) for shard in index.shards)
    assert sound <= report.scored


def test_queries_of_another_length_find_the_same(folder):
    torch.manual_seed(0)
    queries = make_queries("audio", ["mine"], [torch.randn(23, 8)])
    found = answer_of(SearchIndex.open(folder), queries)
    without = SearchIndex.open(folder)
    without.has_bounds = False
    right = answer_of(without, queries)
    assert torch.equal(found[0], right[0])
    assert torch.equal(found[1], right[1])
    # Summaries for its length are made where they are asked for.
    some = find(SearchIndex.open(folder), queries, 7, "bounds", 58)
    assert torch.equal(some[1], right[1])


def check_kept(index):
    """Bounds of each clip are made of what is stored of it."""
    for side in ("video", "audio"):
        directions = index.directions[side]
        torch.testing.assert_close(directions @ directions.T, torch.eye(len(directions)), rtol=0, atol=1e-5)
        for shard in index.shards:
            kept = shard.bounds()
            for place in range(len(shard)):
                steps = shard.steps(side, place).float()
                torch.testing.assert_close(kept[f"{side}_norms"][place], steps.norm(dim=1).max())
                target = kept[f"{side}_targets"][place]
                assert target == (len(steps) if side == "audio" else index.header.common_steps["audio"])
                if side == "audio":
                    # The first level: one segment, in all coordinates, of so few features.
                    torch.testing.assert_close(kept["audio_means"][place, :8], steps.mean(0), rtol=1e-4, atol=1e-5)


def test_bounds_are_of_what_is_stored_and_survive_changes(folder):
    before = SearchIndex.open(folder)
    with IndexWriter(folder) as writer:
        for number in range(60, 70):
            writer.add(clip(number))
    index = SearchIndex.open(folder)
    assert index.header.directions == before.header.directions
    check_kept(index)
    with IndexWriter(folder, shard_bytes=1 << 12) as writer:
        writer.compact()
    index = SearchIndex.open(folder)
    assert index.header.directions != before.header.directions
    assert [path.name for path in folder.glob("directions-*")] == [index.header.directions.name]
    check_kept(index)


def test_useless_bounds_are_given_up(folder, monkeypatch):
    monkeypatch.setattr("scav_model.index.bounds.WORTH", -1.0)
    monkeypatch.setattr("scav_model.index.parts.TELLING", 1)
    index = SearchIndex.open(folder)
    queries = queries_by_id(index, ["clip-1"], "video")
    first, second = answer_of(index, queries), answer_of(index, queries)
    assert index.prepared.useless
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_few_candidates_are_compared(folder):
    index = SearchIndex.open(folder)
    queries = commonest(index, "video")
    right = find(index, queries, 5, "exact")
    for candidates in (5, 10, 58):
        distances, numbers = find(index, queries, 5, "bounds", candidates)
        rows, own, same = (numbers[:, :, None] == right[1][:, None]).nonzero(as_tuple=True)
        assert torch.equal(distances[rows, own], right[0][rows, same])
        assert (distances >= right[0]).all()
    assert torch.equal(numbers, right[1])
    answer = search(index, queries, 5, mode="bounds", candidates=2)
    assert answer.notes == ["candidates is 2, less than k, so 5 are taken"]
    assert all(len(hits) == 5 for hits in answer.hits)


def test_mode_bounds_says_where_it_cannot(make_index):
    index = SearchIndex.open(make_index(metric="dtw"))
    assert index.header.directions is None
    queries = queries_by_id(index, ["clip-1"], "video")
    with pytest.raises(SearchIndexError, match="mode bounds needs the metric interpolated_euclidean"):
        search(index, queries, 3, mode="bounds")
    index = SearchIndex.open(make_index(name="other"))
    with pytest.raises(SearchIndexError, match="mode bounds searches in one process"):
        search(index, queries, 3, mode="bounds", workers=object())


def test_verify_names_damage_beside_the_shards(folder):
    index = SearchIndex.open(folder)
    for file in (index.header.directions, index.header.shards[1].bounds):
        path = folder / file.name
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    problems = [problem for found in SearchIndex.open(folder).problems() for problem in found]
    assert [name in problem for name, problem in zip(("bounds", "directions"), problems, strict=True)] == [True, True]
    with pytest.raises(SearchIndexError, match="is damaged"):
        find(SearchIndex.open(folder), queries_by_id(index, ["clip-1"], "video"), 3, "exact")


def test_threads_may_search_one_index(make_index):
    folder = make_index(200, per_shard=50)
    names = [f"clip-{number}" for number in range(40)]
    alone = SearchIndex.open(folder)
    right = [search(alone, queries_by_id(alone, [name], "video"), 9).hits[0] for name in names]
    index = SearchIndex.open(folder)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: search(index, queries_by_id(index, [name], "video"), 9).hits[0], names))
    assert found == right
