"""More cells, or more saved bytes, than 32 bits can count."""

from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels

from .inputs import Sequences, Shape, sequences
from .tolerances import assert_within, floor

pytestmark = pytest.mark.slow

MANY = Shape(b1=1024, b2=1024, n=47, m=46, d=1, ragged=False)
# One iteration of Sinkhorn visits every cell.
OPS = [("interpolated_euclidean", {}), ("dtw", {}), ("soft_dtw", {}), ("sinkhorn", {"max_iterations": 1})]
FROM_COST = [(f"{metric}_from_cost", options) for metric, options in OPS[1:]]
OPS += [("chamfer", {}), ("interpolated_cosine", {})]


def some_pairs(shape: Shape) -> tuple[Tensor, Tensor]:
    """Indices of 64 pairs, the first and the last among them."""
    generator = torch.Generator().manual_seed(0)
    i, j = (torch.randint(0, size, (64,), generator=generator) for size in (shape.b1, shape.b2))
    i[0] = j[0] = 0
    i[-1], j[-1] = shape.b1 - 1, shape.b2 - 1
    return i, j


def assert_same(actual: Tensor, expected: Tensor, shape: Shape) -> None:
    assert_within("distance", actual, expected, floor(expected.dtype, shape.n + shape.m), expected.dtype)


def pairs_of(given: Sequences, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
    return given.x[i], given.y[j]


@pytest.mark.parametrize(("metric", "options"), OPS)
def test_cells_beyond_32_bits(metric: str, options: dict[str, Any]) -> None:
    assert MANY.b1 * MANY.b2 * MANY.n * MANY.m > 2**31
    given, (i, j) = sequences(MANY), some_pairs(MANY)
    found = scav_kernels.cdist(*given, metric=metric, **options)
    assert_same(found[i, j], scav_kernels.pairwise_distance(*pairs_of(given, i, j), metric=metric, **options), MANY)


@pytest.mark.parametrize(("op", "options"), FROM_COST)
def test_given_cells_beyond_32_bits(op: str, options: dict[str, Any]) -> None:
    """An expanded cost is not copied: (1, B2, N, M) is 9 MB, (B1, B2, N, M) would be 9 GB."""
    cost = torch.rand(1, MANY.b2, MANY.n, MANY.m, generator=torch.Generator().manual_seed(0))
    every = cost.expand(MANY.b1, -1, -1, -1)
    assert every.numel() > 2**31
    found = getattr(scav_kernels, op)(every, **options)
    assert_same(found, getattr(scav_kernels, op)(cost, **options).expand_as(found), MANY)


def test_paths_beyond_32_bits() -> None:
    """DTW saves a byte for each of N + M steps of a pair: 2 GiB."""
    shape = Shape(b1=4096, b2=4096, n=2, m=127, d=1, ragged=False)
    given, (i, j) = sequences(shape), some_pairs(shape)
    options = {"x_lengths": None, "y_lengths": None, "cost": "euclidean", "diagonal_weight": 1.0, "normalize": None}
    paths = {"band": None, "step_penalty": 0.0, "open_begin": False, "open_end": False}
    out, path = torch.ops.scav.dtw(given.x, given.y, **options, **paths, paired=False, save_path=True)
    assert path.numel() > 2**31
    grad = torch.zeros_like(out)
    grad[i, j] = 1
    found = torch.ops.scav.dtw_backward(
        grad, given.x, given.y, **options, out=out, path=path, paired=False, need_x=True, need_y=True
    )
    x, y = (side.requires_grad_() for side in pairs_of(given, i, j))
    expected = scav_kernels.pairwise_distance(x, y, metric="dtw")
    assert_same(out[i, j], expected.detach(), shape)
    expected.sum().backward()
    for actual, of, gradient in zip(found, (i, j), (x.grad, y.grad), strict=True):
        assert_same(actual, torch.zeros_like(actual).index_add(0, of, gradient), shape)
