"""`alignment`: distances and alignments of pairs, in one call."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import Alignment, alignment, reference
from scav_kernels.ops import costs
from scav_kernels.reference.ground_cost import ground_cost

from .cases import Case
from .inputs import Sequences, Shape, sequences
from .tolerances import ALIGNMENT, assert_within, floor

CASES = [
    Case("dtw", "dtw"),
    Case("dtw-sqeuclidean-band-2", "dtw", {"cost": "sqeuclidean", "band": 2}),
    Case("dtw-cosine", "dtw", {"cost": "cosine"}),
    Case("soft_dtw", "soft_dtw"),
    Case("soft_dtw-euclidean-band-1", "soft_dtw", {"gamma": 0.1, "cost": "euclidean", "band": 1}),
    Case("soft_dtw-cosine", "soft_dtw", {"gamma": 0.1, "cost": "cosine"}),
    Case("sinkhorn", "sinkhorn", {"epsilon": 0.5, "max_iterations": 2000, "tolerance": 1e-13}),
    Case("sinkhorn-cosine", "sinkhorn", {"epsilon": 0.2, "cost": "cosine", "tolerance": 0.0}),
]
CORE = [CASES[0], CASES[3], CASES[6]]
SHAPES = [Shape(5, 5, 6, 9), Shape(1, 1, 1, 1), Shape(3, 3, 33, 17, 1), Shape(18, 18, 9, 7, 16)]


def align(case: Case, given: Sequences) -> Alignment:
    return alignment(*given, metric=case.metric, **case.options)


def pairs(given: Sequences) -> list[tuple[Tensor, Tensor]]:
    return [(x[:n], y[:m]) for x, y, n, m in zip(*given, strict=True)]


def of_one_pair(case: Case, x: Tensor, y: Tensor) -> Tensor:
    """(n, m), by the function that looks at one pair."""
    if case.metric == "dtw":
        weights = torch.zeros(len(x), len(y), dtype=x.dtype)
        weights[tuple(scav_kernels.dtw_path(x, y, **case.options).T)] = 1
        return weights
    look = {"soft_dtw": scav_kernels.soft_dtw_alignment, "sinkhorn": scav_kernels.sinkhorn_plan}[case.metric]
    return look(x, y, **case.options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_distances_and_the_alignment_of_each_pair(case: Case, shape: Shape, dtype: torch.dtype) -> None:
    given = sequences(shape, dtype)
    padded = given.map(lambda x: x.clone())
    for side, lengths in ((padded.x, padded.x_lengths), (padded.y, padded.y_lengths)):
        side[torch.arange(side.shape[1]) >= lengths[:, None]] = torch.nan
    found = align(case, padded)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.distance.dtype == found.weights.dtype == wide
    assert torch.equal(found.distance, case.kernel(*given, paired=True))
    assert found.weights.shape == (shape.b1, shape.n, shape.m)
    for weights, (x, y) in zip(found.weights, pairs(given), strict=True):
        assert_within(
            "weights", weights[: len(x), : len(y)], of_one_pair(case, x, y).to(wide), floor(wide, 40, 40), wide
        )
        assert not weights[len(x) :].any()
        assert not weights[:, len(y) :].any()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_weights_are_the_derivative_in_the_costs(case: Case) -> None:
    given = sequences(Shape(4, 4, 7, 6), torch.float64)
    options = {name: value for name, value in case.options.items() if name != "cost"}
    found = align(case, given)
    for weights, (x, y) in zip(found.weights, pairs(given), strict=True):
        cost = ground_cost(x, y, case.all_options()["cost"]).requires_grad_()
        value = getattr(reference, f"{case.metric}_from_cost")(cost, **options)
        (expected,) = torch.autograd.grad(value, cost)
        assert_within("weights", weights[: len(x), : len(y)], expected, 1e-9, torch.float64)


def test_what_the_weights_sum_to() -> None:
    given = sequences(Shape(6, 6, 40, 30))
    path = alignment(*given).weights
    assert ((path == 0) | (path == 1)).all()
    likely = alignment(*given, metric="soft_dtw", gamma=1e-3).weights
    ends = likely[torch.arange(6), given.x_lengths - 1, given.y_lengths - 1]
    for end in (likely[:, 0, 0], ends):
        assert_within("start and end", end, torch.ones(6), ALIGNMENT, torch.float32)
    plan = alignment(*given, metric="sinkhorn", epsilon=0.5).weights
    columns = (torch.arange(30) < given.y_lengths[:, None]) / given.y_lengths[:, None]
    assert_within("columns", plan.sum(1), columns, 1e-5, torch.float32)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_no_gradient(case: Case) -> None:
    given = sequences(Shape(3, 3))
    found = align(case, given.leaves())
    assert not found.distance.requires_grad
    assert not found.weights.requires_grad
    for first, second in zip(found, align(case, given), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_costs_are_held_for_a_few_pairs_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(Shape(7, 7, 6, 9))
    expected, largest = align(case, given), []

    def measured(*arguments: Any) -> Tensor:
        largest.append(len(cost := ground_cost_of(*arguments)))
        return cost

    ground_cost_of = costs.ground_cost
    monkeypatch.setattr(costs, "_COST_BYTES", 3 * 6 * 9 * 8)
    monkeypatch.setattr(costs, "ground_cost", measured)
    found = align(case, given)
    assert torch.equal(found.distance, expected.distance)
    assert_within("weights", found.weights, expected.weights, floor(torch.float32, 9, 20), torch.float32)
    assert case.metric == "dtw" or largest == [3, 3, 1]


@pytest.mark.parametrize("case", CORE, ids=str)
def test_a_batch_of_none(case: Case) -> None:
    found = align(case, Sequences(torch.zeros(0, 6, 4), torch.zeros(0, 5, 4), None, None))
    assert found.distance.shape == (0,)
    assert found.weights.shape == (0, 6, 5)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_nonfinite_steps_reach_their_own_pair(case: Case) -> None:
    given = sequences(Shape(4, 4, 6, 5))._replace(x_lengths=torch.tensor([6, 4, 6, 6]), y_lengths=None)
    clean, x = align(case, given), given.x.clone()
    x[1, 2, 0], x[2, 3, 1] = torch.nan, torch.inf
    found = align(case, given._replace(x=x))
    assert found.distance[1].isnan()
    assert found.weights[1, :4].isnan().all()
    assert not found.weights[1, 4:].any()
    assert found.distance[2] == torch.inf
    assert not found.weights[2].any()
    for first, second in zip(found, clean, strict=True):
        assert torch.equal(first[[0, 3]], second[[0, 3]])


@pytest.mark.parametrize("case", CORE, ids=str)
def test_vmap(case: Case) -> None:
    given = sequences(Shape(6, 6))
    together = align(case, given)
    entries = [part.unflatten(0, (3, 2)) for part in given]
    mapped = torch.vmap(lambda *part: tuple(align(case, Sequences(*part))))(*entries)
    for found, expected in zip(mapped, together, strict=True):
        torch.testing.assert_close(found.flatten(0, 1), expected)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_compile(case: Case) -> None:
    compiled: Callable[..., Any] = torch.compile(align, fullgraph=True, backend="aot_eager")
    given = sequences(Shape(3, 3))
    for found, expected in zip(compiled(case, given), align(case, given), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("case", [*CORE, Case("cosine", "soft_dtw", {"cost": "cosine"})], ids=str)
def test_autocast(case: Case) -> None:
    given = sequences(Shape(3, 3), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = align(case, given._replace(y=given.y.float()))
    for value, expected in zip(found, align(case, given.map(Tensor.float)), strict=True):
        torch.testing.assert_close(value, expected)


def test_one_warning_of_pairs_that_do_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_COST_BYTES", 1)
    given = sequences(Shape(4, 4, 6, 5, ragged=False))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alignment(*given, metric="sinkhorn", epsilon=0.01, max_iterations=1)
    assert [str(warning.message)[:25] for warning in caught] == ["sinkhorn: 4 of 4 pairs st"]


@pytest.mark.parametrize(
    ("change", "exception", "fragments"),
    [
        (
            {"metric": "interpolated_euclidean"},
            ValueError,
            ["'dtw', 'sinkhorn', 'soft_dtw'", "'interpolated_euclidean'"],
        ),
        ({"metric": "sinkhorn_divergence"}, ValueError, ["with an alignment", "'sinkhorn_divergence'"]),
        ({"metric": "dwt"}, ValueError, ["did you mean 'dtw'?"]),
        ({"gamma": 1.0}, TypeError, ["'dtw'", "'gamma'"]),
        ({"metric": "sinkhorn", "return_convergence": True}, TypeError, ["pairwise_distance", "'return_convergence'"]),
        ({"band": -1}, ValueError, ["dtw: expected band >= 0", "-1"]),
        ({"metric": "soft_dtw", "gamma": 0.0}, ValueError, ["soft_dtw: expected gamma > 0"]),
        ({"metric": "sinkhorn", "epsilon": "1"}, TypeError, ["sinkhorn: expected epsilon", "'1'"]),
        (
            {"x_lengths": torch.tensor([6, 7, 6])},
            ValueError,
            ["dtw: expected x_lengths between 1 and 6", "7 at index 1"],
        ),
        ({"y": torch.zeros(2, 5, 4)}, ValueError, ["dtw: paired distances need batches of one size", "3 and 2"]),
        ({"x": [torch.zeros(2, 4)]}, TypeError, ["dtw: expected x", "scav_kernels.pad(x)"]),
    ],
)
def test_bad_input(change: dict[str, Any], exception: type[Exception], fragments: list[str]) -> None:
    given = {**sequences(Shape(3, 3))._asdict(), **change}
    with pytest.raises(exception) as caught:
        alignment(given.pop("x"), given.pop("y"), **given)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_weights_of_steps() -> None:
    given = sequences(Shape(3, 3))
    weights = {"x_weights": given.x[..., 0].exp(), "y_weights": given.y[..., 0].exp()}
    options: dict[str, Any] = {"epsilon": 1.0, "max_iterations": 500, "tolerance": 1e-6}
    found = alignment(*given, metric="sinkhorn", **options, **weights)
    assert given.x_lengths is not None
    assert given.y_lengths is not None
    for pair, (n, m) in enumerate(zip(given.x_lengths.tolist(), given.y_lengths.tolist(), strict=True)):
        expected = scav_kernels.sinkhorn_plan(
            given.x[pair, :n],
            given.y[pair, :m],
            x_weights=weights["x_weights"][pair, :n],
            y_weights=weights["y_weights"][pair, :m],
            **options,
        )
        torch.testing.assert_close(found.weights[pair, :n, :m], expected)
