"""Subsequence DTW by blocks against the reference, and the choice of places against a slow one."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_model.locate.subsequence import SubsequenceDTW, nearest_parts

SIZES = [(1, 9, 4), (4, 16, 7), (4, 16, 1), (9, 4, 3), (5, 20, 100)]
OPTIONS = [
    {},
    {"step_penalty": 0.4},
    {"diagonal_weight": 2.0},
    {"cost": "sqeuclidean", "step_penalty": 0.1, "diagonal_weight": 0.5},
    {"cost": "cosine"},
]


def sequences(n: int, m: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    return (
        torch.randn(n, 3, generator=generator, dtype=torch.float64),
        torch.randn(m, 3, generator=generator, dtype=torch.float64),
    )


def by_blocks(x: Tensor, y: Tensor, block: int, **options: object) -> tuple[np.ndarray, np.ndarray]:
    dtw = SubsequenceDTW(x, **options)  # type: ignore[arg-type]
    for steps in y.split(block):
        dtw.add(steps)
    return dtw.finish()


@pytest.mark.parametrize(("n", "m", "block"), SIZES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_end_has_the_distance_of_the_reference(n: int, m: int, block: int, options: dict[str, object]) -> None:
    x, y = sequences(n, m)
    distances, starts = by_blocks(x, y, block, **options)
    assert distances.shape == starts.shape == (m,)
    for end in range(m):
        # The best path that ends there is that of the sequence up to there, with an open begin alone.
        expected = reference.dtw(x[None], y[None, : end + 1], open_begin=True, **options)
        assert distances[end] == pytest.approx(expected.item(), rel=1e-12)
        path = scav_kernels.dtw_path(x, y[: end + 1], open_begin=True, **options)  # type: ignore[arg-type]
        assert starts[end] == path[0, 1]
    both = scav_kernels.dtw(x[None], y[None], open_begin=True, open_end=True, **options)  # type: ignore[arg-type]
    assert distances.min() == pytest.approx(both.item(), rel=1e-9)


def test_a_part_alone_is_as_far() -> None:
    x, y = sequences(6, 50)
    distances, starts = by_blocks(x, y, 8)
    for start, end in nearest_parts(distances, starts, 4):
        alone = scav_kernels.dtw(x[None], y[None, start : end + 1])
        assert alone.item() == pytest.approx(distances[end], rel=1e-9)


def slow_parts(distances: np.ndarray, starts: np.ndarray, k: int) -> list[tuple[int, int]]:
    taken: list[tuple[int, int]] = []
    for end in sorted(range(len(distances)), key=lambda step: (distances[step], step)):
        part = set(range(starts[end], end + 1))
        apart = all(part.isdisjoint(range(first, last + 1)) for first, last in taken)
        if len(taken) < k and np.isfinite(distances[end]) and apart:
            taken.append((int(starts[end]), end))
    return taken


@pytest.mark.parametrize("k", [1, 3, 1000])
def test_places_are_the_nearest_that_share_no_step(k: int) -> None:
    for n, m in ((4, 60), (9, 60), (3, 2)):
        distances, starts = by_blocks(*sequences(n, m), 16)
        parts = nearest_parts(distances, starts, k)
        assert parts == slow_parts(distances, starts, k)
        assert 0 < len(parts) <= k
        for one, other in itertools.combinations(parts, 2):
            assert one[1] < other[0] or other[1] < one[0]


def test_ties_go_to_the_earlier_end_and_infinity_is_no_place() -> None:
    distances, starts = np.array([3.0, 1.0, np.inf, 1.0]), np.array([0, 1, 2, 3])
    assert nearest_parts(distances, starts, 9) == [(1, 1), (3, 3), (0, 0)]
    assert nearest_parts(np.full(3, np.inf), starts[:3], 2) == []
