"""Worlds whose distances are known without any of the recursions."""

import math

import pytest
import torch
from torch import Tensor

import scav_kernels

from .tolerances import assert_close

pytestmark = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def scalars(*values: float, dtype: torch.dtype) -> Tensor:
    """One sequence of one feature a step: (1, length, 1)."""
    return torch.tensor(values, dtype=dtype)[None, :, None]


def assert_value(actual: Tensor, *expected: float) -> None:
    assert_close("value", actual, torch.tensor(expected, dtype=actual.dtype).reshape(actual.shape))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("interpolated_euclidean", (5, 4)), ("dtw", (5, 4)), ("soft_dtw", (25, 16)), ("sinkhorn", (5, 4))],
)
def test_single_steps(metric: str, expected: tuple[float, float], dtype: torch.dtype) -> None:
    x, y = torch.tensor([[[0.0, 0.0]], [[3.0, 0.0]]], dtype=dtype), torch.tensor([[[3.0, 4.0]]], dtype=dtype)
    assert_value(scav_kernels.cdist(x, y, metric=metric), *expected)


@pytest.mark.parametrize(("n", "m"), [(1, 9), (9, 1), (6, 6), (5, 17), (33, 4)])
def test_constant_sequences(n: int, m: int, dtype: torch.dtype) -> None:
    # At distance 5 from each other, at every step.
    x = torch.zeros(2, n, 2, dtype=dtype)
    y = torch.tensor([3.0, 4.0], dtype=dtype).expand(3, m, 2)
    assert_value(scav_kernels.interpolated_euclidean(x, y), *[5] * 6)
    assert_value(scav_kernels.interpolated_euclidean(x, y, squared=True), *[25] * 6)
    assert_value(scav_kernels.sinkhorn(x, y), *[5] * 6)
    assert_value(scav_kernels.dtw(x, y), *[5 * max(n, m)] * 6)
    assert_value(scav_kernels.soft_dtw(x, y, gamma=1e-3), *[25 * max(n, m) - 1e-3 * math.log(shortest_paths(n, m))] * 6)


def shortest_paths(n: int, m: int) -> int:
    """Return the number of paths of max(n, m) cells: those that leave the longer side's diagonal |n − m| times."""
    return math.comb(max(n, m) - 1, min(n, m) - 1)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (1, 8), (4, 7), (17, 16)])
@pytest.mark.parametrize("gamma", [0.01, 1.0, 100.0])
def test_soft_dtw_counts_the_paths_of_a_world_without_costs(n: int, m: int, gamma: float, dtype: torch.dtype) -> None:
    x, y = torch.ones(1, n, 3, dtype=dtype), torch.ones(1, m, 3, dtype=dtype)
    assert_value(scav_kernels.soft_dtw(x, y, gamma=gamma), -gamma * math.log(delannoy(n - 1, m - 1)))


def delannoy(a: int, b: int) -> int:
    """Paths from (0, 0) to (a, b) by diagonal, vertical and horizontal steps."""
    return sum(math.comb(a, k) * math.comb(b, k) * 2**k for k in range(min(a, b) + 1))


def test_one_step_against_many(dtype: torch.dtype) -> None:
    x, y = scalars(1, dtype=dtype), scalars(1, 3, 6, -2, dtype=dtype)
    for a, b in ((x, y), (y, x)):
        assert_value(scav_kernels.dtw(a, b), 0 + 2 + 5 + 3)
        assert_value(scav_kernels.soft_dtw(a, b), 0 + 4 + 25 + 9)
        assert_value(scav_kernels.sinkhorn(a, b), (0 + 2 + 5 + 3) / 4)
    assert_value(scav_kernels.interpolated_euclidean(x, y), (0 + 2 + 5 + 3) / 4)
    # Four steps resampled to one: the mean of the two in the middle, 4.5.
    assert_value(scav_kernels.interpolated_euclidean(y, x), 3.5)


def test_interpolation_by_hand(dtype: torch.dtype) -> None:
    # Half-pixel centres: (0, 4) on four steps is (0, 1, 3, 4).
    x, y = scalars(0, 4, dtype=dtype), scalars(0, 1, 1, 0, dtype=dtype)
    assert_value(scav_kernels.interpolated_euclidean(x, y), (0 + 0 + 2 + 4) / 4)
    assert_value(scav_kernels.interpolated_euclidean(x, y, squared=True), (0 + 0 + 4 + 16) / 4)
    # (0, 1, 1, 0) on two steps is (0.5, 0.5).
    assert_value(scav_kernels.interpolated_euclidean(x, y, resample="y"), (0.5 + 3.5) / 2)
    assert_value(scav_kernels.interpolated_euclidean(y, x), (0.5 + 3.5) / 2)
    for a, b in ((x, y), (y, x)):
        assert_value(scav_kernels.interpolated_euclidean(a, b, resample="shorter"), (0 + 0 + 2 + 4) / 4)


def test_interpolation_uses_valid_steps_only(dtype: torch.dtype) -> None:
    x, y = scalars(0, 4, 99, 99, dtype=dtype), scalars(0, 1, 1, 0, 99, dtype=dtype)
    lengths = torch.tensor([2]), torch.tensor([4])
    assert_value(scav_kernels.interpolated_euclidean(x, y, *lengths), (0 + 0 + 2 + 4) / 4)


def test_dtw_by_hand(dtype: torch.dtype) -> None:
    x, y = scalars(0, 1, 5, dtype=dtype), scalars(0, 3, 5, 5, dtype=dtype)
    # (0, 0), (1, 1), (2, 2), (2, 3)
    assert_value(scav_kernels.dtw(x, y), 0 + 2 + 0 + 0)
    assert_value(scav_kernels.dtw(x, y, cost="sqeuclidean"), 0 + 4 + 0 + 0)


def test_dtw_in_a_band_by_hand(dtype: torch.dtype) -> None:
    # The pulse comes two steps later.
    x, y = scalars(0, 9, 0, 0, 0, dtype=dtype), scalars(0, 0, 0, 9, 0, dtype=dtype)
    assert_value(scav_kernels.dtw(x, y), 0)
    assert_value(scav_kernels.dtw(x, y, band=2), 0)
    assert_value(scav_kernels.dtw(x, y, band=1), 18)
    assert_value(scav_kernels.dtw(x, y, band=0), 18)


def test_dtw_gradient_takes_the_diagonal_of_equal_paths(dtype: torch.dtype) -> None:
    # All costs are 1: the shortest path is the diagonal and then along the longer side; where two are equally short,
    # the last step back is the diagonal one.
    x = torch.zeros(1, 2, 1, dtype=dtype, requires_grad=True)
    y = torch.ones(1, 4, 1, dtype=dtype, requires_grad=True)
    scav_kernels.dtw(x, y).sum().backward()
    assert torch.equal(x.grad.flatten(), torch.tensor([-3, -1], dtype=dtype))
    assert torch.equal(y.grad.flatten(), torch.tensor([1, 1, 1, 1], dtype=dtype))


def test_dtw_gradient_prefers_a_step_of_x_to_one_of_y(dtype: torch.dtype) -> None:
    # Costs (1, 2, 1; 2, 5, 2; 1, 2, 1): both ways round the middle cost 6. The last step back is to s − 1.
    x = torch.tensor([[[0, 0], [1, 0], [0, 0]]], dtype=dtype, requires_grad=True)
    y = torch.tensor([[[0, 1], [-1, 1], [0, 1]]], dtype=dtype, requires_grad=True)
    scav_kernels.dtw(x, y, cost="sqeuclidean").sum().backward()
    matched = [(0, 0), (0, 1), (1, 2), (2, 2)]
    expected = torch.zeros_like(y)
    for s, t in matched:
        expected[0, t] += 2 * (y[0, t] - x[0, s]).detach()
    assert torch.equal(y.grad, expected)


@pytest.mark.parametrize("repeats", [2, 5])
def test_dtw_is_blind_to_repeated_steps(repeats: int, dtype: torch.dtype) -> None:
    x = torch.randn(4, 9, 5, dtype=dtype, generator=torch.Generator().manual_seed(0))
    slow = x.repeat_interleave(repeats, 1)
    values = scav_kernels.dtw(x, slow)
    # The root of what is left where equal steps cancel.
    assert (values.diagonal().abs() <= 9 * repeats * 1e-3 * x.norm(dim=-1).max()).all()
    assert (values - values.diagonal().diag() >= 0).all()
    assert (values.fill_diagonal_(torch.inf) > 1).all()


def test_sinkhorn_on_two_points_each(dtype: torch.dtype) -> None:
    # Costs (0, c; c, 0): by symmetry f and g are constant and the value is -ε log((1 + exp(-c / ε)) / 2).
    c, epsilon = 2.0, 0.7
    x = scalars(0, c, dtype=dtype)
    expected = -epsilon * math.log((1 + math.exp(-c / epsilon)) / 2)
    assert_value(scav_kernels.sinkhorn(x, x.flip(1), epsilon=epsilon), expected)


def test_sinkhorn_between_permutations_costs_only_its_entropy(dtype: torch.dtype) -> None:
    # Points far apart in units of ε: the plan is the permutation, and its KL from uniform is log n.
    x = 4 * torch.eye(8, dtype=dtype)[None]
    y = x[:, torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    assert_value(scav_kernels.sinkhorn(x, y, epsilon=0.125), 0.125 * math.log(8))


def test_sinkhorn_is_wasserstein_on_a_line_as_epsilon_vanishes(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 12, 1, dtype=dtype, generator=generator) for _ in range(2))
    # Between equally many points on a line, sorting both sides is optimal.
    wasserstein = (x.sort(1).values - y.sort(1).values).abs().mean().item()
    value = scav_kernels.sinkhorn(x, y, epsilon=1e-3, max_iterations=20_000, tolerance=1e-6).item()
    assert wasserstein - 1e-5 <= value <= wasserstein + 1e-3 * math.log(12)
