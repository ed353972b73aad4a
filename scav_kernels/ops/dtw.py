"""Dynamic time warping, of sequences and of given costs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.checks import check_options, check_pair, check_tensors, declare_options
from scav_kernels.ops.costs import as_batch
from scav_kernels.ops.define import COSTS, GRADIENTS, NEEDS, SEQUENCES, define_op, refuse_missing_cuda
from scav_kernels.ops.fakes import Arguments, steps_of_x, steps_of_y
from scav_kernels.ops.registry import METRICS, AlignmentMethod, Metric, with_closed_ends

# The options of a path, in the order of the schemas and of the public functions.
_PATHS = "int? band, float step_penalty, float diagonal_weight, bool open_begin, bool open_end, str? normalize"
_UP, _LEFT, _PATH_END, _SKIPPED = 1, 2, 3, 4  # csrc/shared/dtw.h


def _fake_path(distances: Tensor, given: Arguments) -> tuple[Tensor]:
    """Return `path` (B1, B2, N + M) uint8, empty unless save_path: an optimal path from its end to its start.

    Its steps are 0 to (s-1, t-1), _UP to (s-1, t) and _LEFT to (s, t-1); _PATH_END fills the rest. Before them comes a
    _SKIPPED for each step of y after the end.
    """
    shape = (*distances.shape, steps_of_x(given) + steps_of_y(given)) if given["save_path"] else (0,)
    return (distances.new_empty(shape, dtype=torch.uint8),)


define_op(
    "dtw",
    f"({SEQUENCES}, str cost, {_PATHS}, bool paired, bool save_path) -> (Tensor out, Tensor path)",
    f"(Tensor grad, {SEQUENCES}, Tensor out, Tensor path, str cost, float diagonal_weight, str? normalize, "
    f"bool paired, {NEEDS}) -> {GRADIENTS}",
    _fake_path,
)
define_op(
    "dtw_from_cost",
    f"({COSTS}, {_PATHS}, bool save_path) -> (Tensor out, Tensor path)",
    f"(Tensor grad, {COSTS}, Tensor out, Tensor path, float diagonal_weight, str? normalize) -> Tensor",
    _fake_path,
)
refuse_missing_cuda("dtw", "dtw_from_cost")


@declare_options
def dtw(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    cost: str = "euclidean",
    band: int | None = None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
    normalize: str | None = None,
) -> Tensor:
    """Dynamic time warping, all pairs: x (B1, N, D), y (B2, M, D) -> (B1, B2).

    For a pair of n and m valid steps with ground costs c (n, m), 0 ≤ s < n, 0 ≤ t < m,

        r[s, t] = c[s, t] + min(r[s−1, t−1], r[s−1, t], r[s, t−1]),   r[0, 0] = c[0, 0],

    and the distance is r[n−1, m−1]: a sum along the path, in the cost's unit, not divided by the path's length. The
    gradient is that of the costs along one optimal path; ties take the diagonal, then s−1, then t−1. With a step
    penalty p and a diagonal weight w,

        r[s, t] = min(r[s−1, t−1] + w c[s, t], r[s−1, t] + c[s, t] + p, r[s, t−1] + c[s, t] + p),   r[0, 0] = c[0, 0].

    With both ends open, the distance is that of x from the nearest part of y (subsequence DTW).

    Args:
        x: (B1, N, D), float32, float64, bfloat16 or float16.
        y: (B2, M, D), like x.
        x_lengths: (B1,) int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes nothing.
        y_lengths: (B2,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        cost: "euclidean" ‖x_s − y_t‖₂, "sqeuclidean" its square, or "cosine" 1 − cos(x_s, y_t).
        band: Sakoe-Chiba radius in steps, ≥ 0: t − s stays in [−band − max(n−m, 0), band + max(m−n, 0)], the band
            that ``tslearn.metrics`` builds. Cells outside are not computed. None: no band. Open ends leave it as it is.
        step_penalty: added, ≥ 0, for each step of a path in only one of the sequences, in the cost's unit.
        diagonal_weight: factor > 0 of the cost of a cell that a path comes to diagonally. 2, with no penalty, gives
            every path of one pair the same total weight: the step pattern "symmetric2".
        open_begin: a path may start in any cell (0, t), where r[0, t] = c[0, t]. Of equal sums, it starts there.
        open_end: a path may end in any cell (n−1, t); of equal sums, in the first.
        normalize: "path" divides the distance by the number of cells on the optimal path, which its gradient takes for
            constant; "steps" by n + m. None: the sum.

    Returns:
        (B1, B2) distances, float64 for float64 inputs and float32 for all others.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    return _distance(
        x,
        y,
        x_lengths,
        y_lengths,
        paired=False,
        cost=cost,
        band=band,
        step_penalty=step_penalty,
        diagonal_weight=diagonal_weight,
        open_begin=open_begin,
        open_end=open_end,
        normalize=normalize,
    )


def _distance(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, *, paired: bool, **options: Any
) -> Tensor:
    check_tensors("dtw", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    values = check_options("dtw", **options)
    distances, _ = torch.ops.scav.dtw(x, y, x_lengths, y_lengths, *values, paired, False)
    return distances


def _is_symmetric(lengths: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return False for open ends, and where equal sums along paths of other lengths may give other distances."""
    return with_closed_ends(lengths, options) and options.get("normalize") != "path"


def _align(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor]:
    """Return the distances of pairs, (B,), and their paths as 0 and 1, (B, N, M)."""
    check_tensors("dtw", x=x, y=y, x_lengths=x_lengths, y_lengths=y_lengths)
    values = check_options("dtw", **options)
    distances, codes = torch.ops.scav.dtw(x, y, x_lengths, y_lengths, *values, True, True)
    n, m = _valid_lengths(x, x_lengths), _valid_lengths(y, y_lengths)
    s, t = _cells(codes, n, m)
    # No path leads through an infinite cost.
    on_path = (distances.isfinite()[:, None] & (codes != _SKIPPED)).to(distances.dtype)
    zeros = distances.new_zeros(1, 1).expand(len(x), x.shape[1] * y.shape[1])
    weights = zeros.scatter(1, s * y.shape[1] + t, on_path).unflatten(1, (x.shape[1], y.shape[1]))
    rows = torch.arange(x.shape[1], device=x.device)[:, None] < n[:, None, None]
    columns = torch.arange(y.shape[1], device=x.device) < m[:, None, None]
    unknown = distances.isnan()[:, None, None] & rows & columns
    return distances, weights.masked_fill_(unknown, torch.nan)


def _valid_lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the lengths of x (B, N, D), (B,). Those out of range, which make a distance NaN on a GPU, are in range."""
    steps = x.shape[1]
    return torch.full((len(x),), steps, device=x.device) if lengths is None else lengths.clamp(1, steps)


def _cells(codes: Tensor, n: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cells (s, t) of paths from their ends to their starts, s and t (B, L).

    codes (B, L) are the op's, n and m (B,) are valid lengths. The first cell of a path fills the rest; where a code is
    _SKIPPED, the cell lies behind the end.
    """
    moves = codes != _PATH_END
    s_moves = (moves & (codes != _LEFT) & (codes != _SKIPPED)).long()
    t_moves = (moves & (codes != _UP)).long()
    return n[:, None] - 1 - s_moves.cumsum(1) + s_moves, m[:, None] - 1 - t_moves.cumsum(1) + t_moves


METRICS["dtw"] = Metric(
    dtw,
    partial(_distance, paired=True),
    sums_along_path=True,
    is_symmetric=_is_symmetric,
    alignment=AlignmentMethod(_align, "DTW path"),
)


@declare_options
def dtw_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    band: int | None = None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
    normalize: str | None = None,
) -> Tensor:
    """Dynamic time warping of given costs: cost (B1, B2, N, M) -> (B1, B2), or one pair's (N, M) -> ().

    As ``dtw``, whose recursion, ties and gradient these are, with cost[i, j, s, t] between step s of x[i] and step t of
    y[j]. The gradient is that of the costs: 1 on one optimal path, 0 elsewhere; ``diagonal_weight`` and ``normalize``
    scale it.

    Args:
        cost: (B1, B2, N, M) or (N, M), float32, float64, bfloat16 or float16; inf forbids a cell.
        x_lengths: (B1,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ N; None: all. What lies beyond changes
            nothing.
        y_lengths: (B2,), or (1,) for one pair, int64 valid steps, 1 ≤ length ≤ M; None: all.
        band, step_penalty, diagonal_weight, open_begin, open_end, normalize: as in ``dtw``.

    Returns:
        (B1, B2) or () distances, float64 for float64 costs and float32 for all others; inf, with zero gradient, where
        forbidden cells leave no path.

    Raises:
        ValueError, TypeError, RuntimeError: for inputs of the wrong shape, dtype, device or range.
    """
    check_tensors("dtw_from_cost", cost=cost, x_lengths=x_lengths, y_lengths=y_lengths)
    values = check_options(
        "dtw_from_cost",
        band=band,
        step_penalty=step_penalty,
        diagonal_weight=diagonal_weight,
        open_begin=open_begin,
        open_end=open_end,
        normalize=normalize,
    )
    distances, _ = torch.ops.scav.dtw_from_cost(as_batch("dtw_from_cost", cost), x_lengths, y_lengths, *values, False)
    return distances.reshape(()) if cost.dim() == 2 else distances


@declare_options
def dtw_path(
    x: Tensor,
    y: Tensor,
    *,
    cost: str = "euclidean",
    band: int | None = None,
    step_penalty: float = 0.0,
    diagonal_weight: float = 1.0,
    open_begin: bool = False,
    open_end: bool = False,
) -> Tensor:
    """Optimal path of one pair, for inspection: x (N, D), y (M, D) -> (L, 2) int64.

    Rows are the cells (s, t) whose costs ``dtw`` sums and through which its gradient flows, from (0, 0) to (N−1, M−1),
    or where open ends let the path start and end; ties and options are as there. Only where every cost is finite is
    there such a path.
    """
    check_pair("dtw_path", x, y)
    values = check_options(
        "dtw_path",
        cost=cost,
        band=band,
        step_penalty=step_penalty,
        diagonal_weight=diagonal_weight,
        open_begin=open_begin,
        open_end=open_end,
    )
    with torch.no_grad():
        _, codes = torch.ops.scav.dtw(x[None], y[None], None, None, *values, None, True, True)
    n, m = (torch.tensor([len(steps)], device=x.device) for steps in (x, y))
    cells = torch.stack(_cells(codes, n, m), 2)[0]
    skipped, end = int((codes[0] == _SKIPPED).sum()), int((codes[0] == _PATH_END).byte().argmax())
    return cells[skipped : end + 1].flip(0).cpu()
