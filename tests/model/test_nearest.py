"""One function searches clips in memory, by each method, as a loop over queries would."""

import pytest
import torch

from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.retrieval import gallery
from scav_model.retrieval import nearest as engine
from scav_model.retrieval.gallery import GalleryItems, InMemory, OnDisk
from scav_model.retrieval.nearest import has_bounds, nearest


def clips(count: int, steps: int, seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, steps + 1, (count,), generator=generator)
    return Sequences(torch.randn(count, steps, 4, generator=generator), lengths)


def all_pairs(queries: Sequences, items: Sequences, side: str, distance: Distance) -> torch.Tensor:
    return distance.all_pairs(queries, items) if side == "video" else distance.all_pairs(items, queries).T


@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw", "soft_dtw", POOLED_COSINE])
@pytest.mark.parametrize("many", [1, 9, 64])
def test_methods_find_what_a_loop_over_queries_finds(side, metric, many, monkeypatch):
    """DTW among ragged clips too, where dividing by a pair's steps changes the order."""
    monkeypatch.setattr(gallery, "MANY", many)
    for module in (gallery, engine):
        monkeypatch.setattr(module, "FLOATS", 7 * 6 * 4)
    monkeypatch.setattr(engine, "ROWS", 3)
    queries, listed, distance = clips(7, 5, 0), clips(40, 6, 1), Distance(metric)
    matrix = all_pairs(queries, listed, side, distance)
    items = GalleryItems(InMemory(listed), distance)
    right = matrix.argsort(dim=1)[:, :10]
    brute = nearest(queries, items, side, 10, prune="none")
    assert torch.equal(brute.numbers, right)
    assert brute.report.scored == brute.report.pairs == 7 * 40
    found = nearest(queries, items, side, 10)
    assert torch.equal(found.numbers, right)
    assert found.report.scored <= 7 * 40
    assert has_bounds(distance) == (metric in ("interpolated_euclidean", "dtw"))
    assert torch.equal(nearest(queries, items, side, 10, method="hybrid", candidates=40).numbers, right)
    near = nearest(queries, items, side, 12, method="mean").numbers
    hybrid = nearest(queries, items, side, 10, method="hybrid", candidates=12)
    assert hybrid.report.scored == 7 * 12
    for row, expected in enumerate(near):
        order = matrix[row, expected].argsort()[:10]
        assert hybrid.numbers[row].tolist() == expected[order].tolist()


@pytest.mark.parametrize("method", ["exact", "hybrid", "mean"])
@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw"])
def test_ties_go_to_the_lower_number(method, metric, monkeypatch):
    monkeypatch.setattr(gallery, "MANY", 3)
    kinds = clips(3, 5, 2)
    same = Sequences(kinds.steps[torch.arange(20) % 3], kinds.lengths[torch.arange(20) % 3])
    items = GalleryItems(InMemory(same), Distance(metric))
    found = nearest(kinds, items, "video", 4, method=method, candidates=12)
    assert found.numbers.tolist() == [[kind, kind + 3, kind + 6, kind + 9] for kind in range(3)]


@pytest.mark.parametrize("prune", ["auto", "none"])
def test_ties_between_items_of_several_lengths_go_to_the_lower_number(prune, monkeypatch):
    """Searched apart by length: items 0, 3, 6, ... have 5 steps, 1, 4, 7, ... have 2, and 2, 5, 8, ... have 4."""
    monkeypatch.setattr(gallery, "MANY", 3)
    lengths = torch.tensor([5, 2, 4]).repeat(4)
    items = GalleryItems(InMemory(Sequences(torch.ones(12, 5, 4), lengths)), Distance("dtw"))
    found = nearest(Sequences(torch.ones(1, 3, 4), torch.tensor([3])), items, "video", 7, prune=prune)
    assert found.distances.eq(0).all()
    assert found.numbers.tolist() == [list(range(7))]


class Deleted(GalleryItems):
    """All items but some, as an index with deleted clips has them."""

    ascending = True

    def parts(self, queries, method, prune):
        for part in super().parts(queries, method, prune):
            yield part._replace(live=self.live[part.numbers])


@pytest.mark.parametrize("k", [1, 4, 30])
def test_deleted_items_take_no_place(k):
    queries, listed, distance = clips(3, 5, 0), clips(30, 6, 1), Distance("interpolated_euclidean")
    matrix = all_pairs(queries, listed, "video", distance)
    items = Deleted(InMemory(listed), distance)
    items.live = torch.ones(30, dtype=torch.bool)
    items.live[matrix.argsort(dim=1)[:, :3].flatten()] = False
    right = matrix.masked_fill(~items.live, torch.inf).argsort(dim=1)[:, : min(k, int(items.live.sum()))]
    assert torch.equal(nearest(queries, items, "video", k).numbers, right)


def test_candidates_by_bounds():
    queries, listed, distance = clips(7, 5, 0), clips(40, 6, 1), Distance("interpolated_euclidean")
    items = GalleryItems(InMemory(listed), distance)
    assert items.has_candidates
    exact = nearest(queries, items, "audio", 10, prune="none")
    every = nearest(queries, items, "audio", 10, method="bounds", candidates=40)
    assert torch.equal(every.numbers, exact.numbers)
    assert torch.equal(every.distances, exact.distances)
    assert nearest(queries, items, "audio", 10, method="bounds", candidates=12).report.scored <= 7 * 12
    assert not GalleryItems(InMemory(listed), Distance("dtw")).has_candidates


def test_candidates_chosen_elsewhere_and_places_without_one():
    queries, listed, distance = clips(2, 5, 0), clips(9, 6, 1), Distance("dtw")
    items = GalleryItems(InMemory(listed), distance)
    chosen = torch.tensor([[8, 2, 5], [3, -1, 1]])
    found = nearest(queries, items, "video", 3, method="hybrid", candidates=chosen)
    matrix = all_pairs(queries, listed, "video", distance)
    assert found.numbers[0].tolist() == sorted([8, 2, 5], key=lambda number: matrix[0, number])
    assert found.numbers[1].tolist() == [*sorted([3, 1], key=lambda number: matrix[1, number]), -1]
    assert found.distances[1, 2] == torch.inf


def test_means_of_nan_leave_places_empty():
    listed = clips(5, 6, 1)
    listed.steps[1:4] = torch.nan
    items = GalleryItems(InMemory(listed), Distance("dtw"))
    found = nearest(clips(2, 5, 0), items, "video", 4, method="mean")
    assert found.numbers[:, :2].sort(dim=1).values.tolist() == [[0, 4], [0, 4]]
    assert found.numbers[:, 2:].eq(-1).all()
    assert found.distances[:, 2:].eq(torch.inf).all()
    queries = clips(2, 5, 0)
    queries.steps[0] = torch.nan
    found = nearest(queries, items, "video", 2, method="mean")
    assert found.numbers[0].tolist() == [-1, -1]
    assert sorted(found.numbers[1].tolist()) == [0, 4]


def test_a_gallery_on_disk_is_searched_the_same():
    queries, listed = clips(4, 5, 0), clips(30, 6, 1)
    stored = OnDisk(listed.lengths, 4)
    stored.append(*listed)
    for metric in ("interpolated_euclidean", "dtw"):
        for method in ("exact", "hybrid", "mean"):
            one, other = (
                nearest(queries, GalleryItems(kind, Distance(metric)), "video", 5, method=method, candidates=9)
                for kind in (InMemory(listed), stored)
            )
            assert torch.equal(one.numbers, other.numbers)
