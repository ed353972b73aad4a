"""The mean L1 distance of steps, one pair at a time."""

from torch import Tensor

from scav_kernels.reference.pairs import over_pairs


def mean_l1(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    weight: float = 1.0,
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) for `paired`: weight · mean_t ‖x_t − y_t‖₁, t < min(n, m)."""

    def distance(a: Tensor, b: Tensor) -> Tensor:
        steps = min(len(a), len(b))
        return weight * (a[:steps] - b[:steps]).abs().sum(1).mean()

    return over_pairs(distance, x, y, x_lengths, y_lengths, paired)
