"""Search by DTW: its lower bounds and allowance for rounding."""

from functools import partial
from typing import Any

from scav_kernels.ops.dtw import dtw
from scav_kernels.ops.registry import register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.rounding import path_rounding


def _bounds(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return DTW in fewer coordinates, which never increase a cost."""
    warped = partial(dtw, cost=cost, band=options["band"])
    return [Bound(f"DTW in {rank} coordinates", rank, warped) for rank in (8, 32)]


CASCADE = Cascade(lambda scale, _options: path_rounding(scale), _bounds)
register_search("dtw", CASCADE.method())
