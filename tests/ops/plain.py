"""The kernels' formulas in plain PyTorch: what a user would write, with the cost as one matrix product.

Their rounding error, against the float64 reference, is the yardstick for the kernels' error.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from scav_kernels.reference.chamfer import chamfer_of_cost
from scav_kernels.reference.dtw import dtw_of_cost
from scav_kernels.reference.ground_cost import root
from scav_kernels.reference.interpolated_euclidean import resampled
from scav_kernels.reference.pairs import accumulation_dtype, over_items, over_pairs
from scav_kernels.reference.sinkhorn import Cloud, Solver, clouds, of_weighted_cost
from scav_kernels.reference.soft_dtw import soft_dtw_of_cost

Lengths = Tensor | None


def interpolated_euclidean(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    squared: bool = False,
    resample: str = "x",
    paired: bool = False,
) -> Tensor:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        if resample == "y" or (resample == "shorter" and len(b) < len(a)):
            a, b = b, a
        a = resampled(a, len(b))
        apart = (a.square().sum(-1) + b.square().sum(-1) - 2 * (a * b).sum(-1)).clamp(min=0)
        return (apart if squared else root(apart)).mean()

    return over_pairs(distance, x, y, xl, yl, paired)


def dtw(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    cost: str = "euclidean",
    paired: bool = False,
    **options: Any,
) -> Tensor:
    options = {"band": None, **options}
    return over_pairs(lambda a, b: dtw_of_cost(product_cost(a, b, cost), **options), x, y, xl, yl, paired)


def soft_dtw(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    paired: bool = False,
    **options: Any,
) -> Tensor:
    options = {"band": None, **options}
    return over_pairs(lambda a, b: soft_dtw_of_cost(product_cost(a, b, cost), gamma, **options), x, y, xl, yl, paired)


def sinkhorn(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    paired: bool = False,
) -> Tensor:
    def distance(a: Cloud, b: Cloud) -> Tensor:
        solver = Solver(epsilon, max_iterations, tolerance, scaling)
        return of_weighted_cost(product_cost(a.steps, b.steps, cost), solver, a.weights, b.weights)

    xs, ys = clouds(x, xl, x_weights), clouds(y, yl, y_weights)
    return over_items(distance, xs, ys, paired, x.new_zeros(0, dtype=accumulation_dtype(x)))


def chamfer(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    cost: str = "euclidean",
    direction: str = "x",
    paired: bool = False,
) -> Tensor:
    return over_pairs(lambda a, b: chamfer_of_cost(product_cost(a, b, cost), direction), x, y, xl, yl, paired)


def interpolated_cosine(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    resample: str = "x",
    mode: str = "linear",
    paired: bool = False,
) -> Tensor:
    def distance(a: Tensor, b: Tensor) -> Tensor:
        if resample == "y" or (resample == "shorter" and len(b) < len(a)):
            a, b = b, a
        return 1 - cosine_similarity(resampled(a, len(b), mode), b, eps=1e-8).mean()

    return over_pairs(distance, x, y, xl, yl, paired)


def soft_dtw_divergence(x: Tensor, y: Tensor, xl: Lengths = None, yl: Lengths = None, **options: Any) -> Tensor:
    return debiased(soft_dtw, x, y, xl, yl, **options)


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    xl: Lengths = None,
    yl: Lengths = None,
    *,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    **options: Any,
) -> Tensor:
    # Each side with the weights that it has as x, then as y.
    weighted = partial(sinkhorn, x_weights=x_weights, y_weights=y_weights)
    of_x = partial(sinkhorn, x_weights=x_weights, y_weights=x_weights)
    of_y = partial(sinkhorn, x_weights=y_weights, y_weights=y_weights)
    return debiased(weighted, x, y, xl, yl, within=(of_x, of_y), **options)


def debiased(
    distance: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    xl: Lengths,
    yl: Lengths,
    *,
    within: tuple[Callable[..., Tensor], Callable[..., Tensor]] | None = None,
    paired: bool = False,
    **options: Any,
) -> Tensor:
    """`within`: the distances of x from itself and of y from itself, where they are not `distance`."""
    of_x, of_y = (
        own(steps, steps, lengths, lengths, paired=True, **options)
        for own, steps, lengths in zip(within or (distance, distance), (x, y), (xl, yl), strict=True)
    )
    return distance(x, y, xl, yl, paired=paired, **options) - ((of_x if paired else of_x[:, None]) + of_y) / 2


def product_cost(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """x (n, D), y (m, D) -> (n, m)."""
    if kind == "cosine":
        return 1 - normalize(x, eps=1e-8) @ normalize(y, eps=1e-8).T
    squared = (x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T).clamp(min=0)
    return root(squared) if kind == "euclidean" else squared
