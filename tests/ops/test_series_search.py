"""Search of series by DTW: the nearest of an exhaustive search, by LB_Keogh and recursions that stop early."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scav_kernels
from scav_kernels import topk
from scav_kernels.reference.dtw import dtw as reference_dtw
from scav_kernels.search import series
from scav_kernels.search.kernels import keogh_bounds, nearest_series

seeds = st.integers(0, 2**20)
COSTS = ["euclidean", "sqeuclidean"]


def make_series(count: int, steps: int, dim: int, seed: int, kind: str = "walks") -> tuple[Tensor, Tensor]:
    """Series in float64, random walks or noise, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, steps, dim, generator=generator, dtype=torch.float64)
    lengths = torch.randint(max(1, steps // 2), steps + 1, (count,), generator=generator)
    return rows.cumsum(1) if kind == "walks" else rows, lengths


def every_distance(q: Tensor, d: Tensor, ql: Tensor, dl: Tensor, **options: Any) -> Tensor:
    """Distances (Q, G) in float64, NaN as inf."""
    found = scav_kernels.dtw(q.double(), d.double(), ql, dl, **options)
    return found.nan_to_num(nan=torch.inf, posinf=torch.inf)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    n=st.integers(1, 40),
    m=st.integers(1, 40),
    dim=st.sampled_from([1, 2, 3, 8, 16]),
    items=st.integers(series._MIN_ITEMS, 90),
    share=st.floats(0, 1),
    band=st.sampled_from([None, 0, 1, 4, 30]),
    cost=st.sampled_from(COSTS),
    are=st.sampled_from("xy"),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    kind=st.sampled_from(["walks", "noise"]),
    spoilt=st.booleans(),
)
def test_finds_what_exhaustive_search_finds(
    seed: int,
    n: int,
    m: int,
    dim: int,
    items: int,
    share: float,
    band: int | None,
    cost: str,
    are: str,
    dtype: torch.dtype,
    kind: str,
    spoilt: bool,
) -> None:
    q, ql = make_series(5, n, dim, seed, kind)
    d, dl = make_series(items, m, dim, seed + 1, kind)
    # Duplicates, which are equally far, and near ones, which rounding could order.
    d[items // 2 :] = d[: items - items // 2].clone() + 1e-6 * (seed % 2)
    dl[items // 2 :] = dl[: items - items // 2].clone()
    q, d = q.to(dtype), d.to(dtype)
    if spoilt:
        d[[1, items - 1], 0, 0] = torch.nan
        d[2, 0, 0] = torch.inf
        q[4, 0, 0] = torch.nan
    k = max(1, round(share * items))
    asked: dict[str, Any] = {"metric": "dtw", "queries_are": are, "cost": cost, "band": band}
    pruned, whole = (topk(q, d, k, ql, dl, prune=prune, **asked) for prune in ("auto", "none"))
    assert torch.equal(pruned.indices, whole.indices)
    assert torch.equal(pruned.distances, whole.distances)
    ties = pruned.distances[:, 1:] == pruned.distances[:, :-1]
    assert (pruned.distances[:, 1:] >= pruned.distances[:, :-1]).all()
    assert (pruned.indices.diff(dim=1)[ties] > 0).all()
    every = every_distance(q, d, ql, dl, cost=cost, band=band)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        whole.distances.double(), every.sort(dim=1).values[:, :k], rtol=tolerance, atol=tolerance
    )
    torch.testing.assert_close(whole.distances.double(), every.gather(1, whole.indices), rtol=tolerance, atol=tolerance)
    for found in (pruned, whole):
        assert found.report.pairs == 5 * items == found.report.removed + found.report.scored


@pytest.mark.parametrize("dim", [1, 3, 8, 64])
@pytest.mark.parametrize("band", [None, 3])
def test_any_number_of_features(dim: int, band: int | None) -> None:
    q, ql = make_series(4, 30, dim, 0)
    d, dl = make_series(60, 26, dim, 1)
    d = torch.cat([d, d[:10]])
    dl = torch.cat([dl, dl[:10]])
    for dtype in (torch.float32, torch.float64):
        for cost in (*COSTS, "cosine"):
            options: dict[str, Any] = {"metric": "dtw", "band": band, "cost": cost}
            pruned, whole = (
                topk(q.to(dtype), d.to(dtype), 7, ql, dl, prune=prune, **options) for prune in ("auto", "none")
            )
            assert torch.equal(pruned.indices, whole.indices)
            assert torch.equal(pruned.distances, whole.distances)
            expected = every_distance(q, d, ql, dl, cost=cost, band=band).sort(dim=1, stable=True)
            torch.testing.assert_close(pruned.distances.double(), expected.values[:, :7], rtol=1e-4, atol=1e-5)
            names = [stage.name for stage in pruned.report.stages]
            assert ("LB_Keogh" in names[0]) == (dim < 64 and cost != "cosine")


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    n=st.integers(1, 30),
    m=st.integers(1, 30),
    dim=st.sampled_from([1, 3, 20]),
    band=st.sampled_from([None, 0, 1, 5, 40]),
    cost=st.sampled_from(COSTS),
    kind=st.sampled_from(["walks", "noise"]),
)
def test_keogh_is_at_most_dtw(seed: int, n: int, m: int, dim: int, band: int | None, cost: str, kind: str) -> None:
    x, xl = make_series(3, n, dim, seed, kind)
    y, yl = make_series(20, m, dim, seed + 1, kind)
    bounds = keogh_bounds(x, y, xl, yl, cost, band)
    distances = scav_kernels.dtw(x, y, xl, yl, cost=cost, band=band)
    assert (bounds <= distances * (1 + 1e-12)).all()
    assert (bounds >= 0).all()


def box_bound(x: Tensor, y: Tensor, cost: str, band: int | None) -> float:
    """Return the sum of the costs of x (n, D) from the boxes of the steps of y (m, D) that its steps may meet."""
    n, m = len(x), len(y)
    radius = n + m if band is None else band
    total = 0.0
    for s in range(n):
        met = y[max(0, s - radius - max(n - m, 0)) : s + radius + max(m - n, 0) + 1]
        outside = (x[s] - met.amax(0)).maximum(met.amin(0) - x[s]).clamp(min=0)
        total += float(outside.square().sum() if cost == "sqeuclidean" else outside.norm())
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3])
@pytest.mark.parametrize("cost", COSTS)
def test_keogh_is_the_sum_of_costs_from_boxes(dtype: torch.dtype, dim: int, cost: str) -> None:
    """Series of equal lengths: a panel of several lengths takes the widest of its boxes."""
    x, _ = make_series(3, 13, dim, 0)
    for m in (9, 13, 21):
        y, _ = make_series(35, m, dim, 1)
        y[3] += 1000.0
        y[4, 0, 0] = torch.nan
        for band in (None, 0, 1, 4):
            found = keogh_bounds(x.to(dtype), y.to(dtype), None, None, cost, band)
            for i in range(3):
                for j in (0, 3, 16, 34):
                    expected = max(box_bound(x[i], y[j], cost, band), box_bound(y[j], x[i], cost, band))
                    assert math.isclose(found[i, j], expected, rel_tol=1e-5, abs_tol=1e-5)
            assert found[:, 4].isnan().all()
    assert (found > 0).float().mean() > 0.5


def test_pairs_are_pruned_and_left_early() -> None:
    d, _ = make_series(600, 128, 1, 0)
    q = d[:20] + 0.05 * make_series(20, 128, 1, 1, "noise")[0]
    found = topk(q.float(), d.float(), 1, metric="dtw", band=13)
    assert found.indices[:, 0].tolist() == list(range(20))
    report = found.report
    assert [stage.name for stage in report.stages] == list(series._STAGES)
    assert report.removed > 0.9 * report.pairs
    assert all(stage.removed > 0 for stage in report.stages), report
    assert report.scored + report.removed == report.pairs
    # Of other walks, none is near, and bounds say less.
    q, _ = make_series(20, 128, 1, 2)
    report = topk(q.float(), d.float(), 1, metric="dtw", band=13).report
    assert report.removed > 0.8 * report.pairs
    assert report.abandoned > 0.1 * report.scored


def test_bounds_of_noise_are_dropped() -> None:
    q, _ = make_series(30, 64, 1, 0, "noise")
    d, _ = make_series(800, 64, 1, 1, "noise")
    report = topk(q.float(), d.float(), 1, metric="dtw").report
    assert 0 < report.stages[0].seen < 0.9 * report.pairs
    assert report.scored > 0.8 * report.pairs


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("queries", [1, 2, 40])
def test_queries_and_items_are_divided_over_threads_and_calls(
    threads: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, ql = make_series(queries, 20, 2, 0)
    d, dl = make_series(200, 22, 2, 1)
    d[100:] = d[:100].clone()
    dl[100:] = dl[:100].clone()
    expected = every_distance(q, d, ql, dl, band=4).sort(dim=1, stable=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for numbers in (1 << 21, 44 * 33, 1):
            monkeypatch.setattr(series, "_BLOCK_NUMBERS", numbers)
            found = topk(q, d, 9, ql, dl, metric="dtw", band=4)
            assert torch.equal(found.indices, expected.indices[:, :9])
            torch.testing.assert_close(found.distances, expected.values[:, :9])
    finally:
        torch.set_num_threads(before)


def test_limits_and_a_distance_equal_to_the_limit() -> None:
    q, _ = make_series(4, 40, 1, 0)
    d, _ = make_series(300, 40, 1, 1)
    free = topk(q, d, 5, metric="dtw", band=4)
    for place in range(5):
        found = topk(q, d, 5, metric="dtw", band=4, limits=free.distances[:, place].contiguous())
        assert torch.equal(found.indices[:, : place + 1], free.indices[:, : place + 1])
        assert (found.indices[:, place + 1 :] == -1).all()
    nothing = topk(q, d, 5, metric="dtw", band=4, limits=free.distances[:, 0] - 1)
    assert (nothing.indices == -1).all()
    assert nothing.report.removed > 0


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e18, 1e25])
def test_extreme_series(scale: float) -> None:
    q, ql = make_series(3, 30, 1, 0)
    d, dl = make_series(70, 30, 1, 1)
    for cost in COSTS:
        pruned, whole = (
            topk((q * scale).float(), (d * scale).float(), 6, ql, dl, metric="dtw", cost=cost, band=3, prune=prune)
            for prune in ("auto", "none")
        )
        assert torch.equal(pruned.indices, whole.indices)
        assert torch.equal(pruned.distances, whole.distances)


def test_a_distance_does_not_depend_on_its_company() -> None:
    q, ql = make_series(2, 30, 3, 0)
    d, dl = make_series(70, 30, 3, 1)
    q, d = q.float(), d.float()
    every = topk(q, d, 70, ql, dl, metric="dtw", band=5)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(0))
    again = topk(q.flip(0), d[order], 70, ql.flip(0), dl[order], metric="dtw", band=5, prune="none")
    assert torch.equal(again.distances.flip(0), every.distances)


@pytest.mark.parametrize(
    "options",
    [
        {"step_penalty": 0.5},
        {"diagonal_weight": 0.4},
        {"open_begin": True, "open_end": True},
        {"normalize": "steps"},
        {"normalize": "path"},
    ],
    ids=str,
)
def test_options_that_keogh_does_not_know(options: Any) -> None:
    q, _ = make_series(3, 12, 1, 0)
    d, _ = make_series(40, 12, 1, 1)
    every = scav_kernels.dtw(q, d, band=4, **options)
    found = topk(q, d, 4, metric="dtw", band=4, **options)
    assert torch.equal(found.indices, every.topk(4, largest=False).indices)
    assert not any("Keogh" in stage.name for stage in found.report.stages)
    assert bool(found.report.exhaustive) == (options.get("normalize") == "path")


def test_few_items_and_long_series_are_searched_by_cells_of_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    q, _ = make_series(2, 12, 1, 0)
    d, _ = make_series(40, 12, 1, 1)
    of_series = topk(q, d, 4, metric="dtw")
    monkeypatch.setattr(series, "_MIN_ITEMS", 41)
    otherwise = topk(q, d, 4, metric="dtw")
    assert otherwise.report.stages[0].name != of_series.report.stages[0].name
    assert torch.equal(otherwise.indices, of_series.indices)
    torch.testing.assert_close(otherwise.distances, of_series.distances)


def test_known_answer() -> None:
    """The reference is the oracle of the distances that the search returns."""
    q, ql = make_series(2, 9, 2, 0)
    d, dl = make_series(33, 9, 2, 1)
    found = topk(q, d, 33, ql, dl, metric="dtw", band=2)
    expected = reference_dtw(q, d, ql, dl, band=2)
    torch.testing.assert_close(found.distances, expected.gather(1, found.indices))


def test_refuses_what_it_cannot_bound() -> None:
    x = torch.randn(2, 3, 4)
    one = torch.tensor([3, 3])
    nothing = torch.full((2, 1), torch.inf), torch.full((2, 1), -1)
    with pytest.raises(ValueError, match="expected cost 'euclidean' or 'sqeuclidean', got 'cosine'"):
        keogh_bounds(x, x, None, None, "cosine", None)
    with pytest.raises(ValueError, match="band"):
        keogh_bounds(x, x, None, None, "euclidean", -1)
    with pytest.raises(ValueError, match="rounding above 0"):
        nearest_series(x, x, one, one, "euclidean", None, 0, 0.0, True, *nothing)
    with pytest.raises(ValueError, match=r"distances and items \(2, k\)"):
        nearest_series(x, x, one, one, "euclidean", None, 0, 1e-5, True, nothing[0][:1], nothing[1])
    with pytest.raises(TypeError, match="items int64"):
        nearest_series(x, x, one, one, "euclidean", None, 0, 1e-5, True, nothing[0], nothing[0])
