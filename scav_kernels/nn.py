"""The distances as modules, for where a model or a loss is put together from modules."""

from typing import Any

import torch
from torch import Tensor, nn

from scav_kernels.distance import cdist, pairwise_distance
from scav_kernels.ops.registry import find_metric

__all__ = ["SequenceDistance", "SinkhornLoss", "SoftDTWLoss"]

_REDUCTIONS = ("mean", "sum", "none")


class _Metric(nn.Module):
    """A metric and its options, which its `repr` shows and which are tried once, before any data comes."""

    def __init__(self, metric: str, options: dict[str, Any]) -> None:
        super().__init__()
        self.metric = metric
        self.options = {**find_metric(metric, options).defaults(), **options}
        one = torch.zeros(1, 1, 1, device="cpu")
        pairwise_distance(one, one, metric=metric, **self.options)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self._shown().items())

    def _shown(self) -> dict[str, Any]:
        return self.options


class SequenceDistance(_Metric):
    """``cdist`` as a module: distances of all pairs, x (B1, N, D), y (B2, M, D) -> (B1, B2).

    Args:
        metric: the name of a distance of this package.
        **options: that function's keyword arguments.
    """

    def __init__(self, metric: str = "interpolated_euclidean", **options: Any) -> None:
        super().__init__(metric, options)

    def forward(self, x: Tensor, y: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None) -> Tensor:
        return cdist(x, y, x_lengths, y_lengths, metric=self.metric, **self.options)

    def _shown(self) -> dict[str, Any]:
        return {"metric": self.metric, **self.options}


class _PairwiseLoss(_Metric):
    """A paired distance, debiased or not, and reduced over the batch."""

    def __init__(self, metric: str, options: dict[str, Any], debias: bool, reduction: str) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"expected reduction to be one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}")
        if not isinstance(debias, bool):
            raise TypeError(f"expected debias to be a bool, got {debias!r} of type {type(debias).__name__}")
        super().__init__(f"{metric}_divergence" if debias else metric, options)
        self.debias = debias
        self.reduction = reduction

    def forward(self, x: Tensor, y: Tensor, x_lengths: Tensor | None = None, y_lengths: Tensor | None = None) -> Tensor:
        loss = pairwise_distance(x, y, x_lengths, y_lengths, metric=self.metric, **self.options)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def _shown(self) -> dict[str, Any]:
        return {**self.options, "debias": self.debias, "reduction": self.reduction}


class SoftDTWLoss(_PairwiseLoss):
    """Soft-DTW of x[i] from y[i]: x (B, N, D), y (B, M, D) -> (), or (B,) where ``reduction="none"``.

    Args:
        gamma: smoothing > 0, in the cost's unit.
        cost: "sqeuclidean", "euclidean" or "cosine".
        band: Sakoe-Chiba radius in steps, or None.
        debias: ``soft_dtw_divergence`` instead of ``soft_dtw``; other libraries call it normalised.
        reduction: over the batch, "mean", "sum" or "none".
    """

    def __init__(
        self,
        gamma: float = 1.0,
        *,
        cost: str = "sqeuclidean",
        band: int | None = None,
        debias: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__("soft_dtw", {"gamma": gamma, "cost": cost, "band": band}, debias, reduction)


class SinkhornLoss(_PairwiseLoss):
    """Entropic optimal transport of x[i] to y[i]: x (B, N, D), y (B, M, D) -> (), or (B,) where ``reduction="none"``.

    Args:
        epsilon: regularisation > 0, absolute, in the cost's unit.
        max_iterations: iterations ≥ 1 at most.
        tolerance: L1 marginal error ≥ 0 below which a pair stops; 0 runs all iterations.
        cost: "euclidean", "sqeuclidean" or "cosine".
        debias: ``sinkhorn_divergence`` instead of ``sinkhorn``.
        reduction: over the batch, "mean", "sum" or "none".
    """

    def __init__(
        self,
        epsilon: float = 0.05,
        *,
        max_iterations: int = 100,
        tolerance: float = 1e-3,
        cost: str = "euclidean",
        debias: bool = False,
        reduction: str = "mean",
    ) -> None:
        options = {"epsilon": epsilon, "max_iterations": max_iterations, "tolerance": tolerance, "cost": cost}
        super().__init__("sinkhorn", options, debias, reduction)
