"""The oracles themselves, against enumeration of every path, a linear program, and finite differences."""

import inspect
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_kernels.reference.dtw import band_mask, dtw_of_cost, dtw_path_of_cost
from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.sinkhorn import potentials_and_plan, sinkhorn_of_cost
from scav_kernels.reference.soft_dtw import soft_dtw_of_cost

from .cases import CASES, Case
from .inputs import Shape, sequences

SIZES = [(1, 1), (1, 4), (4, 1), (3, 3), (4, 5), (5, 3)]
BANDS = [None, 0, 1, 2, 2**63 - 1]


def random_cost(n: int, m: int) -> Tensor:
    return torch.rand(n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(n * 10 + m))


def paths(n: int, m: int, band: int | None) -> Iterator[list[tuple[int, int]]]:
    """Every monotone path of cells from (0, 0) to (n − 1, m − 1) inside the band."""
    allowed = band_mask(n, m, band)

    def onwards(path: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        s, t = path[-1]
        if (s, t) == (n - 1, m - 1):
            yield path
        for cell in ((s + 1, t + 1), (s + 1, t), (s, t + 1)):
            if cell[0] < n and cell[1] < m and allowed[cell]:
                yield from onwards([*path, cell])

    return onwards([(0, 0)])


def path_costs(cost: Tensor, band: int | None) -> Tensor:
    return torch.stack([sum(cost[cell] for cell in path) for path in paths(*cost.shape, band)])


@pytest.mark.parametrize("kind", ["euclidean", "sqeuclidean", "cosine"])
def test_ground_cost(kind: str) -> None:
    x, y = (torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (5, 6))
    np.testing.assert_allclose(ground_cost(x, y, kind), cdist(x, y, kind), rtol=1e-12)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_dtw_is_the_cheapest_path(n: int, m: int, band: int | None) -> None:
    cost = random_cost(n, m)
    torch.testing.assert_close(dtw_of_cost(cost, band), path_costs(cost, band).min())
    assert [tuple(cell) for cell in dtw_path_of_cost(cost, band).tolist()] in list(paths(n, m, band))


@pytest.mark.parametrize("gamma", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_soft_dtw_is_the_softmin_over_paths(n: int, m: int, band: int | None, gamma: float) -> None:
    cost = random_cost(n, m)
    expected = -gamma * torch.logsumexp(-path_costs(cost, band) / gamma, 0)
    torch.testing.assert_close(soft_dtw_of_cost(cost, gamma, band), expected)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (5, 3), (3, 5), (1, 4)])
def test_band_is_a_corridor_between_both_corners(n: int, m: int) -> None:
    for band in (0, 1, 3):
        allowed = band_mask(n, m, band)
        assert allowed[0, 0]
        assert allowed[-1, -1]
        # The longer side has the difference in length to make up.
        for s in range(n):
            for t in range(m):
                late = t - s if m >= n else s - t
                assert allowed[s, t] == (-band <= late <= abs(n - m) + band)


def test_dtw_ties_take_the_diagonal_then_x_then_y() -> None:
    def path(cost: list[list[float]]) -> list[list[int]]:
        return dtw_path_of_cost(torch.tensor(cost, dtype=torch.float64), None).tolist()

    assert path([[1, 0], [0, 1]]) == [[0, 0], [1, 1]]
    # Both ways round the expensive middle cost the same: the last step back goes to s − 1.
    assert path([[0, 0, 0], [0, 9, 0], [0, 0, 0]]) == [[0, 0], [0, 1], [1, 2], [2, 2]]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (4, 4), (3, 6), (6, 1)])
def test_sinkhorn_converges_to_the_optimum(n: int, m: int) -> None:
    cost, epsilon = random_cost(n, m), 0.1
    f, g, plan = potentials_and_plan(cost, epsilon, 10_000, 1e-13)
    torch.testing.assert_close(plan.sum(1), torch.full((n,), 1 / n, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(0), torch.full((m,), 1 / m, dtype=torch.float64))
    primal = (plan * cost).sum() + epsilon * (plan * (plan * n * m).log()).sum()
    torch.testing.assert_close(sinkhorn_of_cost(cost, epsilon, 10_000, 1e-13), primal)
    torch.testing.assert_close(f.mean() + g.mean(), primal)


@pytest.mark.parametrize(("n", "m"), [pytest.param(4, 4, marks=pytest.mark.slow), (3, 5)])
def test_sinkhorn_tends_to_the_linear_program(n: int, m: int) -> None:
    cost, epsilon = random_cost(n, m), 5e-3
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    marginals = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    exact = linprog(cost.flatten().numpy(), A_eq=np.vstack([rows, columns]), b_eq=marginals).fun
    value = sinkhorn_of_cost(cost, epsilon, 20_000, 1e-8).item()
    assert exact - 1e-6 <= value <= exact + epsilon * math.log(max(n, m))


def test_sinkhorn_stops_by_its_tolerance() -> None:
    cost = random_cost(5, 7)
    errors = [(potentials_and_plan(cost, 0.05, k, 0.0)[2].sum(1) - 1 / 5).abs().sum().item() for k in range(1, 40)]
    assert errors == sorted(errors, reverse=True)
    # Between the errors after 6 and after 7 iterations.
    tolerance = (errors[5] + errors[6]) / 2
    stopped, seventh = (potentials_and_plan(cost, 0.05, *rule) for rule in ((100, tolerance), (7, 0.0)))
    for a, b in zip(stopped, seventh, strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradcheck(case: Case) -> None:
    given = sequences(Shape(b1=2, b2=2, n=4, m=3, d=3), torch.float64).leaves()
    lengths = given.x_lengths, given.y_lengths
    assert torch.autograd.gradcheck(lambda x, y: case.reference(x, y, *lengths, **case.converged), (given.x, given.y))


@pytest.mark.parametrize("name", reference.__all__)
def test_same_signature_as_the_public_function(name: str) -> None:
    def parameters(function: object) -> dict[str, object]:
        return {p.name: p.default for p in inspect.signature(function).parameters.values() if p.name != "paired"}

    assert parameters(getattr(reference, name)) == parameters(getattr(scav_kernels, name))
