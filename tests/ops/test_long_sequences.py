"""Sequences so long that a pair's cells are not held at once: those of a path or an alignment come in ranges of
steps, those of a plan in parts of the rows."""

from typing import Any

import torch

import scav_kernels
from scav_kernels.reference.ground_cost import ground_cost

from .inputs import Shape, sequences
from .tolerances import assert_within, floor

# Whose cells are more than the 8 MiB in which a recursion keeps them whole, a byte each in the four lanes of the
# narrowest float32 vector, and more than the 16 MiB in which a plan's costs are, in float64.
STEPS = 1500
LONG = Shape(b1=1, b2=1, n=STEPS, m=STEPS, d=2, ragged=False)
# Sum of the plan's marginal errors at which its iteration stops.
MARGINAL = 1e-9


def test_dtw_path_of_long_sequences() -> None:
    given = sequences(LONG)
    path = scav_kernels.dtw_path(given.x[0], given.y[0])
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [STEPS - 1, STEPS - 1]
    assert {tuple(step) for step in path.diff(dim=0).tolist()} == {(1, 1), (1, 0), (0, 1)}
    total = ground_cost(given.x[0], given.y[0], "euclidean")[path[:, 0], path[:, 1]].sum()
    distance = scav_kernels.dtw(given.x, given.y)
    assert_within("costs of the path", total[None, None], distance, floor(torch.float32, STEPS), torch.float32)


def test_sinkhorn_from_cost_of_long_sequences() -> None:
    given = sequences(LONG, torch.float64)
    cost = ground_cost(given.x[0], given.y[0], "euclidean").requires_grad_()
    options: dict[str, Any] = {"epsilon": 1.0, "max_iterations": 1000, "tolerance": MARGINAL}
    value = scav_kernels.sinkhorn_from_cost(cost, **options)
    (plan,) = torch.autograd.grad(value, cost)
    for side in (0, 1):
        assert (plan.sum(side) - 1 / STEPS).abs().sum().item() <= MARGINAL
    # What the transport costs, and its entropy relative to independence.
    parts = (plan * (cost + (plan * STEPS**2).log())).sum()
    assert_within("value", value.detach(), parts.detach(), MARGINAL, torch.float64)
