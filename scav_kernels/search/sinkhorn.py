"""Search by Sinkhorn and its divergence: the lower bound of the first, and the allowance for rounding of both."""

from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.registry import SearchMethod, register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.nearest import RunningTopK
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import PairScale


def _bounds(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return means of soft minima of costs in fewer coordinates: the value of the dual after half an iteration."""
    epsilon = options["epsilon"]

    def soft_minima(
        x: Tensor,
        y: Tensor,
        n: Tensor,
        m: Tensor,
        x_weights: Tensor | None = None,
        y_weights: Tensor | None = None,
    ) -> Tensor:
        _, potentials, *_ = torch.ops.scav.sinkhorn(
            x, y, n, m, x_weights, y_weights, epsilon, 1, 0.0, None, cost, False, True, False
        )
        if x_weights is None:
            return epsilon * potentials.sum(-1) / n[:, None]
        weights = x_weights.masked_fill(torch.arange(x.shape[1], device=x.device) >= n[:, None], 0).to(potentials.dtype)
        weights = weights / weights.sum(1, keepdim=True)
        return epsilon * (potentials @ weights[:, :, None]).squeeze(-1)

    return [Bound("soft minima in 32 coordinates", 32, soft_minima)]


def _rounding(scale: PairScale, options: dict[str, Any]) -> Tensor:
    # Stopping an iteration earlier or later moves a distance by as much as the tolerance.
    stopping = 4 * options["tolerance"] + 64 * scale.unit
    return scale.cell + stopping * (scale.cost + options["epsilon"] * scale.steps.log())


CASCADE = Cascade(_rounding, _bounds)


def _find(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    if request.options["scaling"] is not None:
        # Iterations at larger epsilons may leave potentials whose value is below the soft minima.
        report.exhaustive = report.exhaustive or "sinkhorn with scaling has no lower bound that holds"
        prune = False
    CASCADE.method().find(request, prune, report, top_k)


register_search("sinkhorn", SearchMethod(_find, has_bounds=True))
# Three distances with the weights 1, 1/2 and 1/2, and the rounding of their sum.
register_search("sinkhorn_divergence", Cascade(lambda scale, options: 4 * _rounding(scale, options)).method())
