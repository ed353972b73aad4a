"""Steps of few features, whose costs come from their differences inside the recursion, or pass by pass."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

import scav_kernels

from .cases import OPS, Case, crossed
from .inputs import Sequences, Shape, answer, sequences
from .test_padding import poisoned
from .tolerances import assert_accurate

# The most features that are few for DTW, and half of them for stored costs; more are products.
MOST = 16
FLOATS = [torch.float32, torch.float64]
ALIGNED = [case for case in OPS if case.metric in ("dtw", "soft_dtw", "sinkhorn")]
DTW = [case for case in OPS if case.metric == "dtw"]
# Around the vectors of a recursion and the lanes of a vector.
LENGTHS = ((1, 65), (15, 16), (16, 17), (17, 15), (33, 4), (65, 33), (66, 1))
COUNTS = ((1, 1), (1, 5), (1, 17), (2, 2), (2, 17), (5, 1), (5, 5), (17, 1), (17, 2))


def assert_right(case: Case, shape: Shape, dtype: torch.dtype = torch.float32, paired: bool = False) -> None:
    # A cosine of one feature is 1 or -1, and has no gradient to compare.
    given = sequences(replace(shape, d=max(shape.d, 2)) if case.options.get("cost") == "cosine" else shape, dtype)
    oracle = answer(case.reference, given.map(Tensor.double), paired)
    plain = [oracle if dtype == torch.float64 else answer(case.reference, given, paired)]
    if given.x_lengths is not None:
        given = poisoned(given, torch.nan)
    assert_accurate(case, answer(case.kernel, given, paired), plain, oracle)


@pytest.mark.parametrize(("case", "size"), crossed(ALIGNED, list(product((1, 2, MOST // 2, MOST, MOST + 1), FLOATS))))
def test_dimensions(case: Case, size: tuple[int, torch.dtype]) -> None:
    d, dtype = size
    assert_right(case, Shape(b1=2, b2=17, n=5, m=6, d=d), dtype)


@pytest.mark.parametrize(("case", "size"), crossed(DTW, list(product(LENGTHS, (False, True)))))
def test_lengths(case: Case, size: tuple[tuple[int, int], bool]) -> None:
    (n, m), ragged = size
    assert_right(case, Shape(b1=2, b2=3, n=n, m=m, d=1 + n % 3, ragged=ragged))


@pytest.mark.parametrize(("case", "size"), crossed(DTW, COUNTS))
def test_counts(case: Case, size: tuple[int, int]) -> None:
    b1, b2 = size
    assert_right(case, Shape(b1=b1, b2=b2, n=4, m=6, d=1 + b1 % 2))


@pytest.mark.parametrize(("case", "size"), crossed(ALIGNED, list(product((1, 3), (1, 3, 16, 17, 35)))))
def test_paired(case: Case, size: tuple[int, int]) -> None:
    d, count = size
    assert_right(case, Shape(b1=count, b2=count, n=6, m=5, d=d), paired=True)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("case", [case for case in DTW if case.options.get("cost") != "cosine"], ids=str)
def test_ties(case: Case, dtype: torch.dtype, paired: bool) -> None:
    # Of whole numbers, so that sums are exact and many paths are optimal: gradients tell which was taken.
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(0, 2, (18, steps, 1), generator=generator).to(dtype) for steps in (9, 7))
    given = Sequences(x if paired else x[:3], y, None, None)
    found, expected = answer(case.kernel, given, paired), answer(case.reference, given, paired)
    for part in found._fields:
        torch.testing.assert_close(getattr(found, part), getattr(expected, part))


# A product rounds otherwise: this is how the test sees which way the costs were computed.
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_costs_of_one_feature_are_exact(dtype: torch.dtype, paired: bool) -> None:
    x, y, _, _ = sequences(Shape(b1=20, b2=20, n=1, m=1, d=1, ragged=False), dtype)
    difference = x[:, None, 0, 0] - y[None, :, 0, 0]
    difference = difference.diagonal() if paired else difference
    arguments = {"paired": paired} if paired else {}
    for cost, expected in (("euclidean", difference.abs()), ("sqeuclidean", difference.square())):
        distance = Case(cost, "dtw", {"cost": cost}).kernel(x, y, **arguments)
        assert torch.equal(distance, expected)


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("d", [1, 5, MOST])
@pytest.mark.parametrize("cost", ["euclidean", "sqeuclidean"])
def test_identical_sequences_are_at_distance_zero(cost: str, d: int, paired: bool) -> None:
    x = 1e3 + sequences(Shape(b1=19, b2=1, n=9, m=1, d=d, ragged=False)).x
    case = Case(cost, "dtw", {"cost": cost})
    distance = case.kernel(x, x, paired=True) if paired else case.kernel(x, x).diagonal()
    assert torch.equal(distance, torch.zeros(19))


def roots_of_squares(values: Tensor) -> Tensor:
    """Roots of the squares of values (B,), as costs of steps of two features."""
    x, y = torch.zeros(3, 1, 2, dtype=values.dtype), torch.zeros(len(values), 1, 2, dtype=values.dtype)
    y[:, 0, 1] = values
    distances = scav_kernels.dtw(x, y)
    assert torch.equal(distances, distances[:1].expand(3, -1))
    return distances[0]


# Squares from 2^-124 to 2^126: kernels take the roots of small ones in another way.
@pytest.mark.parametrize("exponent", [-62, -51, -50, -49, 0, 51])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_roots_of_whole_squares_are_exact(dtype: torch.dtype, exponent: int) -> None:
    values = torch.arange(4096, dtype=dtype) * 2.0**exponent
    assert torch.equal(roots_of_squares(values), values)


def test_roots_are_right_to_the_last_digit() -> None:
    values = sequences(Shape(b1=1, b2=1, n=100_000, m=1, d=1, ragged=False)).x.flatten().abs()
    exact = (values * values).double().sqrt()
    assert ((roots_of_squares(values) - exact).abs() <= 1.1 * 2**-24 * exact).all()


def test_roots_of_numbers_too_large_to_square_are_infinite() -> None:
    values = torch.tensor([1e19, 1e20, 3e38, 1.0]).repeat(9)
    assert torch.equal(roots_of_squares(values), values.where(values < 1e20, torch.inf))


def more_features(steps: Tensor) -> Tensor:
    """The same distances by products."""
    return torch.nn.functional.pad(steps, (0, MOST))


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("band", [None, 0, 5, 200])
def test_long_sequences_are_those_of_products(band: int | None, paired: bool) -> None:
    # Of whole numbers, whose sums are exact. A recursion keeps fewer cells than these at once.
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-9, 9, (17, steps, 1), generator=generator).float() for steps in (700, 900))
    lengths = [torch.randint(600, steps + 1, (17,), generator=generator) for steps in (700, 900)]
    case = Case("dtw", "dtw", {"cost": "sqeuclidean", "band": band})
    found = answer(case.kernel, Sequences(x, y, *lengths), paired)
    expected = answer(case.kernel, Sequences(more_features(x), more_features(y), *lengths), paired)
    assert torch.equal(found.value, expected.value)
    assert torch.equal(found.x_grad, expected.x_grad[..., :1])
    assert torch.equal(found.y_grad, expected.y_grad[..., :1])


def test_padding_is_not_read() -> None:
    given = sequences(Shape(b1=7, b2=33, n=21, m=18, d=1))
    finite, poison = poisoned(given, 0.0), poisoned(given, torch.nan)
    for metric in ("dtw", "soft_dtw"):
        distance = getattr(scav_kernels, metric)
        assert torch.equal(distance(*finite), distance(*poison))
