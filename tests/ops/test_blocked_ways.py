"""Bands and forbidden cells that leave few paths or none, and paths of equal cost."""

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from scav_kernels.reference.dtw import band_mask, dtw_path_of_cost

from .tolerances import assert_close, assert_within, floor


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
def test_no_band_makes_a_pair_unreachable(metric: str) -> None:
    # Every pair of lengths up to 20; the corridor always contains both corners and a path between them.
    lengths = torch.arange(1, 21)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, 20, 3, generator=generator) for _ in range(2))
    value = getattr(scav_kernels, metric)(x, y, lengths, lengths, band=0, cost="euclidean")
    assert value.isfinite().all()
    expected = getattr(reference, metric)(x[::7], y[::7], lengths[::7], lengths[::7], band=0, cost="euclidean")
    assert_close("value", value[::7, ::7], expected)


# Cells (s, t) of a 5 × 6 grid.
BLOCKADES = {
    "start": [(0, 0)],
    "end": [(4, 5)],
    "row": [(2, t) for t in range(6)],
    "column": [(s, 3) for s in range(5)],
    "staircase": [(4, 0), (3, 0), (3, 1), (2, 1), (2, 2), (1, 2), (1, 3), (0, 3), (0, 4)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("blockade", BLOCKADES)
@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
def test_a_blocked_pair_is_infinitely_far_and_has_no_gradient(metric: str, blockade: str, dtype: torch.dtype) -> None:
    from_cost = getattr(scav_kernels, f"{metric}_from_cost")
    cost = torch.rand(3, 18, 5, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    clean = cost.clone().requires_grad_()
    for s, t in BLOCKADES[blockade]:
        cost[1, 7, s, t] = torch.inf
    cost.requires_grad_()
    value, expected = from_cost(cost), from_cost(clean)
    assert value[1, 7].item() == torch.inf
    value.sum().backward()
    expected.sum().backward()
    assert not cost.grad[1, 7].any()
    others = torch.ones(3, 18, dtype=torch.bool)
    others[1, 7] = False
    assert torch.equal(value[others], expected[others])
    assert torch.equal(cost.grad[others], clean.grad[others])


@pytest.mark.parametrize("blockade", [BLOCKADES["row"], BLOCKADES["column"]], ids=["row", "column"])
def test_transport_from_or_to_a_blocked_step(blockade: list[tuple[int, int]]) -> None:
    cost = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    for cell in blockade:
        cost[cell] = torch.inf
    cost.requires_grad_()
    value = scav_kernels.sinkhorn_from_cost(cost)
    value.backward()
    assert value.item() == torch.inf
    assert not cost.grad.any()


def passable() -> tuple[Tensor, Tensor]:
    """Costs (2, 18, 9, 8) of which every fifth is forbidden, and which those are."""
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(2, 18, 9, 8, generator=generator, dtype=torch.float64)
    forbidden = torch.rand(cost.shape, generator=generator) < 0.2
    return cost.masked_fill(forbidden, torch.inf), forbidden


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_the_way_round_forbidden_cells(metric: str) -> None:
    cost, _ = passable()
    leaves = [cost.clone().requires_grad_() for _ in range(2)]
    values = []
    options = {"tolerance": 0.0, "max_iterations": 50} if metric == "sinkhorn" else {}
    for module, leaf in zip((scav_kernels, reference), leaves, strict=True):
        values.append(getattr(module, f"{metric}_from_cost")(leaf, **options))
        values[-1][values[-1].isfinite()].sum().backward()
    assert torch.equal(values[0].isinf(), values[1].isinf())
    assert_close("value", *(value[value.isfinite()].detach() for value in values))
    # Costs of up to 1, and an epsilon of 0.05 at least.
    assert_within("gradient", leaves[0].grad, leaves[1].grad, floor(torch.float64, 9, 1 / 0.05), torch.float64)


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_forbidden_cells_have_no_gradient(metric: str) -> None:
    cost, forbidden = passable()
    cost.requires_grad_()
    value = getattr(scav_kernels, f"{metric}_from_cost")(cost)
    value[value.isfinite()].sum().backward()
    assert not cost.grad[forbidden].any()


# The weight of the step from t − 1 is what the other two leave of 1, if only by rounding.
@pytest.mark.parametrize("metric", ["dtw", "soft_dtw"])
def test_cells_outside_the_band_have_no_gradient(metric: str) -> None:
    # Lengths that differ from lane to lane, so that bands do.
    x_lengths, y_lengths = torch.tensor([9, 4]), torch.arange(18) % 8 + 1
    cost = torch.rand(2, 18, 9, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    getattr(scav_kernels, f"{metric}_from_cost")(cost, x_lengths, y_lengths, band=0).sum().backward()
    for i, n in enumerate(x_lengths.tolist()):
        for j, m in enumerate(y_lengths.tolist()):
            assert not cost.grad[i, j, :n, :m][~band_mask(n, m, 0)].any()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 17), (16, 1), (17, 33), (65, 16)])
@pytest.mark.parametrize("band", [None, 1])
def test_ties_take_the_diagonal_then_x_then_y(n: int, m: int, band: int | None) -> None:
    # Costs 0 and 1 tie almost everywhere.
    cost = torch.randint(2, (2, 18, n, m), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    scav_kernels.dtw_from_cost(cost, band=band).sum().backward()
    expected = torch.zeros_like(cost)
    for i in range(2):
        for j in range(0, 18, 3):
            path = dtw_path_of_cost(cost[i, j], band)
            expected[i, j, path[:, 0], path[:, 1]] = 1
            assert torch.equal(cost.grad[i, j], expected[i, j])


@pytest.mark.parametrize(("n", "m"), [(4, 4), (17, 33), (33, 16)])
def test_dtw_path_of_ties_is_the_gradients(n: int, m: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(2, (steps, 2), generator=generator).float() for steps in (n, m))
    cost = (x[:, None] - y).square().sum(-1)
    path = scav_kernels.dtw_path(x, y, cost="sqeuclidean")
    assert torch.equal(path, dtw_path_of_cost(cost, None))
    leaf = x.clone().requires_grad_()
    scav_kernels.dtw(leaf[None], y[None], cost="sqeuclidean").backward()
    expected = torch.zeros_like(x).index_add(0, path[:, 0], 2 * (x[path[:, 0]] - y[path[:, 1]]))
    assert torch.equal(leaf.grad, expected)
