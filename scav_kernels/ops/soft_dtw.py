"""Soft-DTW, dynamic time warping with a smooth minimum: of sequences, debiased, and of given costs."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.checks import check_options, check_pair, check_tensors, declare_options
from scav_kernels.ops.costs import as_batch, over_pairs
from scav_kernels.ops.define import COSTS, GRADIENTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.divergence import divergence
from scav_kernels.ops.registry import METRICS, AlignmentMethod, Metric, with_closed_ends

# The options of paths, in the order of the schemas and of the public functions.
_PATHS = "int? band, bool open_begin, bool open_end"

define_op(
    "soft_dtw",
    f"({SEQUENCES}, float gamma, str cost, {_PATHS}, bool paired) -> Tensor",
    f"(Tensor grad, {SEQUENCES}, float gamma, str cost, {_PATHS}, bool paired, {NEEDS}) -> {GRADIENTS}",
)
define_op(
    "soft_dtw_from_cost",
    f"({COSTS}, float gamma, {_PATHS}) -> Tensor",
    f"(Tensor grad, {COSTS}, float gamma, {_PATHS}) -> Tensor",
)
refuse_missing_cuda("soft_dtw", "soft_dtw_from_cost")


@declare_options
def soft_dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """Soft-DTW, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m), 0 ≤ s < n, 0 ≤ t < m,

        r[s, t] = c[s, t] + softmin(r[s−1, t−1], r[s−1, t], r[s, t−1]),   r[0, 0] = c[0, 0],
        softmin(a) = −gamma log Σ exp(−a / gamma),

    and the distance is r[n−1, m−1]; it can be negative. The gradient in c is the expected alignment. Open ends add
    paths: the softmin is over them, too.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit; DTW as gamma → 0.
        cost: "sqeuclidean" ‖x_s − y_t‖₂², "euclidean" its root, or "cosine" 1 − cos(x_s, y_t). The default of
            ``dtw`` and ``sinkhorn`` is "euclidean".
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.
        open_begin: a path may start in any cell (0, t): r[0, t] = c[0, t] + softmin(0, r[0, t−1]).
        open_end: a path may end in any cell (n−1, t): the distance is the softmin over t of r[n−1, t].

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithms 1, 2.
    """
    return _distance(
        x,
        y,
        x_lengths,
        y_lengths,
        paired=False,
        gamma=gamma,
        cost=cost,
        band=band,
        open_begin=open_begin,
        open_end=open_end,
    )


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("soft_dtw", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    values = check_options("soft_dtw", **options)
    return torch.ops.scav.soft_dtw(x, y, x_lengths, y_lengths, *values, paired)


def _align(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Return the distances of pairs, (B,), and their expected alignments, (B, N, M)."""
    distances = _distance(x, y, x_lengths, y_lengths, paired=True, **options)
    return distances, _expected_alignment(x, y, x_lengths, y_lengths, *check_options("soft_dtw", **options))


def _expected_alignment(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    gamma: float,
    cost: str,
    *paths: Any,
) -> Tensor:
    """Return the expected alignments of pairs, (B, N, M); `paths` are the options after `cost`, in their order."""

    def weigh(costs: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None) -> Tensor:
        ones = costs.new_ones(len(costs))
        return torch.ops.scav.soft_dtw_from_cost_backward(ones, costs, x_lengths, y_lengths, gamma, *paths)

    return over_pairs(weigh, x, y, cost, x_lengths, y_lengths)


METRICS["soft_dtw"] = Metric(
    soft_dtw,
    partial(_distance, paired=True),
    sums_along_path=True,
    is_symmetric=with_closed_ends,
    alignment=AlignmentMethod(_align, "Soft-DTW alignment", "probability of being on the path"),
)


@declare_options
def soft_dtw_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """Soft-DTW divergence, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

        D(x, y) = soft_dtw(x, y) − (soft_dtw(x, x) + soft_dtw(y, y)) / 2,

    which is 0 at x = y, where ``soft_dtw`` is negative and not least. Self terms are computed once per sequence. Where
    x ≈ y it is a small difference of large numbers: pass float64 where its last digits count. Open ends are those of
    all three terms.

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit.
        cost: "sqeuclidean" ‖x_s − y_t‖₂², "euclidean" its root, or "cosine" 1 − cos(x_s, y_t).
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.
        open_begin, open_end: as in ``soft_dtw``. A divergence with open ends can be negative.

    Returns:
        (B1, B2) divergences, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Blondel, Mensch & Vert, "Differentiable Divergences Between Time Series", AISTATS 2021, equation 8.
    """
    return divergence(
        "soft_dtw",
        x,
        y,
        x_lengths,
        y_lengths,
        paired=False,
        gamma=gamma,
        cost=cost,
        band=band,
        open_begin=open_begin,
        open_end=open_end,
    )


METRICS["soft_dtw_divergence"] = Metric(
    soft_dtw_divergence,
    partial(divergence, "soft_dtw", paired=True),
    sums_along_path=True,
    is_symmetric=with_closed_ends,
)


@declare_options
def soft_dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    gamma: float = 1.0,
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """Soft-DTW of given costs: cost (B1, B2, N, M) -> (B1, B2), or one pair's (N, M) -> ().

    As ``soft_dtw``, whose recursion this is, with cost[i, j, s, t] between step s of x[i] and step t of y[j]. The
    gradient in the costs is the expected alignment, as ``soft_dtw_alignment`` shows it.

    Args:
        cost: (B1, B2, N, M) or (N, M), float32, float64, bfloat16 or float16; inf forbids a cell.
        x_lengths: (B1,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes
            nothing.
        y_lengths: (B2,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ M; None: all.
        gamma: smoothing > 0, in the cost's unit; DTW as gamma → 0.
        band: Sakoe-Chiba radius in steps, ≥ 0, as in ``dtw``. None: no band.
        open_begin, open_end: as in ``soft_dtw``.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        forbidden cells leave no path.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithms 1, 2.
    """
    check_tensors("soft_dtw_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    values = check_options("soft_dtw_from_cost", gamma=gamma, band=band, open_begin=open_begin, open_end=open_end)
    distances = torch.ops.scav.soft_dtw_from_cost(as_batch("soft_dtw_from_cost", cost), x_lengths, y_lengths, *values)
    return distances.reshape(()) if cost.dim() == 2 else distances


@declare_options
def soft_dtw_alignment(
    x: Tensor,
    y: Tensor,
    *,
    gamma: float = 1.0,
    cost: str = "sqeuclidean",
    band: int | None = None,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """Expected alignment of one pair, for inspection: x (N, D), y (M, D) -> E (N, M), 0 ≤ E ≤ 1.

    E[s, t] is the probability that cell (s, t) is on a path, where a path of cost c has probability ∝ exp(−c / gamma),
    and the derivative of ``soft_dtw`` in the cost of that cell. Options are as there; no gradient flows through E.

    Source: Cuturi & Blondel, "Soft-DTW: a Differentiable Loss Function for Time-Series", ICML 2017, algorithm 2.
    """
    check_pair("soft_dtw_alignment", x, y)
    values = check_options(
        "soft_dtw_alignment", gamma=gamma, cost=cost, band=band, open_begin=open_begin, open_end=open_end
    )
    with torch.no_grad():
        return _expected_alignment(x[None], y[None], None, None, *values)[0]
