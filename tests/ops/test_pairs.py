"""Pairs of their own, x number i against y number i, at sizes around the lanes and panels of a recursion."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import scav_kernels

from .cases import CORE, OPS, Case, crossed
from .inputs import Shape, answer, sequences, weights
from .test_padding import padding, poisoned
from .tolerances import assert_accurate

COUNTS = (1, 15, 16, 17, 33, 65)
# Steps of x and of y, and whether their numbers differ between pairs. Few cells: the reference takes them one by one.
STEPS = ((1, 33, False), (17, 15, True), (33, 7, False), (16, 1, True), (65, 2, True), (3, 65, False))
# Few features, and products that end within a vector or with it.
FEATURES = (1, 7, 17, 64)


def assert_right(case: Case, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
    # A cosine of one feature is 1 or -1, and has no gradient to compare.
    given = sequences(replace(shape, d=max(shape.d, 2)) if case.options.get("cost") == "cosine" else shape, dtype)
    oracle = answer(case.reference, given.map(Tensor.double), paired=True)
    plain = [answer(formula, given, paired=True) for formula in (case.reference, case.plain)]
    if given.x_lengths is not None:
        given = poisoned(given, torch.nan)
    assert_accurate(case, answer(case.kernel, given, paired=True), plain, oracle)


@pytest.mark.parametrize(("case", "count"), crossed(OPS, COUNTS))
def test_counts(case: Case, count: int) -> None:
    dtype = (torch.float32, torch.float64)[count % 2]
    assert_right(case, Shape(b1=count, b2=count, n=5, m=6, d=FEATURES[count % 4]), dtype)


@pytest.mark.parametrize(("case", "steps"), crossed(OPS, STEPS))
def test_steps(case: Case, steps: tuple[int, int, bool]) -> None:
    n, m, ragged = steps
    assert_right(case, Shape(b1=18, b2=18, n=n, m=m, d=FEATURES[(n + ragged) % 4], ragged=ragged))


# More cells than are computed at once: their products take one, two or four panels of 16 steps of y.
@pytest.mark.parametrize("n", [260, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_long_pairs_are_those_among_all(metric: str, dtype: torch.dtype, n: int) -> None:
    given = sequences(Shape(b1=33, b2=33, n=n, m=150, d=20), dtype)
    own = answer(Case(metric, metric).kernel, given, paired=True)
    outer = weights(own.value).diag()
    x, y = given.x.clone().requires_grad_(), given.y.clone().requires_grad_()
    among_all = scav_kernels.cdist(x, y, given.x_lengths, given.y_lengths, metric=metric)
    of_x, of_y = torch.autograd.grad((among_all * outer).sum(), (x, y))
    torch.testing.assert_close(own.value, among_all.diagonal().detach())
    torch.testing.assert_close(own.x_grad, of_x)
    torch.testing.assert_close(own.y_grad, of_y)


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw"])
def test_large_gradients_are_zero_in_the_padding(metric: str) -> None:
    # Of more numbers than one thread zeroes at a time, in memory that held NaN before.
    given = sequences(Shape(b1=70, b2=70, n=64, m=64, d=128))
    assert given.x_lengths is not None
    torch.full((2 * given.x.numel(),), torch.nan)
    found = answer(Case(metric, metric).kernel, given, paired=True)
    for gradient, lengths in ((found.x_grad, given.x_lengths), (found.y_grad, given.y_lengths)):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert not gradient.masked_select(padding(gradient, lengths)).any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("d", [1, 64])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_a_pair_whose_squares_are_not_finite_is_alone(case: Case, d: int, bad: float) -> None:
    given = sequences(Shape(b1=20, b2=20, n=9, m=7, d=d, ragged=False))
    expected = answer(case.kernel, given, paired=True)
    given.y[17, 6, d - 1] = bad
    found = answer(case.kernel, given, paired=True)
    if case.metric != "interpolated_cosine":  # divides by norms, which are float64
        # Squares of 1e30 overflow.
        assert torch.isnan(found.value[17]) if bad != bad else found.value[17] == torch.inf
    others = torch.arange(20) != 17
    assert torch.equal(found.value[others], expected.value[others])
    for part in ("x_grad", "y_grad"):
        assert torch.equal(getattr(found, part)[others], getattr(expected, part)[others])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_nonfinite_step_between_interpolated_ones_counts(count: int, bad: float) -> None:
    # Resampling 65 steps to 2 reads rows 15, 16, 48 and 49.
    given = sequences(Shape(b1=count, b2=count, n=65, m=2, d=7, ragged=False))
    expected = scav_kernels.pairwise_distance(given.x, given.y, metric="interpolated_euclidean")
    given.x[count - 1, 3, 5] = bad
    found = scav_kernels.pairwise_distance(given.x, given.y, metric="interpolated_euclidean")
    assert torch.isnan(found[-1]) if bad != bad else found[-1] == torch.inf
    assert torch.equal(found[:-1], expected[:-1])
