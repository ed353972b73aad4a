"""Dynamic time warping of given costs."""

from torch import Tensor

from scav_kernels.reference.dtw import dtw_of_cost
from scav_kernels.reference.pairs import over_costs


def dtw_from_cost(
    cost: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None, *, band: int | None = None
) -> Tensor:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the recursion of `dtw` on each pair's valid cells."""
    return over_costs(lambda c: dtw_of_cost(c, band), cost, x_lengths, y_lengths)
