"""Search by DTW: its lower bounds and allowance for rounding."""

from functools import partial
from typing import Any

from torch import Tensor

from scav_kernels.ops.dtw import dtw
from scav_kernels.ops.registry import SearchMethod, register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.exhaustive import EXHAUSTIVE
from scav_kernels.search.nearest import RunningTopK
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import PairScale, path_rounding
from scav_kernels.search.series import find_series, suits_series

# The options for which LB_Keogh and leaving a pair early are proven.
_SERIES_OPTIONS = {"cost", "band"}


def _fewer_coordinates(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return DTW in fewer coordinates, which never increase a cost."""
    warped = partial(dtw, **{**options, "cost": cost})
    return [Bound(f"DTW in {rank} coordinates", rank, warped) for rank in (8, 32)]


def _rounding(scale: PairScale, options: dict[str, Any]) -> Tensor:
    """Return the rounding of a sum along a path of cells of the largest weight, divided as the distance is."""
    weight = max(1.0, options["diagonal_weight"])
    largest = weight * scale.cost + options["step_penalty"]
    rounding = path_rounding(scale._replace(cost=largest, cell=weight * scale.cell))
    return rounding / scale.steps if options["normalize"] == "steps" else rounding


CASCADE = Cascade(_rounding, _fewer_coordinates)


def _find(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    if request.options["normalize"] == "path":
        # Rounding may choose among paths of other lengths, and change a distance by any amount.
        report.exhaustive = report.exhaustive or "dtw with normalize='path' has no lower bound that holds"
        EXHAUSTIVE.find(request, False, report, top_k)
        return
    defaults = request.metric.defaults()
    known = all(request.options[name] == default or name in _SERIES_OPTIONS for name, default in defaults.items())
    if known and suits_series(request):
        find_series(request, prune, report, top_k)
    else:
        CASCADE.method().find(request, prune, report, top_k)


register_search("dtw", SearchMethod(_find, has_bounds=True))
