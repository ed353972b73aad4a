"""The distances as modules, for where a model or a loss is put together from modules."""

import math
from collections.abc import Callable
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from scav_kernels.distance import cdist, pairwise_distance
from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.checks import WEIGHTS
from scav_kernels.ops.registry import find_metric, grows_with_steps

__all__ = ["SequenceContrastiveLoss", "SequenceDistance", "SinkhornLoss", "SoftDTWLoss"]

_REDUCTIONS = ("mean", "sum", "none")
_DEBIASED: dict[str, MetricName] = {"soft_dtw": "soft_dtw_divergence", "sinkhorn": "sinkhorn_divergence"}


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class _Metric(nn.Module):
    """A metric and its options, which its `repr` shows and which are tried once, before any data comes."""

    def __init__(self, metric: MetricName, options: MetricOptions) -> None:
        super().__init__()
        if given := [name for name in WEIGHTS if name in options]:
            raise TypeError(
                f"expected options of the distance alone, got {' and '.join(given)}, which belong to a batch; "
                "pass them with its sequences"
            )
        if "return_convergence" in options:
            raise TypeError(
                f"expected options of the distance alone, got return_convergence; {metric} returns it, this module "
                "does not"
            )
        self.metric: MetricName = metric
        self.options: dict[str, Any] = {**find_metric(metric, options).defaults(), **options}
        one = torch.zeros(1, 1, 1, device="cpu")
        pairwise_distance(one, one, metric=metric, **self.options)

    def extra_repr(self) -> str:
        return _listed(self._shown())

    def _shown(self) -> dict[str, Any]:
        return self.options


class SequenceDistance(_Metric):
    """``cdist`` as a module: distances of all pairs, x (B1, N, D), y (B2, M, D) -> (B1, B2).

    A metric that takes ``x_weights`` and ``y_weights`` takes them with the sequences.

    Args:
        metric: the name of a distance of this package.
        **options: that function's keyword arguments. The default ``cost`` of "soft_dtw" and "soft_dtw_divergence" is
            "sqeuclidean"; that of "dtw", "sinkhorn", "sinkhorn_divergence" and "chamfer" is "euclidean".
    """

    def __init__(self, metric: MetricName = "interpolated_euclidean", **options: Unpack[MetricOptions]) -> None:
        super().__init__(metric, options)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        **weights: Tensor | None,
    ) -> Tensor:
        options: dict[str, Any] = {**self.options, **weights}
        return cdist(x, y, x_lengths, y_lengths, metric=self.metric, **options)

    def _shown(self) -> dict[str, Any]:
        return {"metric": self.metric, **self.options}


class _PairwiseLoss(_Metric):
    """A paired distance, debiased or not, and reduced over the batch."""

    def __init__(
        self, metric: Literal["soft_dtw", "sinkhorn"], options: MetricOptions, debias: bool, reduction: str
    ) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"expected reduction to be one of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}")
        if not isinstance(debias, bool):
            raise TypeError(f"expected debias to be a bool, got {debias!r} of type {type(debias).__name__}")
        super().__init__(_DEBIASED[metric] if debias else metric, options)
        self.debias = debias
        self.reduction = reduction

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        **weights: Tensor | None,
    ) -> Tensor:
        options: dict[str, Any] = {**self.options, **weights}
        loss = pairwise_distance(x, y, x_lengths, y_lengths, metric=self.metric, **options)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def _shown(self) -> dict[str, Any]:
        return {**self.options, "debias": self.debias, "reduction": self.reduction}


class SoftDTWLoss(_PairwiseLoss):
    """Soft-DTW of x[i] from y[i]: x (B, N, D), y (B, M, D) -> (), or (B,) where ``reduction="none"``.

    Args:
        gamma: smoothing > 0, in the cost's unit.
        cost: "sqeuclidean", "euclidean" or "cosine". The default differs from ``SinkhornLoss``'s.
        band: Sakoe-Chiba radius in steps, or None.
        open_begin: a path may start at any step of y.
        open_end: a path may end at any step of y.
        debias: ``soft_dtw_divergence`` instead of ``soft_dtw``; other libraries call it normalized.
        reduction: over the batch, "mean", "sum" or "none".
    """

    def __init__(
        self,
        gamma: float = 1.0,
        *,
        cost: str = "sqeuclidean",
        band: int | None = None,
        open_begin: bool = False,
        open_end: bool = False,
        debias: bool = False,
        reduction: str = "mean",
    ) -> None:
        options: MetricOptions = {
            "gamma": gamma,
            "cost": cost,
            "band": band,
            "open_begin": open_begin,
            "open_end": open_end,
        }
        super().__init__("soft_dtw", options, debias, reduction)


class SinkhornLoss(_PairwiseLoss):
    """Entropic optimal transport of x[i] to y[i]: x (B, N, D), y (B, M, D) -> (), or (B,) where ``reduction="none"``.

    Weights of steps, ``x_weights`` (B, N) and ``y_weights`` (B, M), are passed with the sequences.

    Args:
        epsilon: regularization > 0, absolute, in the cost's unit.
        max_iterations: iterations ≥ 1 at most.
        tolerance: L1 marginal error ≥ 0 below which a pair stops; 0 runs all iterations.
        cost: "euclidean", "sqeuclidean" or "cosine". The default differs from ``SoftDTWLoss``'s.
        scaling: None, or a factor in (0, 1) by which the iterations approach ``epsilon`` from the largest cost.
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
        scaling: float | None = None,
        debias: bool = False,
        reduction: str = "mean",
    ) -> None:
        options: MetricOptions = {
            "epsilon": epsilon,
            "max_iterations": max_iterations,
            "tolerance": tolerance,
            "cost": cost,
            "scaling": scaling,
        }
        super().__init__("sinkhorn", options, debias, reduction)


def symmetric_cross_entropy(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy over rows and columns of logits (B, B), in nats; the diagonal is the truth."""
    truth = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits.T, truth)) / 2


class LearnedScale(nn.Module):
    """Factor from distance to logit, exp(log_scale), learned within bounds."""

    def __init__(self, scale: float, learn_scale: bool, min_scale: float, max_scale: float) -> None:
        if not 0 < min_scale <= scale <= max_scale < math.inf:
            raise ValueError(
                f"expected 0 < min_scale <= scale <= max_scale, all finite, got {min_scale}, {scale} and {max_scale}"
            )
        super().__init__()
        self.bounds = (math.log(min_scale), math.log(max_scale))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn_scale)

    @property
    def scale(self) -> Tensor:
        """The factor from distance to logit, a scalar within its bounds."""
        # The parameter itself is moved back into the bounds: behind a clamped output it would get no gradient.
        with torch.no_grad():
            self.log_scale.clamp_(*self.bounds)
        return self.log_scale.exp()

    def logits(self, distance: Tensor) -> Tensor:
        return -self.scale * distance


class SequenceContrastiveLoss(LearnedScale):
    """Contrastive loss between sequences: x (B, N, D), y (B, M, D) -> (), in nats.

    x[i] belongs to y[i]. The loss is the mean of two cross-entropies: of finding y[i] among all y, given x[i], and of
    finding x[i] among all x, given y[i]. The logit of a pair is −scale · distance. The default scale suits steps of
    length 1, e.g. ``torch.nn.functional.normalize(x, dim=-1)``.

    Where several processes train together, each passes its own B sequences and a ``gather``. It then computes the
    distances of its x from the y of all processes. The loss is that of all sequences, the same in every process, and
    the mean of the processes' gradients, which ``DistributedDataParallel`` computes, is its gradient.

    Args:
        metric: the name of a distance of this package.
        scale: initial factor from distance to logit, in 1 / distance.
        learn_scale: learn the factor, as the parameter ``log_scale``.
        min_scale: lower bound of the factor.
        max_scale: upper bound of the factor.
        per_step: divide each distance by the steps of its pair, n + m; None does so for metrics that sum costs along a
            path (DTW and its kin) and are not normalized.
        gather: gather(rows) returns the rows (B, ...) of all processes by rank, in one tensor, and its backward sums
            the gradients of all: ``lambda rows: torch.cat(torch.distributed.nn.functional.all_gather(rows))``. It
            gathers y, y_lengths and y_weights if there are any, and distances. All processes must pad to as many steps.
        **options: keyword arguments of the metric.

    Source: Tsiamas et al., "Sequential Contrastive Audio-Visual Learning", ICASSP 2025, arXiv 2407.05782.
    """

    def __init__(
        self,
        metric: MetricName = "interpolated_euclidean",
        *,
        scale: float = 14.3,
        learn_scale: bool = True,
        min_scale: float = 0.01,
        max_scale: float = 100.0,
        per_step: bool | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        **options: Unpack[MetricOptions],
    ) -> None:
        super().__init__(scale, learn_scale, min_scale, max_scale)
        distance = SequenceDistance(metric, **options)
        self.metric, self.options = metric, distance.options
        self.per_step = grows_with_steps(metric, self.options) if per_step is None else per_step
        self.gather = gather

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        x_lengths: Tensor | None = None,
        y_lengths: Tensor | None = None,
        **weights: Tensor | None,
    ) -> Tensor:
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"expected x and y of one batch size, at least 1, got {len(x)} and {len(y)} sequences")
        if self.gather is not None:
            y, y_lengths = self.gather(y), None if y_lengths is None else self.gather(y_lengths)
            if (y_weights := weights.get("y_weights")) is not None:
                weights["y_weights"] = self.gather(y_weights)
        options: dict[str, Any] = {**self.options, **weights}
        distance = cdist(x, y, x_lengths, y_lengths, metric=self.metric, **options)  # own x, all y
        if self.per_step:
            n = x.shape[1] if x_lengths is None else x_lengths[:, None]
            m = y.shape[1] if y_lengths is None else y_lengths
            distance = distance / (n + m)
        if self.gather is not None:
            distance = self.gather(distance)
            if distance.shape[0] != distance.shape[1]:
                raise ValueError(
                    "expected gather to return the rows of all processes, got distances of all x from all y of shape "
                    f"{tuple(distance.shape)}; concatenate what torch.distributed.nn.functional.all_gather returns"
                )
            if distance.requires_grad:
                # The backward of torch's all_gather over gloo misreads gradients that are not contiguous.
                distance.register_hook(Tensor.contiguous)
        return symmetric_cross_entropy(self.logits(distance))

    def extra_repr(self) -> str:
        return _listed({"metric": self.metric, "per_step": self.per_step, **self.options})
