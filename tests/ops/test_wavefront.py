"""Single pairs and few pairs, whose recursions run along the anti-diagonals of one pair, against the reference."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_kernels.reference.dtw import dtw_path_of_cost
from scav_kernels.reference.ground_cost import ground_cost

from .inputs import Sequences, Shape, sequences
from .tolerances import assert_within, floor

BUILD = scav_kernels.build_info()
OTHER_LEVELS = [level for level in BUILD["simd_levels"] if level != BUILD["simd_level"]]
# One and more strips of rows at every SIMD level, whole or with a row more or less; shorter pairs are elsewhere.
SIZES = ((32, 33), (33, 65), (63, 40), (65, 130), (130, 64))
FEATURES = (1, 2, 8, 64)
COSTS = ("euclidean", "sqeuclidean", "cosine")
DTYPES = (torch.float32, torch.float64)


def in_double(given: Sequences) -> Sequences:
    return given.map(Tensor.double)


def check(name: str, given: Sequences, **options: Any) -> None:
    """Compare value and gradients with those of the reference in float64."""
    given = given.leaves()
    value = getattr(scav_kernels, name)(*given, **options)
    expected = in_double(given).leaves()
    wanted = getattr(reference, name)(*expected, **options)
    dtype = value.dtype
    allowed = 4 * floor(dtype, max(given.x.shape[1], given.y.shape[1]))
    assert_within("value", value.detach(), wanted.detach(), allowed, dtype)
    weights = torch.arange(1, value.numel() + 1, dtype=dtype).reshape(value.shape)
    gradients = torch.autograd.grad((value * weights).sum(), given[:2])
    right = torch.autograd.grad((wanted * weights).sum(), expected[:2])
    for side, gradient, wanted in zip("xy", gradients, right, strict=True):
        assert_within(f"gradient of {side}", gradient, wanted, 100 * allowed, dtype)


@pytest.mark.parametrize("name", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("d", FEATURES)
def test_sizes(name: str, d: int) -> None:
    for index, (n, m) in enumerate(SIZES):
        given = sequences(Shape(b1=1, b2=1, n=n, m=m, d=d, ragged=False), DTYPES[index % 2])
        # Steps of one feature are parallel or opposite.
        check(name, given, cost=COSTS[index % (3 if d > 1 else 2)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("d", [1, 40])
@pytest.mark.parametrize("band", [0, 20, 70])
def test_bands(name: str, d: int, band: int) -> None:
    for n, m in ((33, 33), (100, 100), (90, 140), (150, 70)):
        check(name, sequences(Shape(b1=1, b2=1, n=n, m=m, d=d, ragged=False)), band=band)


@pytest.mark.parametrize("fill", [torch.nan, torch.inf, -1e38])
def test_cells_before_the_first_step_may_cost_anything(fill: float) -> None:
    # Freed memory of the size of a tile of costs, which the op takes as scratch.
    freed = [torch.full((size,), fill) for size in (64 * 144, 64 * 144 + 16, 64 * 144 + 64) for _ in range(4)]
    del freed
    check("soft_dtw", sequences(Shape(b1=1, b2=1, n=70, m=90, d=40, ragged=False)), gamma=0.01)


@pytest.mark.parametrize("name", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("d", [2, 40])
@pytest.mark.parametrize("band", [None, 9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_padding_of_ragged_pairs(name: str, d: int, band: int | None, dtype: torch.dtype) -> None:
    given = sequences(Shape(b1=3, b2=2, n=90, m=70, d=d), dtype)
    padded = given.map(torch.clone)
    assert padded.x_lengths is not None
    assert padded.y_lengths is not None
    for side, lengths in ((padded.x, padded.x_lengths), (padded.y, padded.y_lengths)):
        for steps, length in zip(side, lengths, strict=True):
            steps[length:] = torch.nan
    check(name, given, band=band)
    kernel = getattr(scav_kernels, name)
    assert torch.equal(kernel(*padded, band=band), kernel(*given, band=band))
    # x number i against y number i.
    each = scav_kernels.pairwise_distance(
        padded.x[:2], padded.y, padded.x_lengths[:2], padded.y_lengths, metric=name, band=band
    )
    assert_within("pairs", each, kernel(*given, band=band).diagonal(), floor(dtype, 90), dtype)


@pytest.mark.parametrize("shape", [(40, 40), (130, 70)])
@pytest.mark.parametrize("band", [None, 6])
def test_costs_of_the_caller(shape: tuple[int, int], band: int | None) -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.randn(1, 2, *shape, generator=generator)
    cost[:, :, 3::7, 5::11] = torch.inf
    for name in ("dtw", "soft_dtw"):
        given, expected = cost.clone().requires_grad_(), cost.double().requires_grad_()
        value = getattr(scav_kernels, f"{name}_from_cost")(given, band=band)
        wanted = getattr(reference, f"{name}_from_cost")(expected, band=band)
        assert_within(name, value.detach(), wanted.detach(), floor(value.dtype, sum(shape)), value.dtype)
        (gradient,) = torch.autograd.grad(value.sum(), given)
        (right,) = torch.autograd.grad(wanted.sum(), expected)
        assert_within(name, gradient, right, 100 * floor(value.dtype, sum(shape)), value.dtype)


def test_ties_take_the_diagonal_then_the_step_of_x() -> None:
    # Costs of 0 and 1 leave ties everywhere.
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randint(0, 2, (length, 1), generator=generator).float() for length in (150, 140))
    for band in (None, 12):
        path = scav_kernels.dtw_path(x, y, band=band)
        assert torch.equal(path, dtw_path_of_cost(ground_cost(x, y, "euclidean"), band))


# Whose cells are more than a recursion keeps.
LONG = Shape(b1=1, b2=1, n=3300, m=3200, d=1, ragged=False)


def test_path_of_long_sequences() -> None:
    given = sequences(LONG, seed=2)
    cost = ground_cost(given.x[0], given.y[0], "euclidean")
    path = scav_kernels.dtw_path(given.x[0], given.y[0])
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [LONG.n - 1, LONG.m - 1]
    assert {tuple(step) for step in path.diff(dim=0).tolist()} <= {(1, 1), (1, 0), (0, 1)}
    total = cost.double()[path[:, 0], path[:, 1]].sum()
    distance = scav_kernels.dtw(given.x, given.y)
    assert_within("costs of the path", total[None, None].float(), distance, floor(torch.float32, LONG.n), torch.float32)


@pytest.mark.parametrize("name", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("d", [2, 40])
def test_one_pair_agrees_with_many(name: str, d: int) -> None:
    # Long enough that neither keeps the cells of all steps, even of four lanes; in float64, so that both take the same
    # path.
    given = sequences(Shape(b1=1, b2=16, n=1800, m=1300, d=d), torch.float64)
    assert given.y_lengths is not None
    kernel, many = getattr(scav_kernels, name), given.leaves()
    distances = kernel(*many)
    x_gradient, y_gradient = torch.autograd.grad(distances.sum(), many[:2])
    x_sum = torch.zeros_like(given.x)
    for index in range(16):
        pair = Sequences(given.x, given.y[index, None], None, given.y_lengths[index, None]).leaves()
        distance = kernel(*pair)
        to_x, to_y = torch.autograd.grad(distance.sum(), pair[:2])
        allowed = floor(torch.float64, 1800)
        assert_within("distance", distance[0].detach(), distances[0, index, None].detach(), allowed, torch.float64)
        assert_within("gradient of y", to_y[0], y_gradient[index], 100 * allowed, torch.float64)
        x_sum += to_x
    assert_within("gradient of x", x_sum, x_gradient, 100 * allowed, torch.float64)


@pytest.mark.parametrize("name", ["dtw", "soft_dtw"])
@pytest.mark.parametrize("d", [1, 40])
def test_threads_change_nothing(name: str, d: int, threads: Callable[[int], None]) -> None:
    given = sequences(Shape(b1=1, b2=2, n=1100, m=700, d=d), seed=4)
    answers = []
    for count in (1, 2, 3):
        threads(count)
        leaves = given.leaves()
        value = getattr(scav_kernels, name)(*leaves)
        answers.append((value.detach(), *torch.autograd.grad(value.sum(), leaves[:2])))
    for value, *gradients in answers[1:]:
        assert torch.equal(value, answers[0][0])
        for gradient, before in zip(gradients, answers[0][1:], strict=True):
            assert_within("gradient", gradient, before, floor(torch.float32, 1100), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("level", OTHER_LEVELS)
def test_other_levels(level: str) -> None:
    """The level is chosen once per process."""
    if os.environ.get("SCAV_SIMD"):
        pytest.skip("a level is chosen already")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__))]
    run = subprocess.run(command, env={**os.environ, "SCAV_SIMD": level}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
