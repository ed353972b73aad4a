"""Distances of other libraries for a batch of sequences, in this package's terms.

Every function takes `Sequences` and the options of an op of ours, translates them, and returns the distances of all
pairs (B1, B2), or of pairs (B,) where the library knows only those. Comments say what is translated, and why.
"""

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import dtw as dtw_python
import geomloss
import numpy as np
import ot
import ot.batch
import pysdtw
import scipy.optimize
import scipy.spatial
import scipy.stats
import torch
import torchdtw
from dtaidistance import dtw, dtw_ndim
from ops.cases import step_weights
from ops.inputs import Sequences
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from tslearn import metrics as tslearn

Answers = Callable[..., Tensor]


def each_pair(distance: Callable[..., Any]) -> Answers:
    """`distance` of x (n, D) and y (m, D), asked about the valid steps of all pairs: (B1, B2)."""

    @wraps(distance)
    def all_pairs(given: Sequences, **options: Any) -> Tensor:
        xs, ys = valid_steps(given)
        rows = [[torch.as_tensor(distance(x, y, **options), dtype=torch.float64) for y in ys] for x in xs]
        return torch.stack([torch.stack(row) for row in rows])

    return all_pairs


def first_pair(picture: Callable[..., Any]) -> Answers:
    """`picture` of the first pair, which has all its steps."""

    @wraps(picture)
    def of_first(given: Sequences, **options: Any) -> Tensor:
        return torch.as_tensor(picture(given.x[0].detach(), given.y[0].detach(), **options))

    return of_first


def valid_steps(given: Sequences) -> tuple[list[Tensor], list[Tensor]]:
    def cut(steps: Tensor, lengths: Tensor | None) -> list[Tensor]:
        return list(steps) if lengths is None else [s[:length] for s, length in zip(steps, lengths, strict=True)]

    return cut(given.x, given.x_lengths), cut(given.y, given.y_lengths)


def ground_cost(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """(..., n, D), (..., m, D) -> (..., n, m)."""
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if kind == "euclidean" else distance.square()


# tslearn. DTW is the root of the sum of squared distances; with a metric of one's own there is no root.


def datasets(given: Sequences) -> list[list[np.ndarray]]:
    """Ragged batches are lists of arrays."""
    return [[steps.detach().numpy() for steps in batch] for batch in valid_steps(given)]


@each_pair
def tslearn_dtw(x: Tensor, y: Tensor, cost: str, band: int | None = None) -> Tensor:
    assert cost == "sqeuclidean", "it has no other"
    return tslearn.dtw(x, y, sakoe_chiba_radius=band).square()


def tslearn_cdist_dtw(given: Sequences, cost: str, band: int | None = None) -> Tensor:
    assert cost == "sqeuclidean", "it has no other"
    return torch.as_tensor(tslearn.cdist_dtw(*datasets(given), sakoe_chiba_radius=band)).square()


@each_pair
def tslearn_dtw_from_metric(x: Tensor, y: Tensor, cost: str = "euclidean", band: int | None = None) -> float:
    a, b = x.detach().numpy(), y.detach().numpy()
    return tslearn.dtw_path_from_metric(a, b, metric=cost, sakoe_chiba_radius=band)[1]


@each_pair
def tslearn_dtw_of_cost(x: Tensor, y: Tensor, band: int | None = None) -> float:
    cost = ground_cost(x, y, "euclidean").detach().numpy()
    return tslearn.dtw_path_from_metric(cost, metric="precomputed", sakoe_chiba_radius=band)[1]


@first_pair
def tslearn_dtw_path(x: Tensor, y: Tensor, cost: str, band: int | None = None) -> list[tuple[int, int]]:
    assert cost == "sqeuclidean", "it has no other"
    return tslearn.dtw_path(x.numpy(), y.numpy(), sakoe_chiba_radius=band)[0]


@each_pair
def tslearn_soft_dtw(x: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    return tslearn.soft_dtw(x, y, gamma=gamma)


def tslearn_cdist_soft_dtw(given: Sequences, gamma: float = 1.0, band: int | None = None) -> Tensor:
    return torch.as_tensor(tslearn.cdist_soft_dtw(*datasets(given), gamma=gamma, sakoe_chiba_radius=band))


def tslearn_cdist_soft_dtw_normalized(given: Sequences, gamma: float = 1.0) -> Tensor:
    return torch.as_tensor(tslearn.cdist_soft_dtw_normalized(*datasets(given), gamma=gamma))


def tslearn_soft_dtw_loss(given: Sequences, gamma: float = 1.0, cost: str = "sqeuclidean", **options: Any) -> Tensor:
    # A copy, because it writes into the costs that it is given, which their backward pass may need.
    loss = tslearn.SoftDTWLossPyTorch(gamma, dist_func=lambda x, y: ground_cost(x, y, cost).clone(), **options)
    return loss(given.x, given.y)


def tslearn_soft_dtw_loss_normalized(given: Sequences, gamma: float = 1.0) -> Tensor:
    return tslearn_soft_dtw_loss(given, gamma, normalize=True)


@each_pair
def tslearn_soft_dtw_of_cost(x: Tensor, y: Tensor, gamma: float = 1.0) -> Tensor:
    cost = ground_cost(x, y, "euclidean")
    recursion = tslearn.SoftDTW(cost.detach().numpy(), gamma=gamma)
    value, gradient = recursion.compute(), torch.as_tensor(recursion.grad())
    return with_gradient(value, gradient, cost)


def with_gradient(value: float, gradient: Tensor, cost: Tensor) -> Tensor:
    """`value`, as a tensor whose gradient in `cost` is `gradient`."""
    linear = (gradient * cost).sum()
    return value + (linear - linear.detach())


@first_pair
def tslearn_soft_dtw_alignment(x: Tensor, y: Tensor, gamma: float = 1.0) -> np.ndarray:
    return tslearn.soft_dtw_alignment(x.numpy(), y.numpy(), gamma=gamma)[0]


# torchdtw. DTW is the sum over the number of steps on the path.


def torchdtw_of_cost(given: Sequences, normalize: str) -> Tensor:
    assert normalize == "path", "it has no other"
    cost = ground_cost(given.x[:, None], given.y[None], "euclidean").contiguous()  # (B1, B2, N, M)
    lengths = (
        torch.full((len(steps),), steps.shape[1]) if valid is None else valid
        for steps, valid in ((given.x, given.x_lengths), (given.y, given.y_lengths))
    )
    return torchdtw.dtw_batch(cost, *lengths, symmetric=False)


@first_pair
def torchdtw_path(x: Tensor, y: Tensor) -> Tensor:
    return torchdtw.dtw_path(ground_cost(x, y, "euclidean"))


# dtaidistance. A window counts the diagonal: 1 is a band of 0. DTW is the root of the sum of squared distances and
# squared penalties, but with distances themselves the sum. `psi` is how many steps a path may leave out at the start
# and the end of either sequence.


def dtaidistance_of(distance: Callable[..., float]) -> Callable[..., float]:
    def of_pair(
        x: Tensor,
        y: Tensor,
        cost: str = "euclidean",
        band: int | None = None,
        step_penalty: float = 0.0,
        open_begin: bool = False,
        open_end: bool = False,
    ) -> float:
        a, b = (np.ascontiguousarray(steps.detach().numpy()) for steps in (x, y))
        squared = cost == "sqeuclidean"
        options: dict[str, Any] = {"inner_dist": "squared euclidean" if squared else "euclidean"}
        if band is not None:
            options["window"] = band + 1
        if step_penalty:
            options["penalty"] = step_penalty**0.5 if squared else step_penalty
        if open_begin or open_end:
            options["psi"] = (0, 0, (len(y) - 1) * open_begin, (len(y) - 1) * open_end)
        value = distance(a, b, **options)
        return value**2 if squared else value

    return of_pair


dtaidistance_dtw = each_pair(dtaidistance_of(lambda a, b, **options: dtw.distance(a[:, 0], b[:, 0], **options)))
dtaidistance_dtw_ndim = each_pair(dtaidistance_of(dtw_ndim.distance))
dtaidistance_dtw_ndim_fast = each_pair(dtaidistance_of(dtw_ndim.distance_fast))


# dtw-python. With open ends it stops where the sum divided by the number of steps is least; ours where the sum is. The
# numbers of the path's cells are in `index1` and `index2`.


def dtw_python_of(x: Tensor, y: Tensor, diagonal_weight: float = 1.0, band: int | None = None, **options: Any) -> Any:
    if band is not None:
        options |= {"window_type": "sakoechiba", "window_args": {"window_size": band}}
    pattern = {1.0: "symmetric1", 2.0: "symmetric2"}[diagonal_weight]
    return dtw_python.dtw(ground_cost(x, y, "euclidean").detach().numpy(), step_pattern=pattern, **options)


@each_pair
def dtw_python_distance(x: Tensor, y: Tensor, normalize: str | None = None, **options: Any) -> float:
    found = dtw_python_of(x, y, distance_only=True, **options)
    return found.distance if normalize is None else found.normalizedDistance


@each_pair
def dtw_python_open_end(x: Tensor, y: Tensor, open_end: bool, **options: Any) -> float:
    return dtw_python_of(x, y, keep_internals=True, open_end=open_end, **options).costMatrix[-1].min()


@first_pair
def dtw_python_path(x: Tensor, y: Tensor, **options: Any) -> np.ndarray:
    found = dtw_python_of(x, y, **options)
    return np.stack([found.index1, found.index2], 1)


# librosa. Its steps are the diagonal one, that in y and that in x. The path begins at its end, and has its columns
# swapped in a subsequence with n > m.


def librosa_of(
    x: Tensor, y: Tensor, open_begin: bool = False, open_end: bool = False, **options: float
) -> tuple[np.ndarray, np.ndarray]:
    import librosa.sequence  # seconds, which tests of the table need not spend

    assert open_begin == open_end, "it has both or none"
    weight, penalty = options.get("diagonal_weight", 1.0), options.get("step_penalty", 0.0)
    return librosa.sequence.dtw(
        C=ground_cost(x, y, "euclidean").detach().numpy(),
        subseq=open_end,
        weights_mul=np.array([weight, 1.0, 1.0]),
        weights_add=np.array([0.0, penalty, penalty]),
    )


@each_pair
def librosa_dtw(x: Tensor, y: Tensor, **options: Any) -> float:
    sums, _ = librosa_of(x, y, **options)
    return sums[-1].min() if options.get("open_end") else sums[-1, -1]


@first_pair
def librosa_path(x: Tensor, y: Tensor, **options: Any) -> np.ndarray:
    _, path = librosa_of(x, y, **options)
    swapped = options.get("open_end", False) and len(x) > len(y)
    return path[::-1, :: -1 if swapped else 1].copy()


# pysdtw. Its bandwidth is ours where n = m, but 0 means none; where n ≠ m it follows the slanted diagonal.


def pysdtw_soft_dtw(given: Sequences, gamma: float = 1.0, band: int | None = None) -> Tensor:
    def packed(steps: Tensor, lengths: Tensor | None) -> Tensor | PackedSequence:
        return steps if lengths is None else pack_padded_sequence(steps, lengths, True, enforce_sorted=False)

    loss = pysdtw.SoftDTW(gamma, use_cuda=False, bandwidth=band)
    return loss(packed(given.x, given.x_lengths), packed(given.y, given.y_lengths))


# POT. Where it solves for the plan alone, the regulariser is added to its value.

UNTIL = {"numItermax": 20_000, "stopThr": 1e-13}
UNTIL_SOLVED = {"max_iter": 20_000, "tol": 1e-13}


def uniform(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(torch.full(steps.shape[:1], 1 / len(steps), dtype=steps.dtype) for steps in (x, y))


def by_step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights that differ, with zeros, scaled to sum 1."""
    return tuple(of / of.sum(-1, keepdim=True) for of in (step_weights(x), step_weights(y)))


def relative_entropy(plan: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """KL(P ‖ a ⊗ b)."""
    moved = plan > 0
    return (plan[moved] * (plan[moved] / torch.outer(a, b)[moved]).log()).sum()


@each_pair
def pot_emd2(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    return ot.emd2(*uniform(x, y), ground_cost(x, y, "euclidean"))


@each_pair
def pot_sinkhorn2(
    x: Tensor, y: Tensor, epsilon: float, method: str = "sinkhorn", weigh: Callable[..., Any] = uniform
) -> Tensor:
    a, b = weigh(x, y)
    # Its gradients are NaN where a step weighs nothing.
    x, y, a, b = x[a > 0], y[b > 0], a[a > 0], b[b > 0]
    problem = a, b, ground_cost(x, y, "euclidean"), epsilon, method
    transport, plan = ot.sinkhorn2(*problem, **UNTIL), ot.sinkhorn(*problem, **UNTIL)
    return transport + epsilon * relative_entropy(plan, a, b)


@each_pair
def pot_solve(x: Tensor, y: Tensor, epsilon: float, cost: str = "euclidean") -> Tensor:
    return ot.solve(ground_cost(x, y, cost), reg=epsilon, reg_type="KL", **UNTIL_SOLVED).value


def pot_solve_batch(given: Sequences, epsilon: float, reg_type: str = "entropy") -> Tensor:
    cost = ground_cost(given.x, given.y, "euclidean")  # (B, N, M)
    value = ot.batch.solve_batch(cost, epsilon, reg_type=reg_type, **UNTIL_SOLVED).value
    # Σ P log P is KL(P ‖ a ⊗ b) − log(n m).
    return value + epsilon * math.log(cost[0].numel()) if reg_type == "entropy" else value


@each_pair
def pot_solve_sample(x: Tensor, y: Tensor, epsilon: float, cost: str, debias: bool = True) -> Tensor:
    return ot.solve_sample(x, y, metric=cost, reg=epsilon, debias=debias, **UNTIL_SOLVED).value


@first_pair
def pot_sinkhorn(x: Tensor, y: Tensor, epsilon: float, weigh: Callable[..., Any] = uniform) -> Tensor:
    return ot.sinkhorn(*weigh(x, y), ground_cost(x, y, "euclidean"), epsilon, **UNTIL)


# GeomLoss. Its cost is ‖x − y‖^p / p and its epsilon blur^p: with p = 2, half of ours both.


def geomloss_loss(
    given: Sequences, epsilon: float, cost: str = "euclidean", debias: bool = False, weighted: bool = False
) -> Tensor:
    p = 1 if cost == "euclidean" else 2
    blur = (epsilon / p) ** (1 / p)
    # A thousand iterations just above the last epsilon; by default there are a few on the way there from the diameter.
    schedule = {"diameter": 1.001 * blur, "scaling": 1 - 1e-6}
    # Its own distance is never below 1e-4, which shows where a sequence is compared with itself.
    distance = partial(ground_cost, kind=cost) if p == 1 else None
    loss = geomloss.SamplesLoss(p=p, blur=blur, debias=debias, cost=distance, backend="tensorized", **schedule)
    # Steps beyond a length weigh nothing.
    a, b = weights(given.x, given.x_lengths, weighted), weights(given.y, given.y_lengths, weighted)
    return p * loss(a, given.x, b, given.y)


def geomloss_debiased(given: Sequences, epsilon: float, cost: str = "euclidean", weighted: bool = False) -> Tensor:
    return geomloss_loss(given, epsilon, cost, debias=True, weighted=weighted)


def weights(steps: Tensor, lengths: Tensor | None, weighted: bool) -> Tensor:
    """(B, N) of sum 1 over valid steps: uniform, or by step."""
    valid = step_weights(steps).clone() if weighted else torch.ones(steps.shape[:2], dtype=steps.dtype)
    if lengths is not None:
        valid *= torch.arange(steps.shape[1]) < lengths[:, None]
    return valid / valid.sum(1, keepdim=True)


# SciPy


@each_pair
def scipy_assignment(x: Tensor, y: Tensor, epsilon: float) -> float:
    cost = ground_cost(x, y, "euclidean").detach().numpy()
    # Between equally many steps of equal weight, one of the cheapest plans is a permutation, of weights 1 / n.
    return cost[scipy.optimize.linear_sum_assignment(cost)].mean()


@each_pair
def scipy_linprog(x: Tensor, y: Tensor, epsilon: float) -> float:
    n, m = len(x), len(y)
    margins = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    cost = ground_cost(x, y, "euclidean").detach().numpy()
    return scipy.optimize.linprog(cost.ravel(), A_eq=margins, b_eq=weights).fun


@each_pair
def scipy_wasserstein(x: Tensor, y: Tensor, epsilon: float) -> float:
    return scipy.stats.wasserstein_distance(x[:, 0].detach(), y[:, 0].detach())


@each_pair
def scipy_nearest(x: Tensor, y: Tensor, cost: str = "euclidean", direction: str = "x") -> float:
    costs = scipy.spatial.distance.cdist(x.detach(), y.detach(), cost)
    means = {"x": costs.min(1).mean(), "y": costs.min(0).mean()}
    return means.get(direction, (means["x"] + means["y"]) / 2)


# PyTorch, as ColBERT scores a document, and as FATE and PE-AV align frames.


@each_pair
def maxsim(x: Tensor, y: Tensor, cost: str) -> Tensor:
    assert cost == "cosine", "it has no other"
    similarities = functional.normalize(x, dim=-1) @ functional.normalize(y, dim=-1).T
    return 1 - similarities.max(1).values.sum() / len(x)


@each_pair
def frame_cosines(x: Tensor, y: Tensor, mode: str = "linear") -> Tensor:
    frames = functional.interpolate(x.T[None], size=len(y), mode=mode)[0].T
    return 1 - functional.cosine_similarity(frames, y, dim=-1).mean()
