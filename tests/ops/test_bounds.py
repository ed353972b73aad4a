"""Lower bounds of a search: below what they bound, above nothing that rounding could excuse, and not vacuous."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import scav_kernels
from scav_kernels import SearchIndex
from scav_kernels.ops.registry import METRICS
from scav_kernels.reference.interpolated_euclidean import interpolated_euclidean
from scav_kernels.search import dtw, kernels, sinkhorn
from scav_kernels.search.cascade import CascadeSearch
from scav_kernels.search.interpolated_euclidean import AlignedSearch
from scav_kernels.search.kernels import (
    aligned_bounds,
    aligned_nearest,
    aligned_survivors,
    all_pairs_interpolated_euclidean,
    largest_norms,
    listed_interpolated_euclidean,
    segment_means,
    to_panels,
)
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.summaries import (
    DENSE,
    LISTED,
    coarser_means,
    principal_directions,
    project,
    project_rotated,
    ragged_segment_means,
    rotate,
)

from .test_topk import clips

seeds = st.integers(0, 2**20)


def means_of(steps: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """Bounds between whole sequences (B, n, D) of one length."""
    return segment_means(
        steps, torch.full((len(steps),), steps.shape[1]), torch.arange(len(steps)), target, segments, squared
    )


def sequences(trained: bool, count: int, steps: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random steps, or steps like a trained model's."""
    made, lengths = clips(count, steps, dim, seed)
    if not trained:
        made = torch.randn(made.shape, generator=torch.Generator().manual_seed(seed))
    return made, lengths


def request_for(metric: str, q: Tensor, ql: Tensor, d: Tensor, dl: Tensor, are: str, **options: Any) -> SearchRequest:
    every = {**METRICS[metric].defaults(), **options}
    return SearchRequest(q, ql, SearchIndex(d, dl), METRICS[metric], every, are)


@settings(max_examples=40, deadline=None)
@given(
    seed=seeds,
    trained=st.booleans(),
    n=st.integers(1, 20),
    m=st.integers(1, 40),
    segments=st.sampled_from([1, 2, 4, 7, 16, 64]),
    rank=st.sampled_from([2, 5, 16]),
    squared=st.booleans(),
)
def test_segment_means_bound_interpolated_euclidean(
    seed: int, trained: bool, n: int, m: int, segments: int, rank: int, squared: bool
) -> None:
    x, y = (sequences(trained, 1, steps, 24, seed + i)[0].double() for i, steps in enumerate((n, m)))
    directions = principal_directions(y[0], rank - 1)
    distance = interpolated_euclidean(x, y, squared=squared)[0, 0]
    before = torch.zeros(())
    for parts in (segments, 2 * segments):
        a, b = (means_of(steps, m, min(parts, m), squared) for steps in (x, y))
        whole = (a - b).norm(dim=2)
        few = (project(a, directions) - project(b, directions)).norm(dim=2)
        bounds = [(s.square() if squared else s).sum() for s in (few, whole)]
        assert bounds[0] <= bounds[1] + 1e-12 <= distance + 2e-12
        # The second partition refines the first, so its bound is no lower.
        assert bounds[1] >= before - 1e-12
        before = bounds[1]
    if segments >= m:
        torch.testing.assert_close(bounds[1], distance)


@settings(max_examples=20, deadline=None)
@given(seed=seeds, steps=st.integers(1, 9), rank=st.sampled_from([2, 8, 20]), dim=st.sampled_from([12, 64]))
def test_turned_steps_keep_every_length(seed: int, steps: int, rank: int, dim: int) -> None:
    x, lengths = sequences(True, 3, steps, dim, seed)
    x = x.double().masked_fill((torch.arange(steps) >= lengths[:, None])[..., None], 0)
    directions = principal_directions(torch.randn(50, dim, generator=torch.Generator().manual_seed(seed)), 20)
    rows = rotate(x, directions)
    means = segment_means(x, lengths, torch.arange(3), 10, 4, False)
    if rows.shape[2] < dim:
        found = project_rotated(segment_means(rows, lengths, torch.arange(3), 10, 4, False), rank)
        torch.testing.assert_close(found, project(means, directions[: rank - 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("squared", [False, True])
def test_segment_means_are_means_of_resampled_steps(dtype: torch.dtype, squared: bool) -> None:
    x, lengths = clips(6, 21, 37, seed=0)
    x = x.to(dtype)
    chosen = torch.tensor([5, 0, 3, 3])
    # Padding is not read.
    poisoned = x.masked_fill((torch.arange(21) >= lengths[:, None])[..., None], torch.nan)
    for target, segments in ((1, 1), (9, 4), (9, 9), (40, 16), (40, 32)):
        found = segment_means(poisoned, lengths, chosen, target, segments, squared)
        for row, i in zip(found, chosen.tolist(), strict=True):
            steps = x[i : i + 1, : lengths[i]].to(found.dtype)
            made = functional.interpolate(steps.mT, size=target, mode="linear", align_corners=False)[0].T
            for s, mean in enumerate(row):
                part = made[target * s // segments : target * (s + 1) // segments]
                share = len(part) / target
                torch.testing.assert_close(mean, part.mean(0) * (share**0.5 if squared else share))
        whole = x.to(found.dtype).masked_fill((torch.arange(21) >= lengths[:, None])[..., None], 0)
        dense = ragged_segment_means(whole[chosen], lengths[chosen], target, segments, squared)
        torch.testing.assert_close(found, dense)
        for fewer in (1, 4, 16):
            coarse = coarser_means(found, target, fewer, squared)
            again = segment_means(poisoned, lengths, chosen, target, min(fewer, segments), squared)
            if segments % fewer == 0 or segments in (target, 1) or fewer >= segments:
                torch.testing.assert_close(coarse, again)


def test_largest_norms() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        x, lengths = clips(5, 8, 37, seed=0)
        x = (100 * x).to(dtype)
        expected = torch.stack(
            [row[:n].to(torch.float64).norm(dim=1).amax() for row, n in zip(x, lengths, strict=True)]
        )
        x[torch.arange(8) >= lengths[:, None]] = torch.nan
        x[1, 0, 3], x[2, lengths[2] - 1, 36] = torch.nan, -torch.inf
        expected[1:3] = torch.inf
        found = largest_norms(x, lengths)
        torch.testing.assert_close(found, expected.to(found.dtype))
        # Of any strides.
        torch.testing.assert_close(largest_norms(x.mT.contiguous().mT, lengths), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_selected_pairs_have_the_distances_of_the_op(dtype: torch.dtype) -> None:
    # More rows than a block has, and panels that are not full.
    x, xl = clips(150, 9, 37, seed=0)
    y, yl = clips(130, 11, 37, seed=1)
    x, y = 100 * x, 100 * y
    for i, j in ((0, 1), (7, 4)):
        y[j, :9], xl[i], yl[j] = x[i], 9, 9  # steps that are equal
    y[2, 0, 5] = torch.nan
    x, y = x.to(dtype), y.to(dtype)
    for target, resample in ((11, "x"), (9, "y"), (1, "x")):
        lengths = (xl, yl.clone()) if resample == "x" else (xl.clone(), yl)
        other = lengths[1] if resample == "x" else lengths[0]
        chosen = (other == target).nonzero().flatten()
        if target == 1:
            chosen, other[:2] = torch.arange(2), 1
        every = torch.arange(len(x) if resample == "x" else len(y)).flip(0)
        pairs = (every, chosen) if resample == "x" else (chosen, every)
        for squared in (False, True):
            expected = scav_kernels.interpolated_euclidean(x, y, *lengths, squared=squared, resample=resample)
            found = all_pairs_interpolated_euclidean(x, y, *lengths, *pairs, target, squared)
            if target == 9:
                assert expected[0, 1] == expected[7, 4] == 0
            torch.testing.assert_close(found, expected[pairs[0]][:, pairs[1]], equal_nan=True, rtol=2e-5, atol=1e-5)
    assert all_pairs_interpolated_euclidean(x, y, xl, yl, every[:0], chosen, 3, False).shape == (0, len(chosen))
    with pytest.raises(ValueError, match="at least one step"):
        all_pairs_interpolated_euclidean(x, y, xl, yl, every, chosen, 0, False)


def test_survivors_are_those_below_all_bounds() -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        levels = []
        for steps, rank in ((1, 5), (4, 3), (16, 2)):
            x, y = (torch.randn(count, steps, rank, dtype=dtype, generator=generator) for count in (7, 37))
            levels.append((x / steps, y / steps))
        levels[1][1][5] = torch.nan
        panels = [to_panels(y) for _, y in levels]
        skip = torch.zeros(7, panels[0].shape[0] * panels[0].shape[3], dtype=torch.bool)
        skip[:, 37:] = True
        skip[2, 3] = skip[6, 36] = True
        sums = torch.stack([(x[:, None] - y).norm(dim=3).sum(2) for x, y in levels])
        for limit in (torch.inf, 1.9, 1.0, 0.0):
            limits = torch.linspace(0.9, 1.1, 7, dtype=dtype) * limit
            alive, removed = ~skip[:, :37], []
            for level in sums:
                above = alive & (level > limits[:, None])
                removed.append(int(above.sum()))
                alive &= ~above
            found = aligned_survivors([x for x, _ in levels], panels, limits, skip, False)
            assert found[3].tolist() == removed
            order = (100 * found[0] + found[1]).argsort()
            rows, places = alive.nonzero(as_tuple=True)
            assert torch.equal(found[0][order], rows)
            assert torch.equal(found[1][order], places)
            largest = sums.nan_to_num(nan=-torch.inf).amax(0)[rows, places]
            torch.testing.assert_close(found[2][order], largest)
            assert 0 <= len(rows) < 7 * 37
        assert not sums.isfinite().all()
    with pytest.raises(ValueError, match="as many x as panels"):
        aligned_survivors([], [], limits, skip, False)
    with pytest.raises(ValueError, match="expected skip"):
        aligned_survivors([x for x, _ in levels], panels, limits, skip[:, 1:], False)


@settings(max_examples=20, deadline=None)
@given(
    seed=seeds,
    trained=st.booleans(),
    are=st.sampled_from("xy"),
    cost=st.sampled_from(["euclidean", "sqeuclidean", "cosine"]),
)
@pytest.mark.parametrize("metric", ["dtw", "sinkhorn"])
def test_bounds_of_warped_and_transported(metric: str, seed: int, trained: bool, are: str, cost: str) -> None:
    q, ql = sequences(trained, 2, 7, 48, seed)
    d, dl = sequences(trained, 9, 12, 48, seed + 1)
    choices: list[dict[str, Any]] = [
        {"band": 3},
        {"open_begin": True, "open_end": True, "step_penalty": 0.5},
        {"diagonal_weight": 2.0, "normalize": "steps"},
        {"diagonal_weight": 0.3, "open_end": True},
    ]
    options = choices[seed % 4] if metric == "dtw" else {"max_iterations": seed % 4 + 1, "tolerance": 0.0}
    request = request_for(metric, q, ql, d, dl, are, cost=cost, **options)
    if metric == "sinkhorn":
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.rand(steps.shape[:2], generator=generator) for steps in (q, d)]
        # Half of the steps have none, the first ones some, so that no sequence is without.
        weights = [(2 * of - 1).clamp_min(0).index_fill(1, torch.tensor([0]), 0.5) for of in weights]
        request.query_weights = weights[0] if seed % 3 else None
        request.item_weights = weights[1] if seed % 3 != 1 else None
    search = CascadeSearch({"dtw": dtw, "sinkhorn": sinkhorn}[metric].CASCADE, request, True, SearchReport())
    items = torch.arange(9)
    for i in range(2):
        distances = request.pair_distances(torch.full((9,), i), items, torch.zeros(9))
        allowed = search.rounding(torch.full((9,), i), items)
        fast = request.all_pairs(torch.tensor([i]), items)[0]
        unreachable = distances.isinf()
        assert ((fast - distances).abs() <= allowed)[~unreachable].all()
        for bound in search.bounds:
            # All pairs at once, and as pairs.
            for some in (items, items[:1]):
                found = search.bound(bound, items, (torch.full_like(some, i), some))
                assert (found - allowed[some] <= distances[some]).all(), bound.name
                assert len(some) == 1 or (found > 0).any(), bound.name


def test_soft_minima_do_not_bound_transport_with_scaling() -> None:
    generator = torch.Generator().manual_seed(2541)
    x, y = (4 * torch.randn(1, 5, 2, generator=generator) for _ in range(2))
    # The distance to y is less than its soft minima, those to the moved copies of x are between the two.
    items = torch.cat([*(x + torch.tensor([3.9, 0.0]) for _ in range(20)), y])
    options = {"epsilon": 0.05, "max_iterations": 1, "tolerance": 0.0, "scaling": 0.5}
    assert scav_kernels.sinkhorn(x, items, **options).argmin() == 20
    found = scav_kernels.topk(x, items, 1, metric="sinkhorn", **options)
    assert found.indices.item() == 20
    assert found.report.exhaustive == "sinkhorn with scaling has no lower bound that holds"


def test_pooled_vectors_do_not_bound_transport_that_has_not_converged() -> None:
    x = torch.tensor([[[0.0], [0.0], [0.0], [10.0]]])
    y = torch.tensor([[[0.0], [10.0], [10.0], [10.0]]])
    pooled = (x.mean(1) - y.mean(1)).norm()
    # What moves between the ends does so by some epsilon an iteration.
    early = {"max_iterations": 5, "tolerance": 0.0}
    assert scav_kernels.sinkhorn(x, y, **early).item() < 0.2 * pooled
    converged = scav_kernels.sinkhorn(x, y, epsilon=1.0, max_iterations=10_000, tolerance=1e-6)
    assert converged.item() >= pooled
    # A search that took pooled vectors for a bound would answer with the last item, which they say is nearer.
    items = torch.cat([y, *(y - 4.0 for _ in range(20))])
    found = scav_kernels.topk(x, items.flip(0), 1, metric="sinkhorn", **early)
    assert scav_kernels.sinkhorn(x, items, **early).argmin() == 0
    assert found.indices.item() == len(items) - 1


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rounding_is_allowed_for_and_has_to_be(squared: bool, dtype: torch.dtype) -> None:
    """Sequences of equal steps: the bounds equal the distance, and rounding decides which is larger."""
    generator = torch.Generator().manual_seed(0)
    q, d = (torch.randn(count, 1, 512, generator=generator).to(dtype).expand(-1, 20, -1) for count in (20, 50))
    request = request_for(
        "interpolated_euclidean", q, torch.full((20,), 20), d, torch.full((50,), 20), "x", squared=squared
    )
    search = AlignedSearch(request, True, SearchReport())
    (section,) = search._sections()
    rows, places = torch.arange(20).repeat_interleave(50), torch.arange(50).repeat(20)
    limits = torch.full((1000,), torch.inf, dtype=request.index.dtype)
    distances = search._score(rows, places, limits).view(20, 50)
    reach = request.query_norms[:, None] + request.index.norms
    allowed = search._rounding(reach)
    exceeded = 0
    made = search.index.panels(section.first, section.end, section.target, squared)
    for level, panels in zip((*DENSE, LISTED), (*made.dense, to_panels(made.listed)), strict=True):
        sums = aligned_bounds(search._query_means(section, level), panels, limits[:20], squared)[:, :50]
        assert (sums - allowed <= distances).all()
        exceeded += int((sums > distances).sum())
    if dtype != torch.float64:
        # The bounds in fewer coordinates lose some of the distance; those of equal directions do not.
        x, y = q[:, :1].to(request.index.dtype), d[:, :1].to(request.index.dtype)
        whole = aligned_bounds(x, to_panels(y), limits[:20], squared)[:, :50]
        assert (whole > distances).any()
        assert (whole - allowed <= distances).all()
    assert (allowed < 0.01 * distances).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_nearest_by_a_bound(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for dtype in (torch.float32, torch.float64):
            x = torch.randn(7, 5, 3, dtype=dtype, generator=generator)
            y = torch.randn(150, 5, 3, dtype=dtype, generator=generator)
            y[100:110] = y[3]  # as far as each other
            x[5] = y[3]
            y[[0, 149]] = x[6]
            y[20] = torch.nan
            for squared in (False, True):
                sums = aligned_bounds(x, to_panels(y), torch.full((7,), torch.inf, dtype=dtype), squared)[:, :150]
                sums[:, 20] = torch.inf
                expected = sums.sort(dim=1, stable=True)
                # In two parts, in either order, of which the first ends within a panel.
                parts = [(0, y[:70]), (70, y[70:])]
                for k, order in itertools.product((1, 2, 9, 149, 200), (1, -1)):
                    bounds = torch.full((7, k), torch.inf, dtype=dtype)
                    items = torch.full((7, k), -1)
                    for first, part in parts[::order]:
                        bounds, items = aligned_nearest(x, to_panels(part), len(part), first, bounds, items, squared)
                    known = min(k, 149)
                    assert torch.equal(bounds[:, :known], expected.values[:, :known])
                    assert torch.equal(items[:, :known], expected.indices[:, :known])
                    assert (items[:, known:] == -1).all()
                    assert bounds[:, known:].isinf().all()
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="expected count from 0 to 160"):
        aligned_nearest(x, to_panels(y), 161, 0, bounds, items, False)
    with pytest.raises(ValueError, match="items int64"):
        aligned_nearest(x, to_panels(y), 150, 0, bounds, items.float(), False)


def test_aligned_bounds_may_stop_at_a_limit_and_nowhere_else() -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(7, 13, 5, dtype=dtype, generator=generator)
        y = torch.randn(37, 13, 5, dtype=dtype, generator=generator)
        apart = (x[:, None] - y).norm(dim=3)
        for squared in (False, True):
            terms = apart.square() if squared else apart
            expected = terms.sum(2)
            for limit in (torch.inf, expected.median().item(), 0.0):
                limits = torch.full((7,), limit, dtype=dtype)
                found = aligned_bounds(x, to_panels(y), limits, squared)[:, :37]
                assert (found <= expected * 1.00001).all()
                whole = (found - expected).abs() <= 1e-5 * expected
                assert (whole | (found > limit)).all()
            assert not whole.all()
            # One query's limit is not its neighbors'.
            limits = torch.tensor([torch.inf, torch.inf, torch.inf, 0.0] * 2, dtype=dtype)[:7]
            found = aligned_bounds(x, to_panels(y), limits, squared)[:, :37]
            unlimited = limits.isinf()
            torch.testing.assert_close(found[unlimited], expected[unlimited])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_gpus_ways_say_what_the_kernels_say(dtype: torch.dtype) -> None:
    """They are made of PyTorch's operations, which any device has."""
    x, xl = clips(7, 9, 37, seed=0)
    y, yl = clips(60, 11, 37, seed=1)
    x, y = (10 * x).to(dtype), (10 * y).to(dtype)
    chosen, every = torch.arange(20).flip(0), torch.arange(7)
    y[3, 0, 0] = torch.nan
    torch.testing.assert_close(kernels._largest_norms_on_cuda(y, yl), largest_norms(y, yl))
    y[3, 0, 0] = 0
    for squared in (False, True):
        given = (y, yl, chosen, 10, 4, squared)
        torch.testing.assert_close(kernels._segment_means_on_cuda(*given), segment_means(*given))
        i, j = torch.arange(7).repeat_interleave(60), torch.arange(60).repeat(7)
        pairs = (x, y, xl, yl, i, j, torch.full((420,), 1.0, dtype=largest_norms(y, yl).dtype), squared, "shorter")
        torch.testing.assert_close(kernels._listed_on_cuda(*pairs), listed_interpolated_euclidean(*pairs))
        for target in (1, 10):
            asked = (x, y, xl, yl, every, chosen, target, squared)
            found, expected = kernels._all_pairs_on_cuda(*asked), all_pairs_interpolated_euclidean(*asked)
            # Nothing is rounded that the kernels do not round: a bound would not allow for it.
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    if dtype.itemsize < 4:
        return
    levels = [(x[:, :steps], to_panels(y[:, :steps])) for steps in (1, 4)]
    nothing = x.new_full((7, 5), torch.inf), torch.full((7, 5), -1)
    given = (x[:, :4], to_panels(y[:, :4]), 60, 30)
    nearest, expected = (of(*given, *nothing, False) for of in (kernels._aligned_nearest_on_cuda, aligned_nearest))
    assert torch.equal(nearest[1], expected[1])
    torch.testing.assert_close(nearest[0], expected[0])
    skip = torch.zeros(7, 64, dtype=torch.bool)
    skip[:, 60:] = skip[2, 5] = True
    limits = (x[:, None, :4] - y[None, :, :4]).norm(dim=3).sum(2).quantile(0.5, dim=1)
    own, panels = map(list, zip(*levels, strict=True))
    found, expected = (
        of(own, panels, limits, skip, False) for of in (kernels._aligned_survivors_on_cuda, aligned_survivors)
    )
    assert 0 < len(found[0]) < 400
    assert torch.equal(found[3], expected[3])
    orders = [(100 * part[0] + part[1]).argsort() for part in (found, expected)]
    for part, other in zip(found[:3], expected[:3], strict=True):
        torch.testing.assert_close(part[orders[0]], other[orders[1]])


def test_listed_distances_are_those_of_the_op() -> None:
    x, xl = clips(5, 9, 37, seed=0)
    y, yl = clips(6, 11, 37, seed=1)
    i, j = torch.arange(5).repeat_interleave(6), torch.arange(6).repeat(5)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        a, b = x.to(dtype), y.to(dtype)
        for resample in ("x", "y", "shorter"):
            for squared in (False, True):
                expected = scav_kernels.interpolated_euclidean(a, b, xl, yl, squared=squared, resample=resample)
                limits = torch.full((30,), torch.inf, dtype=expected.dtype)
                found = listed_interpolated_euclidean(a, b, xl, yl, i, j, limits, squared, resample)
                torch.testing.assert_close(found.view(5, 6), expected)
                # Exactly: a distance equal to its limit is not abandoned, and no smaller one either.
                least = found.sort().values[10]
                again = listed_interpolated_euclidean(
                    a, b, xl, yl, i, j, torch.full_like(limits, least), squared, resample
                )
                assert torch.equal(again[found <= least], found[found <= least])
                assert again[found > least].isinf().all()


def test_listed_distances_refuse_indices_out_of_range() -> None:
    x, limits = torch.randn(2, 3, 4), torch.zeros(1)
    one, two = torch.tensor([1]), torch.tensor([2])
    for i, j in ((one, two), (two, one), (one, -one)):
        with pytest.raises(ValueError, match="from 0 to 1"):
            listed_interpolated_euclidean(x, x, None, None, i, j, limits, False, "x")


def test_summaries_refuse_what_no_sequence_is() -> None:
    x, one = torch.randn(3, 4, 5), torch.ones(3, dtype=torch.int64)
    first = one[:1]
    for steps, lengths, error, message in (
        (x[0], one, ValueError, "of shape"),
        (x.int(), one, TypeError, "of dtype"),
        (x, one[:2], ValueError, "one length per sequence"),
        (x, one - 1, ValueError, "between 1 and 4"),
    ):
        with pytest.raises(error, match=message):
            largest_norms(steps, lengths)
        with pytest.raises(error, match=message):
            segment_means(steps, lengths, first, 4, 2, False)
    for chosen, segments, message in ((3 * first, 2, "from 0 to 2"), (first, 5, "1 to 4 segments")):
        with pytest.raises(ValueError, match=message):
            segment_means(x, one, chosen, 4, segments, False)
