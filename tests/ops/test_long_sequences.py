"""Sequences so long that their recursion is walked back in stretches, each from a saved state."""

import torch

import scav_kernels
from scav_kernels.reference.ground_cost import ground_cost

from .inputs import Shape, sequences
from .tolerances import assert_within, floor

# Whose cells, a byte each in the four lanes of the narrowest float32 vector, are more than the 8 MiB kept whole.
STEPS = 1500


def test_dtw_path_of_long_sequences() -> None:
    given = sequences(Shape(b1=1, b2=1, n=STEPS, m=STEPS, d=2, ragged=False))
    path = scav_kernels.dtw_path(given.x[0], given.y[0])
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [STEPS - 1, STEPS - 1]
    assert {tuple(step) for step in path.diff(dim=0).tolist()} == {(1, 1), (1, 0), (0, 1)}
    total = ground_cost(given.x[0], given.y[0], "euclidean")[path[:, 0], path[:, 1]].sum()
    distance = scav_kernels.dtw(given.x, given.y)
    assert_within("costs of the path", total[None, None], distance, floor(torch.float32, STEPS), torch.float32)
