"""The one table of this folder: ops of ours, a peer's function, how its value becomes ours, how far apart they may be.

Tolerances say what separates the two: the order of sums where both are exact, float32 where the peer rounds to that
inside, or how far an iteration gets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from ops.cases import Case
from ops.inputs import Sequences, Shape
from torch import Tensor

from . import libraries as lib


class Tolerance(NamedTuple):
    """For float64, relative to the largest entry. No gradient: the peer has none."""

    value: float
    gradient: float | None = None


# The same sums in another order; soft-DTW's gradient multiplies one weight per step.
EXACT, EXACT_VALUE = Tolerance(1e-13, 1e-12), Tolerance(1e-13)
# The peer rounds accumulated costs to float32 and takes exponentials of their differences over gamma.
SINGLE = Tolerance(1e-7, 1e-4)
# Both iterate until marginals err by 1e-13. The value is stationary in that error, the gradient, the plan, is not.
CONVERGED, CONVERGED_VALUE = Tolerance(1e-12, 1e-10), Tolerance(1e-12)
# The peer's epsilon still falls by 1e-6 an iteration.
ANNEALED = Tolerance(1e-10, 1e-5)
# 0 ≤ OT − Wasserstein ≤ epsilon log min(n, m), of distances about 1.
VANISHING = 1e-4
LIMIT, LIMIT_VALUE = Tolerance(3e-4, 1e-4), Tolerance(3e-4)

ONE_STEP = Shape(3, 3, 1, 7, 3, ragged=False)
# The first warps far enough for a band to matter.
RAGGED = (Shape(3, 3, 12, 10, 2), ONE_STEP, Shape(3, 3, 40, 3, 8))
FULL = (Shape(3, 3, 12, 10, 2, ragged=False), ONE_STEP, Shape(3, 3, 40, 3, 8, ragged=False))
EQUAL = (Shape(3, 3, 7, 7, 4, ragged=False),)
SCALARS = (Shape(3, 3, 12, 10, 1), Shape(3, 3, 40, 3, 1))


def all_pairs(case: Case, given: Sequences) -> Tensor:
    return case.kernel(*given, **case.converged)


def pairs(case: Case, given: Sequences) -> Tensor:
    return case.kernel(*given, paired=True, **case.converged)


def of_cost(case: Case, given: Sequences) -> Tensor:
    """Through costs computed outside, in the sequences' dtype."""
    cost = lib.ground_cost(given.x[:, None], given.y[None], "euclidean")  # (B1, B2, N, M)
    return case.kernel(cost, given.x_lengths, given.y_lengths, **case.converged)


def first_pair(case: Case, given: Sequences) -> Tensor:
    return case.kernel(given.x[0], given.y[0], **case.converged)


@dataclass(frozen=True, eq=False)
class Row:
    cases: tuple[Case, ...]
    peer: str
    theirs: lib.Answers
    tolerance: Tolerance
    conversion: str = "none"
    ours: Callable[[Case, Sequences], Tensor] = all_pairs
    shapes: tuple[Shape, ...] = RAGGED


def cases(metric: str, *choices: dict[str, Any], weighted: bool = False) -> tuple[Case, ...]:
    """One per choice of options; Sinkhorn runs to convergence."""
    until = {"max_iterations": 100_000, "tolerance": 1e-13} if metric.startswith("sinkhorn") else {}
    return tuple(Case(call(metric, options, weighted), metric, options, until, weighted) for options in choices)


def call(function: str, options: dict[str, Any], weighted: bool) -> str:
    given = [f"{name}={value!r}" for name, value in options.items()] + ["x_weights=a, y_weights=b"] * weighted
    return f"{function}({', '.join(given)})".replace("'", '"')


SQUARED = {"cost": "sqeuclidean"}
GAMMAS = {"gamma": 1.0}, {"gamma": 0.1}
EPSILON = {"epsilon": 0.1}
# Between a sequence and itself Sinkhorn converges slowly; less so with a larger epsilon.
BLUNT = {"epsilon": 1.0}

DTW = cases("dtw", {}, {"band": 1})
DTW_SQUARED = cases("dtw", SQUARED, {**SQUARED, "band": 0}, {**SQUARED, "band": 1})
DTW_PENALTY = cases("dtw", {"step_penalty": 0.3}, {**SQUARED, "step_penalty": 0.3})
BEGIN, END = {"open_begin": True}, {"open_end": True}
SUBSEQUENCE = {**BEGIN, **END}
DTW_OPEN = cases("dtw", BEGIN, END, SUBSEQUENCE, {**SQUARED, **SUBSEQUENCE, "step_penalty": 0.3})
SYMMETRIC2 = {"diagonal_weight": 2.0}
LIBROSA = [{}, SUBSEQUENCE, {**SYMMETRIC2, "step_penalty": 0.3}, {**SUBSEQUENCE, **SYMMETRIC2, "step_penalty": 0.3}]
SOFT_DTW = cases("soft_dtw", *GAMMAS)
SOFT_DTW_BANDED = cases("soft_dtw", {"gamma": 0.1, "band": 2})
SOFT_DTW_DIVERGENCE = cases("soft_dtw_divergence", *GAMMAS)
SINKHORN = cases("sinkhorn", EPSILON)
CHAMFER = cases("chamfer", {}, {**SQUARED, "direction": "y"}, {"direction": "both"})
CHAMFER_COSINE = cases("chamfer", {"cost": "cosine"})
COSINE = cases("interpolated_cosine", {}, {"mode": "nearest"})
SINKHORN_SQUARED = cases("sinkhorn", {**EPSILON, **SQUARED})
SINKHORN_WEIGHTED = cases("sinkhorn", EPSILON, weighted=True)
SINKHORN_SHARPEST = cases("sinkhorn", {"epsilon": VANISHING})
SINKHORN_DIVERGENCE = cases("sinkhorn_divergence", BLUNT)
SINKHORN_DIVERGENCE_WEIGHTED = cases("sinkhorn_divergence", BLUNT, weighted=True)
SINKHORN_DIVERGENCE_SQUARED = cases("sinkhorn_divergence", {**BLUNT, **SQUARED})

# What is done to the peer's value or options, and why.
ROOT = "square it: the library takes the root"
WINDOW = "square it: the library takes the root; `window` = `band` + 1"
DISTANCES = "none: the library takes no root here; `window` = `band` + 1"
PENALTY = "none with distances; of squares, square it, and `penalty`² = `step_penalty`"
PSI = "as before; `psi` = (0, 0, m − 1, m − 1) where both ends are open"
PATTERN = "`symmetric1` is the default, `symmetric2` is `diagonal_weight=2.0`, `normalizedDistance` is `normalize`"
LAST_ROW = "the least number in the last row of `costMatrix`"
SUMS = "the last sum, or the least in the last row; `weights_mul` = [w, 1, 1], `weights_add` = [0, p, p]"
FLIPPED = "reverse it; swap its columns where `subseq` and n > m"
LINEAR = "+ ε KL(P ‖ a⊗b): the library leaves the regularizer out"
SHANNON = "+ ε log(n m): its regularizer is Σ P log P"
HALVES = "× 2, with ε = 2 blur²: its cost is ‖x − y‖² / 2"
BLUR = "none; ε = blur"
NEAREST = "the mean of the smallest cost of each step"
MAXSIM = "1 − MaxSim / n of unit steps, as ColBERT scores"
FRAMES = "1 − the mean over steps, after `torch.nn.functional.interpolate`"
ZERO = "ε → 0, here 1e-4: the library does not regularize"

ROWS = [
    Row(DTW_SQUARED, "tslearn.metrics.dtw", lib.tslearn_dtw, EXACT, ROOT),
    Row(DTW_SQUARED, "tslearn.metrics.cdist_dtw", lib.tslearn_cdist_dtw, EXACT_VALUE, ROOT),
    Row(DTW, "tslearn.metrics.dtw_path_from_metric", lib.tslearn_dtw_from_metric, EXACT_VALUE),
    Row(
        cases("dtw_path", *(case.options for case in DTW_SQUARED)),
        "tslearn.metrics.dtw_path",
        lib.tslearn_dtw_path,
        EXACT_VALUE,
        ours=first_pair,
    ),
    Row(DTW_SQUARED, "dtaidistance.dtw.distance", lib.dtaidistance_dtw, EXACT_VALUE, WINDOW, shapes=SCALARS),
    Row(DTW_SQUARED, "dtaidistance.dtw_ndim.distance", lib.dtaidistance_dtw_ndim, EXACT_VALUE, WINDOW),
    Row(DTW_SQUARED, "dtaidistance.dtw_ndim.distance_fast", lib.dtaidistance_dtw_ndim_fast, EXACT_VALUE, WINDOW),
    Row(
        DTW,
        'dtaidistance.dtw_ndim.distance(inner_dist="euclidean")',
        lib.dtaidistance_dtw_ndim,
        EXACT_VALUE,
        DISTANCES,
    ),
    Row(DTW_PENALTY, "dtaidistance.dtw_ndim.distance(penalty)", lib.dtaidistance_dtw_ndim, EXACT_VALUE, PENALTY),
    Row(DTW_OPEN, "dtaidistance.dtw_ndim.distance(psi)", lib.dtaidistance_dtw_ndim, EXACT_VALUE, PSI),
    Row(
        cases("dtw", {}, SYMMETRIC2, {**SYMMETRIC2, "normalize": "steps"}),
        "dtw.dtw(step_pattern)",
        lib.dtw_python_distance,
        EXACT_VALUE,
        PATTERN,
    ),
    Row(
        cases("dtw", {"band": 1}, {**SYMMETRIC2, "band": 1}),
        'dtw.dtw(window_type="sakoechiba")',
        lib.dtw_python_distance,
        EXACT_VALUE,
        "`window_size` = `band` where n = m",
        shapes=EQUAL,
    ),
    Row(cases("dtw", {**SYMMETRIC2, **END}), "dtw.dtw(open_end)", lib.dtw_python_open_end, EXACT_VALUE, LAST_ROW),
    Row(
        cases("dtw_path", {}, SYMMETRIC2),
        "dtw.dtw(step_pattern).index1, index2",
        lib.dtw_python_path,
        EXACT_VALUE,
        ours=first_pair,
    ),
    Row(cases("dtw", *LIBROSA), "librosa.sequence.dtw(subseq)", lib.librosa_dtw, EXACT_VALUE, SUMS),
    Row(
        cases("dtw_path", *LIBROSA),
        "librosa.sequence.dtw(subseq)",
        lib.librosa_path,
        EXACT_VALUE,
        FLIPPED,
        ours=first_pair,
    ),
    Row(SOFT_DTW, "tslearn.metrics.soft_dtw", lib.tslearn_soft_dtw, EXACT),
    Row(SOFT_DTW + SOFT_DTW_BANDED, "tslearn.metrics.cdist_soft_dtw", lib.tslearn_cdist_soft_dtw, EXACT_VALUE),
    Row(
        SOFT_DTW + cases("soft_dtw", {"cost": "euclidean"}),
        "tslearn.metrics.SoftDTWLossPyTorch",
        lib.tslearn_soft_dtw_loss,
        SINGLE,
        ours=pairs,
        shapes=FULL,
    ),
    Row(SOFT_DTW, "pysdtw.SoftDTW", lib.pysdtw_soft_dtw, SINGLE, ours=pairs),
    Row(SOFT_DTW_BANDED, "pysdtw.SoftDTW(bandwidth)", lib.pysdtw_soft_dtw, SINGLE, "none where n = m", pairs, EQUAL),
    Row(SINKHORN, "ot.sinkhorn2", lib.pot_sinkhorn2, CONVERGED, LINEAR),
    Row(
        SINKHORN,
        'ot.sinkhorn2(method="sinkhorn_log")',
        partial(lib.pot_sinkhorn2, method="sinkhorn_log"),
        CONVERGED,
        LINEAR,
    ),
    Row(SINKHORN + SINKHORN_SQUARED, 'ot.solve(reg_type="KL")', lib.pot_solve, CONVERGED),
    Row(SINKHORN, "ot.batch.solve_batch", lib.pot_solve_batch, CONVERGED, SHANNON, pairs, FULL),
    Row(
        SINKHORN,
        'ot.batch.solve_batch(reg_type="kl")',
        partial(lib.pot_solve_batch, reg_type="kl"),
        CONVERGED,
        ours=pairs,
        shapes=FULL,
    ),
    Row(SINKHORN, "geomloss.SamplesLoss(p=1, debias=False)", lib.geomloss_loss, ANNEALED, BLUR, pairs),
    Row(SINKHORN_SQUARED, "geomloss.SamplesLoss(p=2, debias=False)", lib.geomloss_loss, ANNEALED, HALVES, pairs),
    Row(SINKHORN_WEIGHTED, "ot.sinkhorn2", partial(lib.pot_sinkhorn2, weigh=lib.by_step), CONVERGED, LINEAR),
    Row(
        SINKHORN_WEIGHTED,
        "geomloss.SamplesLoss(p=1, debias=False)",
        partial(lib.geomloss_loss, weighted=True),
        ANNEALED,
        BLUR,
        pairs,
    ),
    Row(SINKHORN_SHARPEST, "ot.emd2", lib.pot_emd2, LIMIT, ZERO),
    Row(SINKHORN_SHARPEST, "scipy.optimize.linprog", lib.scipy_linprog, LIMIT_VALUE, ZERO),
    Row(
        SINKHORN_SHARPEST, "scipy.optimize.linear_sum_assignment", lib.scipy_assignment, LIMIT_VALUE, ZERO, shapes=EQUAL
    ),
    Row(
        SINKHORN_SHARPEST, "scipy.stats.wasserstein_distance", lib.scipy_wasserstein, LIMIT_VALUE, ZERO, shapes=SCALARS
    ),
    Row(CHAMFER, "scipy.spatial.distance.cdist", lib.scipy_nearest, EXACT_VALUE, NEAREST),
    Row(CHAMFER_COSINE, "torch.matmul", lib.maxsim, EXACT, MAXSIM),
    Row(COSINE, "torch.nn.functional.cosine_similarity", lib.frame_cosines, EXACT, FRAMES),
    Row(
        SOFT_DTW_DIVERGENCE,
        "tslearn.metrics.cdist_soft_dtw_normalized",
        lib.tslearn_cdist_soft_dtw_normalized,
        EXACT_VALUE,
    ),
    Row(
        SOFT_DTW_DIVERGENCE,
        "tslearn.metrics.SoftDTWLossPyTorch(normalize=True)",
        lib.tslearn_soft_dtw_loss_normalized,
        SINGLE,
        ours=pairs,
        shapes=FULL,
    ),
    Row(SINKHORN_DIVERGENCE_SQUARED, "ot.solve_sample(debias=True)", lib.pot_solve_sample, CONVERGED),
    Row(SINKHORN_DIVERGENCE, "geomloss.SamplesLoss(p=1)", lib.geomloss_debiased, ANNEALED, BLUR, pairs),
    Row(
        SINKHORN_DIVERGENCE_WEIGHTED,
        "geomloss.SamplesLoss(p=1)",
        partial(lib.geomloss_debiased, weighted=True),
        ANNEALED,
        BLUR,
        pairs,
    ),
    Row(SINKHORN_DIVERGENCE_SQUARED, "geomloss.SamplesLoss(p=2)", lib.geomloss_debiased, ANNEALED, HALVES, pairs),
    Row(
        cases("dtw_from_cost", {}, {"band": 1}),
        'tslearn.metrics.dtw_path_from_metric(metric="precomputed")',
        lib.tslearn_dtw_of_cost,
        EXACT_VALUE,
        ours=of_cost,
    ),
    Row(
        cases("dtw_from_cost", {"normalize": "path"}),
        "torchdtw.dtw_batch",
        lib.torchdtw_of_cost,
        EXACT_VALUE,
        ours=of_cost,
    ),
    Row(cases("dtw_path", {}), "torchdtw.dtw_path", lib.torchdtw_path, EXACT_VALUE, ours=first_pair),
    Row(
        cases("soft_dtw_from_cost", *GAMMAS),
        "tslearn.metrics.SoftDTW",
        lib.tslearn_soft_dtw_of_cost,
        EXACT,
        ours=of_cost,
    ),
    Row(cases("sinkhorn_from_cost", EPSILON), 'ot.solve(reg_type="KL")', lib.pot_solve, CONVERGED, ours=of_cost),
    Row(
        cases("soft_dtw_alignment", *GAMMAS),
        "tslearn.metrics.soft_dtw_alignment",
        lib.tslearn_soft_dtw_alignment,
        Tolerance(EXACT.gradient),
        ours=first_pair,
    ),
    Row(
        cases("sinkhorn_plan", EPSILON), "ot.sinkhorn", lib.pot_sinkhorn, Tolerance(CONVERGED.gradient), ours=first_pair
    ),
]
