"""Interpolated Euclidean distance, one pair at a time."""

from torch import Tensor
from torch.nn import functional

from scav_kernels.reference.ground_cost import root
from scav_kernels.reference.pairs import over_pairs


def interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    squared: bool = False,
    resample: str = "x",
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m:

    x̃ (m, D) is x (n, D) resampled to m steps by `interpolate(mode="linear", align_corners=False)`;
    the distance is mean_t ‖x̃_t − y_t‖₂, or its square inside the mean where `squared`.

    `resample="y"` resamples y to n steps instead, `"shorter"` whichever of the two is shorter.
    """

    def distance(a: Tensor, b: Tensor) -> Tensor:
        if resample == "y" or (resample == "shorter" and len(b) < len(a)):
            a, b = b, a
        apart = (resampled(a, len(b)) - b).square().sum(-1)
        return (apart if squared else root(apart)).mean()

    return over_pairs(distance, x, y, x_lengths, y_lengths, paired)


def resampled(x: Tensor, steps: int, mode: str = "linear") -> Tensor:
    """(n, D) -> (steps, D)."""
    align_corners = False if mode == "linear" else None
    return functional.interpolate(x.T[None], size=steps, mode=mode, align_corners=align_corners)[0].T
