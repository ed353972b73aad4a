"""Search by soft-DTW and its divergence: their allowance for rounding. No lower bound is known."""

from typing import Any

from torch import Tensor

from scav_kernels.ops.registry import register_search
from scav_kernels.search.cascade import Cascade
from scav_kernels.search.rounding import PairScale, path_rounding


def _rounding(scale: PairScale, options: dict[str, Any]) -> Tensor:
    return path_rounding(scale, options["gamma"])


register_search("soft_dtw", Cascade(_rounding).method())
# Three distances with the weights 1, 1/2 and 1/2, and the rounding of their sum.
register_search("soft_dtw_divergence", Cascade(lambda scale, options: 4 * _rounding(scale, options)).method())
