"""Interpolated cosine distance, one pair at a time."""

from torch import Tensor

from scav_kernels.reference.ground_cost import unit
from scav_kernels.reference.interpolated_euclidean import resampled
from scav_kernels.reference.pairs import over_pairs


def interpolated_cosine(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    resample: str = "x",
    mode: str = "linear",
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m:

    x̃ (m, D) is x (n, D) resampled to m steps by `interpolate(mode=mode)`; the distance is 1 − mean_t cos(x̃_t, y_t).

    `resample="y"` resamples y to n steps instead, `"shorter"` whichever of the two is shorter.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        if resample == "y" or (resample == "shorter" and len(b) < len(a)):
            a, b = b, a
        return 1 - (unit(resampled(a, len(b), mode)) * unit(b)).sum(-1).mean()

    return over_pairs(distance, x, y, x_lengths, y_lengths, paired)
