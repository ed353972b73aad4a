import numpy as np
import pytest
import torch
import torch.nn.functional as F

import scav_kernels
from scav_kernels import cdist
from scav_model.index import (
    Encoded,
    IndexWriter,
    SearchIndex,
    SearchIndexError,
    make_queries,
    queries_by_id,
    rerank,
    search,
)
from scav_model.index.parts import StoredItems
from scav_model.index.tune import tune
from scav_model.retrieval.means import largest_products
from scav_model.retrieval.nearest import nearest
from tests.index.worlds import DIM, clip, header

METRICS = [
    ("interpolated_euclidean", {}, False),
    ("interpolated_euclidean", {"squared": True, "resample": "shorter"}, False),
    ("dtw", {"band": 4}, True),
    ("soft_dtw", {"gamma": 0.2}, True),
    ("sinkhorn", {"epsilon": 0.1}, False),
]
NAMES = ["clip-1", "clip-12", "clip-29"]


def matrix(index, queries):
    """(Q, G) distances, one pair at a time, in float64."""
    made = index.header
    rows = []
    for query in range(len(queries)):
        row = []
        for number in range(made.written):
            pair = [queries.steps(query)[None].double(), index.steps(queries.target, number)[None].double()]
            video, audio = pair if queries.side == "video" else pair[::-1]
            far = float(cdist(video, audio, metric=made.metric, **made.options))
            row.append(far / (video.shape[1] + audio.shape[1]) if made.per_step else far)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize(("metric", "options", "per_step"), METRICS)
@pytest.mark.parametrize("even", [64, 3], ids=["compared", "bounded"])
def test_exact_is_every_distance_in_order(make_index, metric, options, per_step, side, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    monkeypatch.setattr("scav_model.index.bounds.WARM", 0)
    index = SearchIndex.open(make_index(metric=metric, options=options, per_step=per_step))
    queries = queries_by_id(index, NAMES, side)
    right = matrix(index, queries)
    for row, hits in zip(right, search(index, queries, 30).hits, strict=True):
        np.testing.assert_allclose([hit.distance for hit in hits], np.sort(row), rtol=1e-4, atol=1e-5)
        assert [hit.rank for hit in hits] == list(range(1, 31))
        np.testing.assert_allclose([row[hit.number] for hit in hits], np.sort(row), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", ["video", "audio"])
def test_hybrid_of_all_candidates_is_exact_and_of_few_is_their_best(index, side):
    queries = queries_by_id(index, NAMES, side)
    exact = search(index, queries, 6).hits
    assert [[hit.id for hit in hits] for hits in search(index, queries, 6, mode="hybrid", candidates=30).hits] == [
        [hit.id for hit in hits] for hits in exact
    ]
    nearest = search(index, queries, 8, mode="mean").hits
    found = search(index, queries, 3, mode="hybrid", candidates=8).hits
    right = matrix(index, queries)
    for row, chosen, hits in zip(right, nearest, found, strict=True):
        numbers = sorted((hit.number for hit in chosen), key=lambda number: row[number])
        assert [hit.number for hit in hits] == numbers[:3]


def test_mean_is_the_cosine_of_means(index):
    queries = queries_by_id(index, NAMES, "audio")
    pooled = F.normalize(torch.stack([index.steps("video", number).mean(0) for number in range(30)]), dim=1)
    asked = F.normalize(torch.stack([queries.steps(row).mean(0) for row in range(3)]), dim=1)
    right = (1 - asked @ pooled.T).sort(dim=1)
    hits = search(index, queries, 30, mode="mean").hits
    assert [[hit.number for hit in row] for row in hits] == right.indices.tolist()
    np.testing.assert_allclose([[hit.distance for hit in row] for row in hits], right.values, atol=1e-5)


@pytest.mark.parametrize("mode", ["exact", "hybrid", "mean"])
@pytest.mark.parametrize("even", [64, 1], ids=["compared", "bounded"])
def test_ties_go_to_the_lower_number(tmp_path, mode, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    monkeypatch.setattr("scav_model.index.bounds.WARM", 0)
    with IndexWriter.create(tmp_path / "index", header()) as writer:
        for number in range(12):
            writer.add(Encoded(f"clip-{number}", clip(number % 3 + 1).steps, {}))
            if number % 5 == 4:
                writer.commit()
    index = SearchIndex.open(tmp_path / "index")
    hits = search(index, queries_by_id(index, ["clip-0"], "video"), 4, mode=mode).hits[0]
    assert [hit.id for hit in hits] == ["clip-0", "clip-3", "clip-6", "clip-9"]
    assert len({hit.distance for hit in hits}) == 1


@pytest.mark.parametrize("even", [64, 3], ids=["compared", "bounded"])
def test_deleted_clips_are_in_nobodys_way(make_index, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    monkeypatch.setattr("scav_model.index.bounds.WARM", 0)
    folder = make_index(40, per_shard=20)
    whole = SearchIndex.open(folder)
    queries = queries_by_id(whole, ["clip-1", "clip-12", "clip-30"], "video")
    gone = {hit.id for hits in search(whole, queries, 6).hits for hit in hits}
    right = [[hit.id for hit in hits if hit.id not in gone] for hits in search(whole, queries, 40).hits]
    with IndexWriter(folder) as writer:
        writer.delete(gone)
    for k in (1, 5, len(right[0])):
        found = search(SearchIndex.open(folder), queries, k).hits
        assert [[hit.id for hit in hits] for hits in found] == [names[:k] for names in right]


@pytest.mark.parametrize("mode", ["exact", "hybrid", "mean"])
def test_a_batch_gets_what_each_query_gets_alone(index, mode):
    names = [f"clip-{number}" for number in range(9)]
    together = search(index, queries_by_id(index, names, "video"), 5, mode=mode, candidates=12).hits
    for name, hits in zip(names, together, strict=True):
        alone = search(index, queries_by_id(index, [name], "video"), 5, mode=mode, candidates=12).hits[0]
        assert [hit.id for hit in alone] == [hit.id for hit in hits]
        np.testing.assert_allclose(
            [hit.distance for hit in alone], [hit.distance for hit in hits], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(("metric", "useless"), [("sinkhorn", False), ("soft_dtw", True)])
def test_bounds_are_tried_once_and_given_up_where_they_leave_out_too_little(make_index, metric, useless, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", 3)
    monkeypatch.setattr("scav_model.index.bounds.WARM", 4)
    calls = []
    topk = scav_kernels.topk
    monkeypatch.setattr(scav_kernels, "topk", lambda *a, **b: calls.append(b["prune"]) or topk(*a, **b))
    folder = make_index(120, per_shard=40, metric=metric)
    names = ["clip-1", "clip-77"]
    found = []
    for telling in (8, 1000):
        monkeypatch.setattr("scav_model.index.parts.TELLING", telling)
        index = SearchIndex.open(folder)
        calls.clear()
        counts = []
        for _ in range(4):
            hits = search(index, queries_by_id(index, names, "video"), 3).hits
            found.append([[hit.id for hit in row] for row in hits])
            counts.append(calls.count("auto"))
        assert counts[0] == 0 < counts[1]
        assert index.prepared.useless == (useless and telling == 8)
        assert (counts[3] == counts[1]) == index.prepared.useless
    assert all(one == found[0] for one in found)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize(("metric", "options", "per_step"), METRICS)
@pytest.mark.parametrize("even", [3, 64])
def test_no_way_to_search_changes_a_digit(make_index, metric, options, per_step, side, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    folder = make_index(60, per_shard=20, metric=metric, options=options, per_step=per_step)
    with IndexWriter(folder) as writer:
        writer.delete(["clip-7", "clip-31"])
    answers = []
    for warm, threads in ((0, 1), (10**9, 1), (0, 2), (10**9, 2)):
        monkeypatch.setattr("scav_model.index.bounds.WARM", warm)
        torch.set_num_threads(threads)
        index = SearchIndex.open(folder)
        hits = search(index, queries_by_id(index, NAMES, side), 7).hits
        answers.append([[(hit.number, hit.distance) for hit in row] for row in hits])
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("even", [3, 64])
def test_what_is_known_outside_prunes_and_changes_no_answer(make_index, per_step, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    monkeypatch.setattr("scav_model.index.bounds.WARM", 0)
    folder = make_index(300, per_shard=150, metric="dtw" if per_step else "interpolated_euclidean", per_step=per_step)
    with IndexWriter(folder) as writer:
        writer.delete(["clip-7", "clip-31"])
    index = SearchIndex.open(folder)
    queries = queries_by_id(index, NAMES, "video")
    told = []
    items = StoredItems(index, "audio")
    right, numbers, alone = nearest(queries.sequences, items, "video", 4)
    known = right[:, 2].contiguous()
    found = nearest(queries.sequences, items, "video", 4, limits=lambda best: told.append(best.shape) or known)
    informed = found.report
    # The third is the last within what is known, and the place of a tie with it is kept.
    assert torch.equal(found[0][:, :3], right[:, :3])
    assert torch.equal(found[1][:, :3], numbers[:, :3])
    assert alone.pairs == informed.pairs
    if even == 3:
        # Bounds of DTW do not pay among these clips: the second search does without.
        assert per_step or informed.scored < alone.scored
        assert (found[0][:, 3:] > known[:, None]).all()
    assert told[0] == (3, 0)
    assert told[-1] == (3, 4)


@pytest.mark.parametrize(
    ("mode", "metric"),
    [("exact", "interpolated_euclidean"), ("bounds", "interpolated_euclidean"), ("exact", "dtw"), ("hybrid", "dtw")],
)
@pytest.mark.parametrize("even", [64, 3])
def test_queries_are_rounded_as_the_clips_are(make_index, mode, metric, even, monkeypatch):
    monkeypatch.setattr("scav_model.index.parts.EVEN", even)
    index = SearchIndex.open(make_index(40, dtype="bfloat16", metric=metric))
    steps = torch.randn(9, 8, generator=torch.Generator().manual_seed(0))
    found, right = (
        search(index, make_queries("video", ["mine"], [one]), 5, mode=mode, candidates=40).hits
        for one in (steps, steps.bfloat16().float())
    )
    assert found == right


def test_mean_search_is_a_stable_sort_of_cosines_however_it_is_cut(make_index, monkeypatch):
    folder = make_index(60, per_shard=17)
    with IndexWriter(folder) as writer:
        # Copies of clips, in several shards, tie with each other.
        for number in range(40):
            writer.add(Encoded(f"copy-{number}", clip(number % 5).steps, {}))
            if number % 9 == 8:
                writer.commit()
        writer.delete(["clip-7", "copy-20"])
    index = SearchIndex.open(folder)
    queries = queries_by_id(index, ["clip-1", "clip-33", "copy-2"], "video")
    means = F.normalize(torch.stack([index.steps("audio", number).mean(0) for number in range(100)]), dim=1)
    asked = F.normalize(torch.stack([queries.steps(row).mean(0) for row in range(3)]), dim=1)
    distances = 1 - (asked[:, None].double() * means.double()).sum(2)
    distances[:, ~torch.from_numpy(index.live)] = torch.inf
    answers = []
    for rows, block, floats in ((1024, 4096, 1 << 22), (1, 4096, 1), (2, 5, 24), (1024, 1, 1 << 22)):
        for name, value in (("ROWS", rows), ("BLOCK", block), ("FLOATS", floats)):
            monkeypatch.setattr(f"scav_model.retrieval.means.{name}", value)
        found = search(index, queries, 30, mode="mean").hits
        answers.append([[(hit.number, hit.distance) for hit in row] for row in found])
    for row, hits in enumerate(answers[0]):
        np.testing.assert_allclose([far for _, far in hits], distances[row].sort().values[:30], atol=1e-6)
        np.testing.assert_allclose([distances[row, number] for number, _ in hits], [far for _, far in hits], atol=1e-6)
        assert hits == sorted(hits, key=lambda hit: (hit[1], hit[0]))
    assert len({far for _, far in answers[0][2][:9]}) == 1, "nine copies are as far as each other, to the bit"
    assert all(answer == answers[0] for answer in answers)


def test_mean_search_finds_the_first_of_many_that_are_alike():
    generator = torch.Generator().manual_seed(0)
    row, queries = torch.randn(24, generator=generator), torch.randn(3, 24, generator=generator)
    for count in (1, 3, 14, 257):
        # Rows at the edge of a matrix product may be summed in another order than others.
        found = largest_products(queries, [(torch.arange(count), row.expand(count, -1).contiguous())], min(count, 5))
        assert found[1].tolist() == 3 * [list(range(min(count, 5)))]
        assert len(found[0].unique()) == 3


def test_rounding_of_a_matrix_product_leaves_out_none_that_is_as_near(monkeypatch):
    linear = F.linear

    def rounded(vectors, queries):
        found = linear(vectors, queries)
        return found + 1e-6 * torch.arange(len(vectors))[:, None] / len(vectors)

    monkeypatch.setattr("scav_model.retrieval.means.F.linear", rounded)
    row = F.normalize(torch.ones(1, 24), dim=1)
    found = largest_products(row, [(torch.arange(40), row.expand(40, -1).contiguous())], 5)
    assert found[1].tolist() == [[0, 1, 2, 3, 4]]


def test_mean_search_never_finds_nan():
    vectors = torch.eye(4)
    vectors[1] = torch.nan
    blocks = [(torch.tensor([7]), vectors[1:2]), (torch.arange(4), vectors)]
    scores, numbers = largest_products(torch.eye(4)[:2], blocks, 3)
    assert numbers[0].tolist() == [0, 2, 3]
    assert scores[0].tolist() == [1, 0, 0]
    assert largest_products(torch.eye(4)[:2], blocks, 4)[0][0, 3:].tolist() in ([], [-torch.inf])


@pytest.mark.parametrize("mode", ["hybrid", "mean"])
def test_too_few_means_that_are_finite_are_refused(index, mode, monkeypatch):
    queries = queries_by_id(index, ["clip-1"], "video")
    monkeypatch.setattr(
        "scav_model.index.shard.ShardReader.means", lambda self, side: torch.full((len(self), DIM), torch.nan)
    )
    with pytest.raises(SearchIndexError, match="means of some audios are NaN or infinite, and too few others"):
        search(index, queries, 3, mode=mode)


@pytest.mark.parametrize("mode", ["exact", "hybrid", "mean"])
def test_more_than_there_is_gives_all_and_says_so(make_index, mode):
    index = SearchIndex.open(make_index(5))
    answer = search(index, queries_by_id(index, ["clip-1"], "video"), 9, mode=mode)
    assert sorted(hit.id for hit in answer.hits[0]) == [f"clip-{number}" for number in range(5)]
    assert answer.notes == ["k is 9 and the index holds 5 clips, so all of them are returned"]


@pytest.mark.parametrize("mode", ["exact", "hybrid", "mean"])
def test_an_empty_index_finds_nothing_and_says_so(make_index, mode):
    folder = make_index(2)
    queries = queries_by_id(SearchIndex.open(folder), ["clip-1", "clip-0"], "video")
    with IndexWriter(folder) as writer:
        writer.delete(["clip-0", "clip-1"])
    for _ in range(2):
        answer = search(SearchIndex.open(folder), queries, 3, mode=mode)
        assert (answer.hits, answer.notes) == ([[], []], ["the index is empty, so nothing is found"])
        with IndexWriter(folder) as writer:
            writer.compact()


@pytest.mark.parametrize(
    ("steps", "side", "options", "message"),
    [
        ([torch.zeros(3, 7)], "video", {}, "expected queries of 8 features a step, as .* holds, got 7"),
        ([torch.full((3, 8), torch.nan)], "video", {}, "the query 'a' is NaN or infinite"),
        ([torch.ones(3, 8)], "text", {}, "expected queries to be of video or audio, got 'text'"),
        ([torch.ones(3, 8)], "video", {"k": 0}, "expected k to be at least 1, got 0"),
        ([torch.ones(3, 8)], "video", {"candidates": 0}, "expected candidates to be at least 1, got 0"),
        ([torch.ones(3, 8)], "video", {"mode": "best"}, "expected mode to be one of exact, hybrid, mean"),
    ],
)
def test_bad_questions(index, steps, side, options, message):
    with pytest.raises(SearchIndexError, match=message):
        search(index, make_queries(side, ["a"], steps), **options)


def test_rerank_orders_what_others_found(index):
    queries = queries_by_id(index, ["clip-1", "clip-12", "clip-2"], "video")
    chosen = [["clip-7", "clip-1", "clip-9", "clip-7"], ["clip-12"], []]
    order = rerank(index, queries, chosen)
    right = matrix(index, queries)[0]
    assert order == [
        sorted({"clip-7", "clip-1", "clip-9"}, key=lambda name: right[index.number(name)]),
        ["clip-12"],
        [],
    ]
    assert rerank(index, queries, chosen, k=1) == [["clip-1"], ["clip-12"], []]
    with pytest.raises(SearchIndexError, match=r"'clip-40' is not in .*: no clip has that id"):
        rerank(index, queries, [["clip-40"], [], []])
    with pytest.raises(SearchIndexError, match="a list of candidates for each of 3 queries, got 1 lists"):
        rerank(index, queries, [["clip-1"]])


def test_tune_measures_what_hybrid_finds(index):
    rows = tune(index, k=4, queries=30, candidates=(2, 4, 10, 50))
    assert [(row["mode"], row["candidates"]) for row in rows] == [
        ("exact", 30),
        ("hybrid", 4),
        ("hybrid", 10),
        ("hybrid", 30),
        ("bounds", 4),
        ("bounds", 10),
        ("bounds", 30),
    ]
    names = [f"clip-{number}" for number in range(30)]
    queries = queries_by_id(index, names, "video")
    exact, hybrid = (
        [{hit.id for hit in hits} for hits in search(index, queries, 4, mode=mode, candidates=10).hits]
        for mode in ("exact", "hybrid")
    )
    shares = [len(one & other) / 4 for one, other in zip(exact, hybrid, strict=True)]
    assert rows[2]["recall"] == pytest.approx(100 * np.mean(shares))
    assert rows[2]["worst"] == pytest.approx(100 * min(shares))
    assert rows[1]["recall"] < rows[3]["recall"] == 100
    assert rows[5]["recall"] == rows[6]["recall"] == 100
