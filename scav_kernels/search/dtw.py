"""Search by DTW: its lower bounds and allowance for rounding."""

from functools import partial
from typing import Any

from scav_kernels.ops.dtw import dtw
from scav_kernels.ops.registry import SearchMethod, register_search
from scav_kernels.search.cascade import Bound, Cascade
from scav_kernels.search.exhaustive import EXHAUSTIVE
from scav_kernels.search.nearest import RunningTopK
from scav_kernels.search.report import SearchReport
from scav_kernels.search.request import SearchRequest
from scav_kernels.search.rounding import path_rounding
from scav_kernels.search.series import find_series, suits_series

# The options for which bounds, the allowance for rounding and leaving a pair early are proven.
_KNOWN_OPTIONS = {"cost", "band"}


def _fewer_coordinates(cost: str, options: dict[str, Any]) -> list[Bound]:
    """Return DTW in fewer coordinates, which never increase a cost."""
    warped = partial(dtw, cost=cost, band=options["band"])
    return [Bound(f"DTW in {rank} coordinates", rank, warped) for rank in (8, 32)]


CASCADE = Cascade(lambda scale, _options: path_rounding(scale), _fewer_coordinates)


def _find(request: SearchRequest, prune: bool, report: SearchReport, top_k: RunningTopK) -> None:
    defaults = request.metric.defaults()
    others = [name for name, default in defaults.items() if request.options[name] != default]
    if unknown := ", ".join(name for name in others if name not in _KNOWN_OPTIONS):
        report.exhaustive = report.exhaustive or f"dtw has no lower bound that holds with {unknown}"
        EXHAUSTIVE.find(request, False, report, top_k)
    elif suits_series(request):
        find_series(request, prune, report, top_k)
    else:
        CASCADE.method().find(request, prune, report, top_k)


register_search("dtw", SearchMethod(_find, has_bounds=True))
