"""Exact search: the nearest of brute force, whatever is pruned."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import scav_kernels
from scav_kernels import SearchIndex, topk
from scav_kernels.ops import registry

METRICS: list[tuple[str, dict[str, Any]]] = [
    ("interpolated_euclidean", {}),
    ("interpolated_euclidean", {"squared": True}),
    ("interpolated_euclidean", {"resample": "y"}),
    ("interpolated_euclidean", {"resample": "shorter"}),
    ("interpolated_euclidean", {"resample": "shorter", "squared": True}),
    ("dtw", {}),
    ("dtw", {"cost": "sqeuclidean", "band": 1}),
    ("dtw", {"cost": "cosine"}),
    ("sinkhorn", {}),
    ("sinkhorn", {"max_iterations": 2, "tolerance": 0.0}),
    ("sinkhorn", {"cost": "sqeuclidean", "epsilon": 0.5}),
    ("sinkhorn", {"cost": "cosine"}),
    ("chamfer", {}),
    ("chamfer", {"direction": "y", "cost": "sqeuclidean"}),
    ("chamfer", {"direction": "both", "cost": "cosine"}),
    ("interpolated_cosine", {}),
    ("soft_dtw", {}),
    ("soft_dtw_divergence", {}),
    ("sinkhorn_divergence", {}),
]
PRUNED = ("interpolated_euclidean", "dtw", "sinkhorn", "chamfer")
named = pytest.mark.parametrize(("metric", "options"), METRICS, ids=[f"{m}-{o}" for m, o in METRICS])


def clips(count: int, steps: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Smooth sequences near few directions, as trained ones are, and their lengths."""
    generator = torch.Generator().manual_seed(seed)
    walk = torch.randn(count, steps, min(dim, 5), generator=generator).cumsum(1)
    mixed = walk @ torch.randn(min(dim, 5), dim, generator=torch.Generator().manual_seed(7))
    noisy = mixed + 0.05 * torch.randn(count, steps, dim, generator=generator)
    lengths = torch.randint(max(1, steps // 2), steps + 1, (count,), generator=generator)
    return noisy / dim, lengths


def brute_force(q: Tensor, d: Tensor, ql: Tensor, dl: Tensor, are: str, **options: Any) -> Tensor:
    """All distances (Q, G), each pair computed alone."""
    rows = []
    for i in range(len(q)):
        row = []
        for j in range(len(d)):
            own, item = q[i : i + 1, : ql[i]], d[j : j + 1, : dl[j]]
            x, y = (own, item) if are == "x" else (item, own)
            row.append(scav_kernels.pairwise_distance(x, y, **options))
        rows.append(torch.cat(row))
    return torch.stack(rows)


@named
@pytest.mark.parametrize("are", ["x", "y"])
def test_finds_what_brute_force_finds(metric: str, options: dict[str, Any], are: str) -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(70, 11, 48, seed=1)
    d, dl = torch.cat([d, d[:30]]), torch.cat([dl, dl[:30]])
    every = brute_force(q, d, ql, dl, are, metric=metric, **options)
    expected = every.sort(dim=1, stable=True)
    for prune in ("auto", "none"):
        found = topk(q, d, 12, ql, dl, metric=metric, queries_are=are, prune=prune, **options)
        assert torch.equal(found.indices, expected.indices[:, :12])
        torch.testing.assert_close(found.distances, expected.values[:, :12], rtol=1e-5, atol=1e-6)
        report = found.report
        assert report.pairs == 4 * 100 == report.removed + report.scored
        assert (report.exhaustive is None) == (prune == "auto" and metric in PRUNED)
        assert bool(report.stages) == (report.exhaustive is None)


@pytest.mark.parametrize("metric", PRUNED)
def test_a_metric_without_a_search_method_is_searched_exhaustively(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, ql = clips(3, 9, 48, seed=0)
    d, dl = clips(60, 11, 48, seed=1)
    expected = topk(q, d, 7, ql, dl, metric=metric)
    monkeypatch.setitem(registry.METRICS, metric, registry.METRICS[metric]._replace(search=None))
    monkeypatch.setattr("scav_kernels.search.exhaustive._BLOCK_PAIRS", 100)
    found = topk(q, SearchIndex(d, dl), 7, ql, metric=metric)
    assert torch.equal(found.indices, expected.indices)
    torch.testing.assert_close(found.distances, expected.distances, rtol=1e-6, atol=0)
    assert found.report.exhaustive == f"{metric} has no lower bound that holds"
    assert found.report.scored == 180
    assert topk(q[:0], d, 7, metric=metric).indices.shape == (0, 7)
    with pytest.raises(ValueError, match="which its lower bounds choose"):
        topk(q, d, 5, metric=metric, candidates=8)


def test_what_each_metric_can_be_asked() -> None:
    able = {name for name, metric in registry.METRICS.items() if metric.has_bounds}
    assert able == {"interpolated_euclidean", "dtw", "sinkhorn", "chamfer"}
    assert [name for name, metric in registry.METRICS.items() if metric.takes_candidates] == ["interpolated_euclidean"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 7),
    m=st.integers(1, 40),
    dim=st.integers(1, 90),
    items=st.integers(1, 60),
    share=st.floats(0, 1),
    choice=st.sampled_from([*METRICS[:6], *(choice for choice in METRICS if choice[0] == "chamfer")]),
    are=st.sampled_from("xy"),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_pruning_changes_nothing(
    seed: int,
    n: int,
    m: int,
    dim: int,
    items: int,
    share: float,
    choice: tuple[str, dict[str, Any]],
    are: str,
    dtype: torch.dtype,
) -> None:
    metric, options = choice
    q, ql = clips(3, n, dim, seed)
    d, dl = clips(items, m, dim, seed + 1)
    # Near duplicates, some of them equal.
    d[items // 2 :] = d[: items - items // 2].clone() + 1e-6 * (seed % 2)
    dl[items // 2 :] = dl[: items - items // 2].clone()
    k = max(1, round(share * items))
    q, d = q.to(dtype), d.to(dtype)
    pruned, whole = (
        topk(q, d, k, ql, dl, metric=metric, queries_are=are, prune=p, **options) for p in ("auto", "none")
    )
    assert torch.equal(pruned.indices, whole.indices)
    assert torch.equal(pruned.distances, whole.distances)
    ties = pruned.distances[:, 1:] == pruned.distances[:, :-1]
    assert (pruned.distances.diff(dim=1) >= 0).all()
    assert (pruned.indices.diff(dim=1)[ties] > 0).all()
    every = brute_force(q, d, ql, dl, are, metric=metric, **options)
    scale = every.abs().max().item()
    torch.testing.assert_close(pruned.distances, every.sort(dim=1).values[:, :k], rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("held", [1, 64, 1000])
def test_blocks_may_end_anywhere(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    q, ql = clips(5, 9, 40, seed=2)
    d, dl = clips(150, 12, 40, seed=3)
    expected = topk(q, d, 7, ql, dl)
    monkeypatch.setattr("scav_kernels.search.interpolated_euclidean._BLOCK_PAIRS", held)
    monkeypatch.setattr("scav_kernels.search.topk._BLOCK_QUERIES", 2)
    monkeypatch.setattr("scav_kernels.search.index._BLOCK_NUMBERS", 37 * d[0].numel())
    for prune in ("auto", "none"):
        found = topk(q, d, 7, ql, dl, prune=prune)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)
        assert found.report.pairs == found.report.removed + found.report.scored


@pytest.mark.parametrize("metric", PRUNED)
def test_an_index_serves_again_and_padding_counts_for_nothing(metric: str) -> None:
    q, ql = clips(3, 9, 80, seed=4)
    d, dl = clips(60, 12, 80, seed=5)
    expected = topk(q, d, 5, ql, dl, metric=metric)
    spoilt_q, spoilt_d = q.clone(), d.clone()
    spoilt_q[torch.arange(9) >= ql[:, None]] = torch.nan
    spoilt_d[torch.arange(12) >= dl[:, None]] = torch.inf
    index = SearchIndex(spoilt_d, dl)
    for _ in range(2):
        found = topk(spoilt_q, index, 5, ql, metric=metric)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


@pytest.mark.parametrize("metric", [*PRUNED, "soft_dtw"])
def test_nan_is_infinitely_far(metric: str) -> None:
    q, _ = clips(3, 6, 70, seed=6)
    d, _ = clips(20, 8, 70, seed=7)
    d[[1, 4, 11], 3, 2] = torch.nan
    q[2, 0, 0] = torch.nan
    for prune in ("auto", "none"):
        found = topk(q, d, 20, metric=metric, prune=prune)
        assert found.indices[:2, -3:].tolist() == [[1, 4, 11]] * 2
        assert found.distances[:2, -3:].isinf().all()
        assert found.distances[:2, :-3].isfinite().all()
        assert found.indices[2].tolist() == list(range(20))
        assert found.distances[2].isinf().all()
        assert topk(q, d, 5, metric=metric, prune=prune).distances[:2].isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e18, 1e25])
def test_extreme_features(scale: float) -> None:
    q, ql = clips(3, 6, 70, seed=8)
    d, dl = clips(40, 8, 70, seed=9)
    for squared in (False, True):
        pruned, whole = (
            topk(q * scale, d * scale, 6, ql, dl, squared=squared, prune=prune) for prune in ("auto", "none")
        )
        assert torch.equal(pruned.indices, whole.indices)
        assert torch.equal(pruned.distances, whole.distances)


def test_a_distance_does_not_depend_on_its_company() -> None:
    q, ql = clips(2, 50, 512, seed=10)
    d, dl = clips(40, 62, 512, seed=11)
    every = topk(q, d, 40, ql, dl)
    for j in range(0, 40, 7):
        one = topk(q, d[j : j + 1], 1, ql, dl[j : j + 1])
        assert torch.equal(one.distances[:, 0], every.distances[every.indices == j])


def test_strides_and_memory_maps(tmp_path: Path) -> None:
    q, ql = clips(3, 6, 20, seed=12)
    d, dl = clips(30, 8, 20, seed=13)
    expected = topk(q, d, 4, ql, dl)
    path = tmp_path / "steps.bin"
    mapped = torch.from_file(str(path), shared=True, size=d.numel()).view(d.shape)
    mapped.copy_(d)
    wide = torch.empty(30, 16, 20)[:, ::2]
    wide.copy_(d)
    for held in (mapped, wide, d.mT.contiguous().mT):
        found = topk(q, held, 4, ql, dl)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


def test_bounds_remove_most_pairs_of_sequences_with_structure() -> None:
    d, dl = clips(400, 40, 64, seed=14)
    q, ql = d[:6] + 0.001, dl[:6]
    for metric, least in (("interpolated_euclidean", 0.9), ("dtw", 0.7), ("sinkhorn", 0.7), ("chamfer", 0.7)):
        found = topk(q, d, 3, ql, dl, metric=metric)
        assert found.indices[:, 0].tolist() == list(range(6))
        assert found.report.removed > least * found.report.pairs, f"{metric}: {found.report}"


def test_errors_come_before_any_work() -> None:
    q, d = torch.randn(2, 3, 4), torch.randn(5, 6, 4)
    for k in (0, -1, 6):
        with pytest.raises(ValueError, match="expected k from 1 to 5"):
            topk(q, d, k)
    for k in (True, 1.0, "1"):
        with pytest.raises(TypeError, match="expected k to be an int"):
            topk(q, d, k)
    with pytest.raises(ValueError, match="queries_are"):
        topk(q, d, 1, queries_are="query")
    with pytest.raises(ValueError, match="prune"):
        topk(q, d, 1, prune="all")
    with pytest.raises(ValueError, match="metric"):
        topk(q, d, 1, metric="hamming")
    with pytest.raises(TypeError, match="options"):
        topk(q, d, 1, gamma=1.0)
    with pytest.raises(TypeError, match="Tensor"):
        topk(q, d.numpy(), 1)
    with pytest.raises(ValueError, match="feature size"):
        topk(q, torch.randn(5, 6, 3), 1)
    with pytest.raises(TypeError, match="dtype"):
        topk(q, d.double(), 1)
    with pytest.raises(ValueError, match="query_lengths from 1 to 3"):
        topk(q, d, 1, torch.tensor([1, 4]))
    with pytest.raises(ValueError, match="lengths from 1 to 6"):
        topk(q, d, 1, None, torch.tensor([1, 2, 3, 0, 1]))
    with pytest.raises(ValueError, match="its own"):
        topk(q, SearchIndex(d), 1, None, torch.tensor([1, 2, 3, 1, 1]))
    with pytest.raises(ValueError, match="cost"):
        topk(q, d, 1, metric="dtw", cost="manhattan")
    with pytest.raises(ValueError, match="resample"):
        topk(q, d, 1, resample="z")


@named
def test_limits_leave_out_what_is_beyond_them(metric: str, options: dict[str, Any]) -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(70, 11, 48, seed=1)
    d, dl = torch.cat([d, d[:30]]), torch.cat([dl, dl[:30]])
    for prune in ("auto", "none"):
        free = topk(q, d, 20, ql, dl, metric=metric, prune=prune, **options)
        limits = torch.stack(
            [free.distances[0, 19], free.distances[1, 6], free.distances[2, 0] - 1, free.distances[3, 19]]
        )
        limits[3] = torch.inf
        found = topk(q, d, 20, ql, dl, metric=metric, prune=prune, limits=limits, **options)
        within = free.distances <= limits[:, None]
        assert torch.equal(found.distances, free.distances.masked_fill(~within, torch.inf))
        assert torch.equal(found.indices, free.indices.masked_fill(~within, -1))
        assert found.report.scored <= free.report.scored


@pytest.mark.parametrize("options", [{}, {"squared": True}, {"resample": "y"}, {"resample": "shorter"}])
@pytest.mark.parametrize("are", ["x", "y"])
def test_candidates_are_compared_and_no_others(options: dict[str, Any], are: str) -> None:
    q, ql = clips(5, 9, 48, seed=0)
    d, dl = clips(300, 11, 48, seed=1)
    # Without structure, of which bounds say little.
    torch.manual_seed(0)
    q, d = torch.randn_like(q), torch.randn_like(d)
    asked = {"query_lengths": ql, "queries_are": are, **options}
    index = SearchIndex(d, dl)
    exact = topk(q, index, 10, **asked)
    shares = []
    for candidates in (10, 20, 50, 300):
        found = topk(q, index, 10, candidates=candidates, **asked)
        report = found.report
        assert report.approximate
        assert "approximate" in str(report)
        assert report.pairs == report.removed + report.scored
        assert report.scored <= 5 * candidates
        assert (found.distances.diff(dim=1) >= 0).all()
        # What is found is as far as exact search says.
        both = found.indices[:, :, None] == exact.indices[:, None]
        rows, own, right = both.nonzero(as_tuple=True)
        assert torch.equal(found.distances[rows, own], exact.distances[rows, right])
        shares.append(len(rows) / exact.indices.numel())
    assert not exact.report.approximate
    assert torch.equal(found.indices, exact.indices)
    assert torch.equal(found.distances, exact.distances)
    assert shares == sorted(shares)
    assert shares[0] < 0.9


def test_candidates_within_limits_and_numbers_alone() -> None:
    q, d = torch.randn(2, 3, 4), torch.randn(20, 3, 4)
    d[5, 1, 1] = torch.nan
    exact = topk(q, d, 5)
    found = topk(q, d, 5, candidates=20, limits=exact.distances[:, 2].contiguous())
    assert torch.equal(found.indices[:, :3], exact.indices[:, :3])
    assert (found.indices[:, 3:] == -1).all()
    assert found.distances[:, 3:].isinf().all()
    every = topk(q, d, 20, candidates=20)
    assert (every.indices == 5).sum() == 0
    assert (every.indices[:, -1] == -1).all()


def test_bad_candidates() -> None:
    q, d = torch.randn(2, 3, 4), torch.randn(20, 3, 4)
    with pytest.raises(ValueError, match="at least as many candidates as k = 5, got 4"):
        topk(q, d, 5, candidates=4)
    with pytest.raises(TypeError, match="expected candidates to be an int"):
        topk(q, d, 5, candidates=8.0)  # type: ignore[arg-type]
    for other in ({"metric": "dtw"}, {"prune": "none"}):
        with pytest.raises(ValueError, match="which its lower bounds choose"):
            topk(q, d, 5, candidates=8, **other)  # type: ignore[arg-type]


def test_bad_limits() -> None:
    q, d = torch.randn(2, 3, 4), torch.randn(5, 3, 4)
    for limits in (torch.ones(3), torch.ones(2, dtype=torch.float64), torch.ones(2, 1)):
        with pytest.raises(ValueError, match=r"expected limits of shape \(2,\), torch.float32 on cpu, .* got"):
            topk(q, d, 1, limits=limits)
    with pytest.raises(ValueError, match="expected limits to be numbers, got NaN"):
        topk(q, d, 1, limits=torch.tensor([1.0, torch.nan]))


def test_no_queries() -> None:
    found = topk(torch.randn(0, 3, 4), torch.randn(5, 6, 4), 2)
    assert found.distances.shape == found.indices.shape == (0, 2)
    assert found.report.pairs == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_all_pairs() -> None:
    """A thousand queries and 40,000 items: their distances alone would take 153 MiB."""
    script = Path(__file__).with_name("topk_memory.py")
    found = subprocess.run([sys.executable, str(script), "1000", "40000"], check=True, capture_output=True, text=True)
    assert int(found.stdout) < 96 << 20


def near_duplicates(count: int, steps: int) -> Tensor:
    """Sequences whose differences bfloat16 cannot tell from their common mean."""
    spread = torch.randn(4, 64)
    return 3 * torch.arange(64).sin() + 1e-3 * torch.randn(count, steps, 4) @ spread


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize(
    ("metric", "options"),
    [("interpolated_euclidean", {}), ("chamfer", {}), ("dtw", {}), ("sinkhorn", {"epsilon": 1e-3})],
)
def test_autocast_changes_nothing(metric: Any, options: dict[str, Any], steps: int) -> None:
    torch.manual_seed(0)
    database, queries = near_duplicates(300, steps), near_duplicates(3, steps)
    index = SearchIndex(database)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = topk(queries, index, 3, metric=metric, **options)
    expected = topk(queries, database, 3, metric=metric, **options)
    # What the index keeps of the first search serves the next one.
    for found in (first, topk(queries, index, 3, metric=metric, **options)):
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)


@pytest.mark.parametrize("prune", ["auto", "none"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e25])
def test_a_step_that_resampling_skips_counts_if_it_is_not_finite(value: float, prune: str) -> None:
    torch.manual_seed(0)
    short, long = torch.randn(2, 1, 4), torch.randn(6, 5, 4)
    long[2, 0, 0] = value
    assert not scav_kernels.cdist(short, long, resample="y")[:, 2].isfinite().any()
    for index in (long, SearchIndex(long)):
        distances, indices = topk(short, index, 6, resample="y", prune=prune)
        assert indices[:, -1].tolist() == [2, 2]
        assert distances.isinf().tolist() == [[False] * 5 + [True]] * 2
    distances, _ = topk(long, short, 2, prune=prune)
    assert distances.isinf().tolist() == [[place == 2] * 2 for place in range(6)]


def test_errors_name_the_arguments_of_the_search() -> None:
    queries, database = torch.randn(3, 4, 5), torch.randn(9, 6, 5)
    whole = torch.tensor([4, 4, 4])
    for query_lengths, database_lengths, error, message in (
        (whole.int(), None, TypeError, r"topk: expected query_lengths of dtype int64, .* query_lengths\.long\(\)"),
        (whole[:2], None, ValueError, r"topk: expected query_lengths of shape \(3,\)"),
        (None, torch.ones(9), TypeError, "topk: expected database_lengths of dtype int64"),
        (None, whole, ValueError, r"topk: expected database_lengths of shape \(9,\)"),
    ):
        for queries_are in ("x", "y"):
            with pytest.raises(error, match=message):
                topk(queries, database, 1, query_lengths, database_lengths, queries_are=queries_are)
    with pytest.raises(ValueError, match=r"queries and database .* 5 and 3 \(shapes \(3, 4, 5\) and \(9, 6, 3\)\)"):
        topk(queries, database[..., :3], 1)
    with pytest.raises(TypeError, match="queries and database of one dtype"):
        topk(queries.double(), database, 1)
