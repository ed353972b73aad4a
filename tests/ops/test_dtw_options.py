"""The step penalty, the diagonal weight, open ends and the divisors of DTW, and the open ends of soft-DTW."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_kernels.reference.dtw import dtw_path_of_cost
from scav_kernels.reference.ground_cost import ground_cost

from .test_topk import clips

# Options under which sums of whole numbers are exact.
OPTIONS: list[dict[str, Any]] = [
    {"open_begin": True},
    {"open_end": True},
    {"open_begin": True, "open_end": True},
    {"step_penalty": 0.5},
    {"diagonal_weight": 2.0},
    {"diagonal_weight": 0.5, "step_penalty": 0.25, "open_begin": True, "open_end": True},
    {"open_begin": True, "open_end": True, "band": 3},
    {"diagonal_weight": 2.0, "band": 1},
]
PATHS = ["step_penalty", "diagonal_weight", "open_begin", "open_end", "band"]
BOTH = {"open_begin": True, "open_end": True}
every = pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))


def whole(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Whole numbers in [0, 4), so that many paths tie."""
    return torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_gradient(distance: Any, *given: Tensor, **options: Any) -> tuple[Tensor, ...]:
    leaves = [x.detach().clone().requires_grad_() for x in given]
    value = distance(*leaves, **options)
    grad = torch.arange(1, value.numel() + 1, dtype=value.dtype).reshape(value.shape)
    return value.detach(), *torch.autograd.grad(value, leaves, grad)


# ---- against the reference, where all is exact ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 16), (17, 1), (15, 33), (33, 16), (65, 33)])
@every
def test_given_costs(options: dict[str, Any], n: int, m: int, dtype: torch.dtype) -> None:
    """One pair goes along its anti-diagonals, if it is long; six go side by side."""
    for b1, b2 in ((1, 1), (2, 3)):
        cost = whole(b1, b2, n, m, dtype=dtype) - (1 if n == 15 else 0)
        expected = with_gradient(reference.dtw_from_cost, cost, **options)
        for found, part in zip(with_gradient(scav_kernels.dtw_from_cost, cost, **options), expected, strict=True):
            assert torch.equal(found, part)


@pytest.mark.parametrize("d", [1, 12])
@pytest.mark.parametrize(("b1", "b2", "n", "m"), [(3, 6, 9, 11), (1, 1, 33, 40), (5, 17, 4, 5)])
@every
def test_sequences(options: dict[str, Any], b1: int, b2: int, n: int, m: int, d: int) -> None:
    """Costs of one feature are differences that the recursion computes; those of twelve are products."""
    x, y = whole(b1, n, d), whole(b2, m, d, seed=1)
    lengths = torch.tensor([n, *([max(1, n - 2)] * (b1 - 1))]), torch.tensor([m, *([max(1, m - 3)] * (b2 - 1))])
    options = {"cost": "sqeuclidean", **options}

    def distance(of: Any) -> Any:
        return lambda x, y: of(x, y, *lengths, **options)

    expected = with_gradient(distance(reference.dtw), x, y)
    for found, part in zip(with_gradient(distance(scav_kernels.dtw), x, y), expected, strict=True):
        assert torch.equal(found, part)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("normalize", ["path", "steps"])
@every
def test_divisors(options: dict[str, Any], normalize: str, paired: bool) -> None:
    x, y = whole(5, 7, 2), whole(5, 9, 2, seed=1)
    lengths = torch.tensor([7, 1, 5, 6, 7]), torch.tensor([9, 9, 1, 2, 8])
    options = {"cost": "sqeuclidean", "normalize": normalize, **options}

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        if paired:
            return scav_kernels.pairwise_distance(x, y, *lengths, metric="dtw", **options)
        return scav_kernels.dtw(x, y, *lengths, **options)

    expected = with_gradient(lambda x, y: reference.dtw(x, y, *lengths, **options, paired=paired), x, y)
    for found, part in zip(with_gradient(kernel, x, y), expected, strict=True):
        torch.testing.assert_close(found, part, rtol=1e-14, atol=1e-14)
    # Where no path is saved, the cells are counted all the same.
    torch.testing.assert_close(kernel(x, y), expected[0], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("side", ["begin", "end", "both"])
@pytest.mark.parametrize("band", [None, 2])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 17), (16, 1), (15, 17), (33, 40)])
def test_soft_dtw(n: int, m: int, band: int | None, side: str) -> None:
    options = {"open_begin": side != "end", "open_end": side != "begin", "band": band, "gamma": 0.3}
    for b1, b2 in ((1, 1), (2, 2)):
        cost = torch.rand(b1, b2, n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        expected = with_gradient(reference.soft_dtw_from_cost, cost, **options)
        for found, part in zip(with_gradient(scav_kernels.soft_dtw_from_cost, cost, **options), expected, strict=True):
            torch.testing.assert_close(found, part, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("m", [33, 700])
@every
def test_long_pairs_together_and_alone(options: dict[str, Any], m: int, metric: str) -> None:
    """Together, paths come back over several checkpoints; alone, over several strips."""
    if metric == "soft_dtw":
        options = {name: value for name, value in options.items() if name in ("open_begin", "open_end", "band")}
    cost = whole(1, 17, 150, m)
    distance = getattr(scav_kernels, f"{metric}_from_cost")
    value, gradient = with_gradient(distance, cost, **options)
    for pair in range(0, 17, 8):
        alone, its_gradient = with_gradient(distance, cost[:, pair : pair + 1], **options)
        torch.testing.assert_close(alone[0, 0], value[0, pair], rtol=1e-12, atol=0)
        torch.testing.assert_close((pair + 1) * its_gradient[0, 0], gradient[0, pair], rtol=1e-7, atol=1e-9)


# ---- what the options mean ----


def parts_of(cost: Tensor, begin: bool, end: bool) -> list[Tensor]:
    m = cost.shape[1]
    return [cost[:, a : b + 1] for a in range(m if begin else 1) for b in range(a if end else m - 1, m)]


@pytest.mark.parametrize(("begin", "end"), [(True, True), (True, False), (False, True)])
def test_open_ends_choose_the_nearest_part_of_y(begin: bool, end: bool) -> None:
    cost = torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    open_ends = {"open_begin": begin, "open_end": end}
    for options in ({}, {"step_penalty": 0.2}, {"diagonal_weight": 1.7}):
        parts = [scav_kernels.dtw_from_cost(part, **options) for part in parts_of(cost, begin, end)]
        torch.testing.assert_close(scav_kernels.dtw_from_cost(cost, **options, **open_ends), torch.stack(parts).min())
    parts = [scav_kernels.soft_dtw_from_cost(part, gamma=0.1) for part in parts_of(cost, begin, end)]
    softmin = -0.1 * torch.logsumexp(-torch.stack(parts) / 0.1, 0)
    torch.testing.assert_close(scav_kernels.soft_dtw_from_cost(cost, gamma=0.1, **open_ends), softmin)


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("band", [None, 4])
def test_open_ends_are_never_farther(metric: str, band: int | None) -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(7, 20, 5, generator=generator), torch.randn(9, 31, 5, generator=generator)
    closed = scav_kernels.cdist(x, y, metric=metric, band=band)
    begin, end, both = (
        scav_kernels.cdist(x, y, metric=metric, band=band, open_begin=begin, open_end=end)
        for begin, end in ((True, False), (False, True), (True, True))
    )
    slack = 1e-4
    assert (begin <= closed + slack).all()
    assert (end <= closed + slack).all()
    assert (both <= torch.minimum(begin, end) + slack).all()
    assert (both < closed).any()


def test_a_part_of_y_is_found_where_it_is() -> None:
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    x = y[20:30]
    assert scav_kernels.dtw(x[None], y[None], **BOTH).item() == 0
    assert scav_kernels.dtw_path(x, y, **BOTH).tolist() == [[s, 20 + s] for s in range(10)]
    assert scav_kernels.dtw_path(x, y, open_end=True)[0].tolist() == [0, 0]
    assert scav_kernels.dtw_path(x, y, open_begin=True)[-1].tolist() == [9, 49]
    alignment = scav_kernels.soft_dtw_alignment(x, y, gamma=1e-3, **BOTH)
    torch.testing.assert_close(alignment[:, 20:30], torch.eye(10), rtol=0, atol=1e-3)


def test_of_equal_ends_the_first_counts_and_of_equal_starts_the_last() -> None:
    zero = torch.zeros(2, 5)
    for x in (torch.zeros(1, 1), torch.zeros(2, 1)):
        path = scav_kernels.dtw_path(x, torch.zeros(5, 1), **BOTH)
        assert path[-1].tolist() == [len(x) - 1, 0]
        assert path[0].tolist() == [0, 0]
    _, gradient = with_gradient(scav_kernels.dtw_from_cost, zero, **BOTH)
    assert gradient.tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    # Before a step of cost 0, a path that starts anew is no longer.
    assert scav_kernels.dtw_path(torch.zeros(1, 1), torch.zeros(4, 1), open_begin=True).tolist() == [[0, 3]]


def test_a_negative_cost_is_worth_a_longer_path() -> None:
    cost = torch.tensor([[-1.0, -2.0, 3.0], [4.0, 1.0, 1.0]])
    value, gradient = with_gradient(scav_kernels.dtw_from_cost, cost, **BOTH)
    assert value.item() == -2
    assert gradient.tolist() == [[1, 1, 0], [0, 1, 0]]


def test_symmetric2_gives_every_path_one_weight() -> None:
    for n, m in ((1, 1), (1, 7), (5, 2), (40, 33)):
        assert scav_kernels.dtw_from_cost(torch.ones(n, m), diagonal_weight=2.0).item() == n + m - 1


def test_a_penalty_is_paid_for_every_step_in_one_sequence() -> None:
    for n, m in ((1, 1), (1, 7), (5, 2), (40, 33)):
        assert scav_kernels.dtw_from_cost(torch.zeros(n, m), step_penalty=0.5).item() == 0.5 * abs(n - m)


@pytest.mark.parametrize("m", [4, 40])
def test_a_forbidden_cell_stays_forbidden_at_every_weight(m: int) -> None:
    cost = torch.ones(m, m)
    cost[1] = torch.inf
    for options in ({"diagonal_weight": 0.01}, {"diagonal_weight": 100.0}, BOTH, {"step_penalty": 3.0}):
        for normalize in (None, "path", "steps"):
            value, gradient = with_gradient(scav_kernels.dtw_from_cost, cost, normalize=normalize, **options)
            assert value.item() == math.inf
            assert not gradient.any()
    value, gradient = with_gradient(scav_kernels.soft_dtw_from_cost, cost, **BOTH)
    assert value.item() == math.inf
    assert not gradient.any()
    # A way round it: the last rows of y's end are cut off.
    cost[1, 0] = 1
    assert scav_kernels.dtw_from_cost(cost, **BOTH).item() == m


def schema_arguments(op: torch._ops.OpOverload, *given: Tensor, **options: Any) -> tuple[Any, ...]:
    """In the schema's order; whatever a backward pass needs is saved."""
    defaults = {"cost": "euclidean", "band": None, "step_penalty": 0.0, "diagonal_weight": 1.0, "open_begin": False}
    defaults |= {"open_end": False, "normalize": None, "gamma": 0.5, "paired": False, "save_path": True}
    values = {**defaults, "x_lengths": None, "y_lengths": None, **options}
    names = [argument.name for argument in op._schema.arguments]
    return *given, *(values[name] for name in names[len(given) :])


@pytest.mark.parametrize("options", [*OPTIONS[2:6], {"normalize": "path"}], ids=str)
def test_opcheck(options: dict[str, Any]) -> None:
    x, y = torch.randn(3, 5, 4, requires_grad=True), torch.randn(2, 6, 4, requires_grad=True)
    cost = torch.rand(3, 2, 5, 6, requires_grad=True)
    for op, given in ((torch.ops.scav.dtw.default, (x, y)), (torch.ops.scav.dtw_from_cost.default, (cost,))):
        torch.library.opcheck(op, schema_arguments(op, *given, **options))
    if options == BOTH:
        op = torch.ops.scav.soft_dtw.default
        torch.library.opcheck(op, schema_arguments(op, x, y, **options))


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("dtw", {**BOTH, "step_penalty": 0.1, "normalize": "path"}),
        ("dtw", {"diagonal_weight": 2.0}),
        ("soft_dtw", BOTH),
    ],
)
def test_transforms(metric: str, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(4)
    x, y = torch.randn(3, 2, 6, 4, generator=generator), torch.randn(3, 2, 8, 4, generator=generator)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return getattr(scav_kernels, metric)(x, y, **options)

    def total(x: Tensor, y: Tensor) -> Tensor:
        return distance(x, y).square().sum()

    torch.testing.assert_close(torch.vmap(distance)(x, y), torch.stack([distance(x[i], y[i]) for i in range(3)]))
    expected = torch.stack([torch.func.grad(total)(x[i], y[i]) for i in range(3)])
    torch.testing.assert_close(torch.vmap(torch.func.grad(total))(x, y), expected)
    compiled = torch.compile(distance, fullgraph=True, backend="aot_eager")
    leaf = x[0].clone().requires_grad_()
    torch.testing.assert_close(compiled(leaf, y[0]), distance(x[0], y[0]))
    (gradient,) = torch.autograd.grad(compiled(leaf, y[0]).square().sum(), leaf)
    torch.testing.assert_close(gradient, expected[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@every
def test_half_precision_is_read_exactly(options: dict[str, Any], dtype: torch.dtype) -> None:
    x, y = whole(3, 7, 12, dtype=dtype), whole(4, 9, 12, dtype=dtype, seed=1)
    found = scav_kernels.dtw(x, y, cost="sqeuclidean", **options)
    assert torch.equal(found, scav_kernels.dtw(x.float(), y.float(), cost="sqeuclidean", **options))


@every
def test_paths(options: dict[str, Any]) -> None:
    for n, m, d in ((1, 1, 1), (5, 9, 1), (40, 33, 12), (33, 90, 2)):
        x, y = whole(n, d), whole(m, d, seed=1)
        kept = {name: value for name, value in options.items() if name in PATHS}
        found = scav_kernels.dtw_path(x, y, cost="sqeuclidean", **kept)
        assert torch.equal(found, dtw_path_of_cost(ground_cost(x, y, "sqeuclidean"), **{"band": None, **kept}))


# ---- the functions around the distance ----


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        ("dtw", {"open_end": True}),
        ("dtw", {"open_begin": True}),
        ("dtw", {"normalize": "path"}),
        ("dtw", {"normalize": "steps", "step_penalty": 1.0}),
        ("soft_dtw", {"open_end": True}),
        ("soft_dtw_divergence", {"open_begin": True}),
    ],
)
def test_a_batch_with_itself(metric: str, options: dict[str, Any]) -> None:
    x = whole(40, 5, 2, dtype=torch.float64)
    expected = scav_kernels.cdist(x, x, metric=metric, **options)
    torch.testing.assert_close(scav_kernels.cdist(x, metric=metric, **options), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("queries_are", ["x", "y"])
@pytest.mark.parametrize("options", [*OPTIONS[:6], {"normalize": "path"}, {"normalize": "steps"}], ids=str)
def test_search_finds_the_nearest(options: dict[str, Any], queries_are: str) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, items = torch.randn(3, 6, 40, generator=generator), torch.randn(60, 9, 40, generator=generator)
    items += 3 * torch.randn(60, 1, 40, generator=generator)
    found = scav_kernels.topk(queries, items, 4, metric="dtw", queries_are=queries_are, **options)
    pairs = (queries, items) if queries_are == "x" else (items, queries)
    distances = scav_kernels.dtw(*pairs, **options)
    expected, order = (distances if queries_are == "x" else distances.T).topk(4, largest=False)
    torch.testing.assert_close(found.distances, expected)
    assert torch.equal(found.indices, order)
    assert bool(found.report.exhaustive) == (options.get("normalize") == "path")


def test_search_divided_by_the_steps_prunes_as_without() -> None:
    steps, _ = clips(240, 30, 64, 0)
    plain, divided = (
        scav_kernels.topk(steps[::12], steps, 3, metric="dtw", normalize=normalize) for normalize in (None, "steps")
    )
    assert torch.equal(plain.indices, divided.indices)
    assert plain.report == divided.report
    assert divided.report.removed > 0.9 * divided.report.pairs


def test_the_loss_divides_by_the_steps_once() -> None:
    assert scav_kernels.nn.SequenceContrastiveLoss("dtw").per_step
    assert not scav_kernels.nn.SequenceContrastiveLoss("dtw", normalize="path").per_step
