"""Search by the Chamfer distance: its lower bounds and allowance for rounding."""

from functools import partial
from typing import Any

from scav_kernels.ops.chamfer import chamfer
from scav_kernels.ops.registry import register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.rounding import mean_rounding


def _bounds(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return the distance in fewer coordinates, which never increase a cost, and so no smallest cost."""
    nearest = partial(chamfer, cost=cost, direction=options["direction"])
    return [Bound(f"Chamfer in {rank} coordinates", rank, nearest) for rank in (8, 32)]


CASCADE = Cascade(lambda scale, _options: mean_rounding(scale), _bounds)
register_search("chamfer", CASCADE.method())
