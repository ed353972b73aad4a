"""Search by Sinkhorn and its divergence: the lower bound of the first, and the allowance for rounding of both."""

from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.registry import register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.rounding import PairScale


def _bounds(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return soft minima of costs in fewer coordinates: the value of the dual after half an iteration."""
    epsilon = options["epsilon"]

    def soft_minima(x: Tensor, y: Tensor, n: Tensor, m: Tensor) -> Tensor:
        _, potentials, *_ = torch.ops.scav.sinkhorn(
            x, y, n, m, None, None, epsilon, 1, 0.0, None, cost, False, True, False
        )
        return epsilon * potentials.sum(-1) / n[:, None]

    return [Bound("soft minima in 32 coordinates", 32, soft_minima)]


def _rounding(scale: PairScale, options: dict[str, Any]) -> Tensor:
    # Stopping an iteration earlier or later moves a distance by as much as the tolerance.
    stopping = 4 * options["tolerance"] + 64 * scale.unit
    return scale.cell + stopping * (scale.cost + options["epsilon"] * scale.steps.log())


CASCADE = Cascade(_rounding, _bounds)
register_search("sinkhorn", CASCADE.method())
# Three distances with the weights 1, 1/2 and 1/2, and the rounding of their sum.
register_search("sinkhorn_divergence", Cascade(lambda scale, options: 4 * _rounding(scale, options)).method())
