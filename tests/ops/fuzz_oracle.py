"""The expected result of a call of a scav op, and its tolerance: all pairs at once, in float64 NumPy.

The reference needs milliseconds where this needs microseconds; `test_fuzz.py` holds one against the other. Allowed
errors are bounds that follow from the rounding of a single cost, so that any values may be drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .tolerances import COST_ULPS, FLOOR_ULPS

Array = np.ndarray
Arguments = dict[str, Any]

# A first-order error says nothing about a probability beyond this.
MAGNIFIED = 0.3
# Sums may overflow beyond this share of the largest number.
OVERFLOW = 1e-4
# A cosine divides by norms of at least this.
SMALLEST_NORM = 1e-8
# Iterations of Sinkhorn beyond these are not followed.
MOST_ITERATIONS = 2000
END_OF_PATH = 3


class Expected(NamedTuple):
    """One output. A NaN asks for NaN or inf; where `allowed` is inf, anything goes."""

    value: Array
    allowed: Array
    dtype: torch.dtype

    def mismatch(self, actual: Tensor) -> str | None:
        """Return what is wrong with an output, or None."""
        if actual.dtype != self.dtype or tuple(actual.shape) != self.value.shape or not actual.is_contiguous():
            return f"expected {self.dtype} {self.value.shape}, got {actual.dtype} {tuple(actual.shape)}"
        found = numbers(actual)
        with np.errstate(invalid="ignore"):
            right = (found == self.value) | (np.abs(found - self.value) <= self.allowed) | np.isinf(self.allowed)
        right |= np.isnan(self.value) & ~np.isfinite(found)
        if right.all():
            return None
        return f"expected {self.value.tolist()} within {self.allowed.tolist()}, got {found.tolist()}"


@dataclass(frozen=True)
class Pairs:
    """Pair p is x number i[p] against y number j[p], of n[p] and m[p] valid steps."""

    shape: tuple[int, ...]  # of a result
    i: Array  # (P,)
    j: Array
    n: Array
    m: Array
    poisoned: Array  # (P,) holds NaN or inf
    vague: Array  # (P,) may overflow
    cost: Array  # (P, N, M), 0 beyond the lengths
    error: Array  # (P, N, M), of the kernels' costs
    dtype: torch.dtype  # of accumulation

    @property
    def unit(self) -> float:
        """A few roundings."""
        return FLOOR_ULPS * torch.finfo(self.dtype).eps

    @property
    def largest(self) -> Array:
        """(P,) finite costs."""
        return np.abs(finite(self.cost)).max((1, 2))

    @property
    def valid(self) -> Array:
        """(P, N, M)"""
        return self.in_band(None)

    def in_band(self, band: int | None) -> Array:
        """(P, N, M), true for the cells that a path may visit."""
        s, t = np.arange(self.cost.shape[1])[:, None], np.arange(self.cost.shape[2])
        n, m = self.n[:, None, None], self.m[:, None, None]
        radius = sum(self.cost.shape) if band is None else min(band, sum(self.cost.shape))
        low, high = -radius - np.maximum(n - m, 0), radius + np.maximum(m - n, 0)
        return (s < n) & (t < m) & (t - s >= low) & (t - s <= high)

    def output(self, value: Array, allowed: Array) -> Expected:
        """(P, ...) numbers in the result's shape, NaN for poisoned pairs."""
        tail = value.shape[1:]
        poisoned, vague = (np.expand_dims(of, tuple(range(1, value.ndim))) for of in (self.poisoned, self.vague))
        overflows = np.isfinite(value) & (np.abs(value) > OVERFLOW * torch.finfo(self.dtype).max)
        value, allowed = np.where(poisoned, np.nan, value), np.where(vague | overflows, np.inf, allowed)
        return Expected(value.reshape(*self.shape, *tail), allowed.reshape(*self.shape, *tail), self.dtype)


class Side(NamedTuple):
    """A batch of sequences, zero where it is padding or poisoned."""

    steps: Array  # (B, N, D)
    lengths: Array  # (B,)
    poisoned: Array  # (B,)
    vague: Array  # (B,)


class Slope(NamedTuple):
    """∂cost/∂x of every cell."""

    value: Array  # (P, N, M, D)
    size: Array  # (P, N, M), at least its norm
    error: Array  # (P, N, M)


class Weights(NamedTuple):
    """∂out/∂cost."""

    value: Array  # (P, N, M)
    error: Array
    vague: Array  # (P,) rounding may have changed them beyond recognition


def knows(op: str) -> bool:
    return op.removesuffix("_backward").removesuffix("_from_cost") in (*REDUCERS, "interpolated_euclidean")


@np.errstate(all="ignore")
def expected(op: str, given: Arguments) -> list[Expected]:
    """The outputs of a valid call, in the schema's order. Of a backward op, with what the forward op saved for it."""
    name = op.removesuffix("_backward")
    if name == "interpolated_euclidean":
        return interpolated(given) if op == name else interpolated_gradients(given)
    reducer = REDUCERS[name.removesuffix("_from_cost")]
    if op == name:
        return reducer.forward(pairs_of(given), given)
    if isinstance(given["cost"], Tensor):
        return [cost_gradient(reducer, given)]
    return gradients(reducer, given)


# ---- pairs and their costs ----


def numbers(tensor: Tensor) -> Array:
    return tensor.detach().double().resolve_neg().numpy()


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def valid_steps(lengths: Tensor | None, batch: int, steps: int) -> Array:
    return np.full(batch, steps) if lengths is None else lengths.contiguous().numpy()


def pair_indices(batch_x: int, batch_y: int, paired: bool) -> tuple[Array, Array]:
    if paired:
        return np.arange(batch_x), np.arange(batch_x)
    return np.repeat(np.arange(batch_x), batch_y), np.tile(np.arange(batch_y), batch_x)


def side(given: Tensor, lengths: Tensor | None, kind: str) -> Side:
    valid = valid_steps(lengths, given.shape[0], given.shape[1])
    beyond = np.arange(given.shape[1])[:, None] >= valid[:, None, None]
    steps = np.where(beyond, 0, numbers(given))
    poisoned = ~np.isfinite(steps).all((1, 2))
    # Squares are summed in the dtype of accumulation, but for a cosine in float64.
    most = torch.finfo(torch.float64 if kind == "cosine" else accumulation_dtype(given)).max
    squares = np.square(np.where(poisoned[:, None, None], 0, steps)).sum(-1).max(-1, initial=0)
    poisoned |= squares > 4 * most
    return Side(np.where(poisoned[:, None, None], 0, steps), valid, poisoned, ~poisoned & (squares > OVERFLOW * most))


def sides(given: Arguments) -> tuple[Side, Side]:
    kind = given.get("cost", "euclidean")
    return side(given["x"], given["x_lengths"], kind), side(given["y"], given["y_lengths"], kind)


def pairs_of(given: Arguments) -> Pairs:
    """Return the pairs of the sequences or the costs of a call."""
    if isinstance(given.get("cost"), Tensor):
        return pairs_of_costs(given)
    return pairs_of_sides(given, *sides(given))


def pairs_of_sides(given: Arguments, a: Side, b: Side) -> Pairs:
    i, j = pair_indices(len(a.steps), len(b.steps), given["paired"])
    shape = (len(a.steps),) if given["paired"] else (len(a.steps), len(b.steps))
    poisoned, vague = a.poisoned[i] | b.poisoned[j], a.vague[i] | b.vague[j]
    none = np.zeros((len(i), a.steps.shape[1], b.steps.shape[1]))
    pairs = Pairs(shape, i, j, a.lengths[i], b.lengths[j], poisoned, vague, none, none, accumulation_dtype(given["x"]))
    cost, error = ground_cost(a.steps[i], b.steps[j], given.get("cost", "euclidean"), pairs.dtype)
    return replace(pairs, cost=np.where(pairs.valid, cost, 0), error=np.where(pairs.valid, error, 0))


def pairs_of_costs(given: Arguments) -> Pairs:
    cost = given["cost"]
    b1, b2, n, m = cost.shape
    i, j = pair_indices(b1, b2, False)
    lengths = valid_steps(given["x_lengths"], b1, n)[i], valid_steps(given["y_lengths"], b2, m)[j]
    values, no = numbers(cost).reshape(-1, n, m), np.zeros(len(i), dtype=bool)
    pairs = Pairs((b1, b2), i, j, *lengths, no, no, values, np.zeros_like(values), accumulation_dtype(cost))
    values = np.where(pairs.valid, values, 0)
    poisoned = (np.isnan(values) | np.isneginf(values)).any((1, 2))
    values = np.where(poisoned[:, None, None], 0, values)
    vague = (np.abs(finite(values)) > OVERFLOW * torch.finfo(pairs.dtype).max).any((1, 2))
    return replace(pairs, poisoned=poisoned, vague=vague, cost=values)


def finite(value: Array) -> Array:
    return np.where(np.isfinite(value), value, 0)


def nonzero(value: Array) -> Array:
    """To divide by."""
    return np.where(value == 0, 1, value)


def norms(steps: Array) -> Array:
    return np.sqrt(np.square(steps).sum(-1))


def ground_cost(x: Array, y: Array, kind: str, dtype: torch.dtype) -> tuple[Array, Array]:
    """x (P, N, D), y (P, M, D) -> (P, N, M) costs and their errors, `COST_ULPS` of the squares that are subtracted."""
    unit, tiny = COST_ULPS * torch.finfo(dtype).eps, COST_ULPS * torch.finfo(dtype).tiny
    x_norms, y_norms = norms(x)[:, :, None], norms(y)[:, None]
    if kind == "cosine":
        scale = np.maximum(x_norms, SMALLEST_NORM) * np.maximum(y_norms, SMALLEST_NORM)
        cost = 1 - (x[:, :, None] * y[:, None]).sum(-1) / scale
        return cost, np.full_like(cost, unit)
    squares = np.square(x[:, :, None] - y[:, None]).sum(-1)
    if kind == "sqeuclidean":
        return squares, unit * (x_norms**2 + y_norms**2) + tiny
    return np.sqrt(squares), unit * (x_norms + y_norms) + np.sqrt(tiny)


def slope(x: Array, y: Array, pairs: Pairs, kind: str) -> Slope:
    """x (P, N, M, D), y likewise; for ∂cost/∂y, exchange them."""
    unit = COST_ULPS * torch.finfo(pairs.dtype).eps
    x_norms, y_norms = norms(x), norms(y)
    if kind == "cosine":
        x_scale, y_scale = np.maximum(x_norms, SMALLEST_NORM), np.maximum(y_norms, SMALLEST_NORM)
        x_unit, y_unit = x / x_scale[..., None], y / y_scale[..., None]
        along = (x_unit * y_unit).sum(-1, keepdims=True) * x_unit
        # A step of a smaller norm has no direction; on the edge, the kernels may be on its other side.
        clamped, edge = x_norms < SMALLEST_NORM, np.abs(x_norms / SMALLEST_NORM - 1) < unit
        value = np.where(clamped[..., None], 0, along - y_unit) / x_scale[..., None]
        return Slope(value, 2 / x_scale, np.where(edge, 1, unit) * 2 / x_scale)
    if kind == "sqeuclidean":
        size = 2 * (x_norms + y_norms)
        return Slope(2 * (x - y), size, unit * size)
    # A direction errs by the cost's error over the cost; where steps coincide, its rounding may point anywhere.
    value = np.where((pairs.cost == 0)[..., None], 0, x - y) / nonzero(pairs.cost)[..., None]
    exact = (x == y).all(-1)
    error = np.where(exact, 0, np.minimum(2, 4 * pairs.error / nonzero(np.maximum(pairs.cost, pairs.error))))
    return Slope(value, np.ones_like(error), error)


# ---- reducers: costs to distances, and distances' gradients in the costs ----


class Reducer(NamedTuple):
    forward: Callable[[Pairs, Arguments], list[Expected]]
    weights: Callable[[Pairs, Arguments], Weights]


def recursion(pairs: Pairs, band: int | None, softmin: Callable[[Array], Array]) -> Array:
    """r (N + 1, M + 1, P), in which cell (s + 1, t + 1) belongs to the steps s and t."""
    _, n, m = pairs.cost.shape
    allowed = pairs.in_band(band)
    r = np.full((n + 1, m + 1, len(pairs.n)), np.inf)
    r[0, 0] = 0
    for s in range(n):
        for t in range(m):
            found = pairs.cost[:, s, t] + softmin(np.stack([r[s, t], r[s, t + 1], r[s + 1, t]]))
            r[s + 1, t + 1] = np.where(allowed[:, s, t], found, np.inf)
    return r


def ends(pairs: Pairs, r: Array) -> Array:
    return r[pairs.n, pairs.m, np.arange(len(pairs.n))]


def path_error(pairs: Pairs, sum_: Array, gamma: float = 0.0) -> Array:
    """(P,), of the sum of a path's costs, or of a softmin over paths: each cell adds its error and a rounding."""
    most = pairs.largest + np.abs(finite(sum_)) + gamma
    return (pairs.n + pairs.m) * (pairs.error.max((1, 2)) + pairs.unit * most)


def dtw(pairs: Pairs, given: Arguments) -> list[Expected]:
    out = ends(pairs, recursion(pairs, given["band"], lambda before: before.min(0)))
    # `path_mismatch` looks at the paths.
    steps = sum(pairs.cost.shape[1:])
    anything = Expected(np.zeros((*pairs.shape, steps)), np.full((*pairs.shape, steps), np.inf), torch.uint8)
    return [pairs.output(out, path_error(pairs, out)), anything if given["save_path"] else nothing(torch.uint8)]


def nothing(dtype: torch.dtype) -> Expected:
    return Expected(np.zeros(0), np.zeros(0), dtype)


def path_cells(path: Array, n: int, m: int) -> list[tuple[int, int]]:
    """From a path's end to its start."""
    s, t = n - 1, m - 1
    cells = [(s, t)]
    for step in path:
        if step == END_OF_PATH:
            break
        s, t = s - (step != 2), t - (step != 1)
        cells.append((s, t))
    return cells


def path_mismatch(given: Arguments, out: Tensor, path: Tensor) -> str | None:
    """Of paths that do not lead from corner to corner through the band at the cost that the distance says."""
    pairs = pairs_of(given)
    in_band, distances = pairs.in_band(given["band"]), numbers(out).reshape(-1)
    allowed = 2 * path_error(pairs, distances)
    for pair in np.flatnonzero(np.isfinite(distances) & ~pairs.poisoned & ~pairs.vague):
        steps = path.reshape(len(pairs.n), path.shape[-1])[pair].numpy()
        cells = path_cells(steps, int(pairs.n[pair]), int(pairs.m[pair]))
        if cells[-1] != (0, 0) or min(map(min, cells)) < 0 or not all(in_band[(pair, *cell)] for cell in cells):
            return f"pair {pair}: {cells} is not a path"
        total = sum(pairs.cost[(pair, *cell)] for cell in cells)
        if abs(total - distances[pair]) > allowed[pair]:
            return f"pair {pair}: the path {cells} costs {total}, not {distances[pair]}"
        if (steps[len(cells) - 1 :] != END_OF_PATH).any():
            return f"pair {pair}: {steps.tolist()} goes on after its end"
    return None


def path_weights(pairs: Pairs, given: Arguments) -> Weights:
    """1 in the cells of the saved paths."""
    weights = np.zeros_like(pairs.cost)
    reachable = np.isfinite(numbers(given["out"]).reshape(-1))
    for pair in np.flatnonzero(reachable & ~pairs.poisoned & ~pairs.vague):
        path = given["path"].reshape(len(pairs.n), given["path"].shape[-1])[pair].numpy()
        for cell in path_cells(path, int(pairs.n[pair]), int(pairs.m[pair])):
            weights[(pair, *cell)] = 1
    return Weights(weights, np.zeros_like(weights), np.zeros(len(pairs.n), dtype=bool))


def softmin(before: Array, gamma: float) -> Array:
    """(3, P) -> (P,)"""
    least = finite(before.min(0))
    return least - gamma * np.log(np.exp((least - before) / gamma).sum(0))


def soft_dtw(pairs: Pairs, given: Arguments) -> list[Expected]:
    out = ends(pairs, recursion(pairs, given["band"], lambda before: softmin(before, given["gamma"])))
    return [pairs.output(out, path_error(pairs, out, given["gamma"]))]


def expected_alignment(pairs: Pairs, given: Arguments) -> Weights:
    gamma = given["gamma"]
    r = recursion(pairs, given["band"], lambda before: softmin(before, gamma))
    e = np.zeros_like(r)
    e[pairs.n, pairs.m, np.arange(len(pairs.n))] = np.isfinite(ends(pairs, r))
    for s in range(r.shape[0] - 1, 0, -1):
        for t in range(r.shape[1] - 1, 0, -1):
            before = np.stack([r[s - 1, t - 1], r[s - 1, t], r[s, t - 1]])
            shares = np.exp((finite(before.min(0)) - before) / gamma)
            shares *= e[s, t] / np.maximum(shares.sum(0), 1)
            for cell, share in zip(((s - 1, t - 1), (s - 1, t), (s, t - 1)), shares, strict=True):
                e[cell] += share
    weights = e[1:, 1:].transpose(2, 0, 1)
    # A path's share is exp(−its cost / gamma), relative to that of all of them, and a product of as many weights.
    cells = (pairs.n + pairs.m) * pairs.unit
    relative = 2 * path_error(pairs, np.abs(finite(r)).max((0, 1)), gamma) / gamma + cells
    return magnified(weights, relative[:, None, None], cells[:, None, None])


def magnified(weights: Array, relative: Array, rounding: Array | float) -> Weights:
    """Weights of a relative error; those that should be 0 may be a rounding of 1."""
    return Weights(weights, 2 * relative * weights + rounding, (relative > MAGNIFIED).any((1, 2)))


def sinkhorn(pairs: Pairs, given: Arguments) -> list[Expected]:
    epsilon, tolerance, count = given["epsilon"], given["tolerance"], given["max_iterations"]
    n, m, rows, columns = pairs.n[:, None], pairs.m[:, None], pairs.valid.any(2), pairs.valid.any(1)
    f, g, iterations = np.zeros(rows.shape), np.zeros(columns.shape), min(count, MOST_ITERATIONS)
    # Of the value: iterations do not add to it, because a softmin does not magnify what it is given.
    error = 2 * pairs.error.max((1, 2)) + FLOOR_ULPS * pairs.unit * (pairs.largest + epsilon)
    blocked = blocked_steps(pairs)
    vague = pairs.vague | (pairs.largest / epsilon > OVERFLOW * torch.finfo(pairs.dtype).max)
    running = ~pairs.poisoned & ~vague & ~blocked
    ran, marginal_error = np.zeros(len(pairs.n)), np.full(len(pairs.n), np.nan)
    for _ in range(iterations):
        if not running.any():
            break
        next_f = -epsilon * log_sum_exp(g[:, None] - pairs.cost, pairs.valid, epsilon, 2, m)
        f = np.where(running[:, None] & rows, next_f, f)
        next_g = -epsilon * log_sum_exp(f[:, :, None] - pairs.cost, pairs.valid, epsilon, 1, n)
        g = np.where(running[:, None] & columns, next_g, g)
        left = (np.abs(plan(pairs, f, g, epsilon).sum(2) - 1 / n) * rows).sum(1)
        # Rounding decides whether to stop here.
        uncertain = 4 * (1 + left) * error / epsilon + pairs.unit * tolerance
        vague |= running & (tolerance > 0) & (np.abs(left - tolerance) <= uncertain)
        ran, marginal_error = ran + running, np.where(running, left, marginal_error)
        running &= ~(left < tolerance)
    vague |= running & (count > MOST_ITERATIONS)
    # Iterations do add to what f gains and g loses, and to sums that grow because no plan has the marginals.
    drift = iterations * (error + pairs.unit * np.abs(f).max(1))
    grown = np.abs(f).max(1) > 4 * (pairs.largest + epsilon)
    value = np.where(blocked, np.inf, f.sum(1) / pairs.n + g.sum(1) / pairs.m)
    out = replace(pairs, vague=vague).output(value, 2 * error + drift * grown)
    outputs = [out, nothing(pairs.dtype), nothing(torch.int64), nothing(pairs.dtype)]
    if given["save_potentials"]:
        # Saved in units of epsilon; of poisoned pairs, and of pairs without a plan, they mean nothing.
        saved = replace(pairs, vague=vague | pairs.poisoned | blocked, poisoned=np.zeros_like(vague))
        outputs[1] = saved.output(f / epsilon, drift[:, None] / epsilon * rows)
    if given["return_convergence"]:
        known = replace(pairs, vague=vague, poisoned=np.zeros_like(vague))
        outputs[2] = known.output(ran, np.zeros_like(ran))._replace(dtype=torch.int64)
        rounding = (1 + marginal_error) * np.expm1(4 * (error + drift) / epsilon) + pairs.unit * (pairs.n + pairs.m)
        rounding = np.where(rounding > MAGNIFIED, np.inf, rounding)
        outputs[3] = known.output(marginal_error, rounding)
    return outputs


def blocked_steps(pairs: Pairs) -> Array:
    """(P,), whether every cell of a step is forbidden."""
    forbidden = np.isposinf(pairs.cost) | ~pairs.valid
    return any_step(forbidden.all(2), pairs.n) | any_step(forbidden.all(1), pairs.m)


def any_step(steps: Array, lengths: Array) -> Array:
    """(P, N) -> (P,), over the valid steps."""
    return (steps & (np.arange(steps.shape[1]) < lengths[:, None])).any(1)


def log_sum_exp(exponent: Array, valid: Array, epsilon: float, axis: int, count: Array) -> Array:
    """log of the mean of exp(exponent / epsilon) over an axis on which `count` cells are valid."""
    exponent = np.where(valid, exponent, -np.inf) / epsilon
    peak = finite(exponent.max(axis, keepdims=True))
    return peak.squeeze(axis) + np.log(np.exp(exponent - peak).sum(axis) / count)


def plan(pairs: Pairs, f: Array, g: Array, epsilon: float) -> Array:
    exponent = np.where(pairs.valid, f[:, :, None] + g[:, None] - pairs.cost, -np.inf) / epsilon
    return np.exp(exponent) / (pairs.n * pairs.m)[:, None, None]


def plan_weights(pairs: Pairs, given: Arguments) -> Weights:
    """Of the saved potentials: shares of the columns, whose sums an iteration leaves exact."""
    f, epsilon = numbers(given["f"]).reshape(len(pairs.n), given["f"].shape[-1]), given["epsilon"]
    exponent = np.where(pairs.valid, f[:, :, None] - pairs.cost / epsilon, -np.inf)
    shares = np.exp(exponent - finite(exponent.max(1, keepdims=True)))
    weights = shares / nonzero(shares.sum(1, keepdims=True)) / pairs.m[:, None, None]
    weights = np.where(blocked_steps(pairs)[:, None, None], 0, weights)
    rounding = FLOOR_ULPS * pairs.unit * (np.abs(f).max(1) + pairs.largest / epsilon + 1)
    relative = 2 * (pairs.error.max((1, 2)) / epsilon + rounding)
    return magnified(weights, relative[:, None, None], pairs.unit)


REDUCERS = {
    "dtw": Reducer(dtw, path_weights),
    "soft_dtw": Reducer(soft_dtw, expected_alignment),
    "sinkhorn": Reducer(sinkhorn, plan_weights),
}


# ---- gradients ----


def gradients(reducer: Reducer, given: Arguments) -> list[Expected]:
    a, b = sides(given)
    pairs = pairs_of_sides(given, a, b)
    weights, grad = reducer.weights(pairs, given), numbers(given["grad"]).reshape(-1)
    pairs = replace(pairs, vague=pairs.vague | weights.vague)
    x, y = np.broadcast_arrays(a.steps[pairs.i][:, :, None], b.steps[pairs.j][:, None])
    of_x, of_y = slope(x, y, pairs, given["cost"]), slope(y, x, pairs, given["cost"])
    pairs = replace(pairs, vague=pairs.vague | too_steep(pairs.cost, grad, pairs.dtype))
    found = []
    for which, of, cells, axis in ((a, pairs.i, of_x, 2), (b, pairs.j, of_y, 1)):
        value = (grad[:, None, None, None] * weights.value[..., None] * cells.value).sum(axis)
        rounding = FLOOR_ULPS * pairs.unit * weights.value + weights.error
        wrong = np.abs(grad)[:, None, None] * (weights.value * cells.error + rounding * cells.size)
        found.append(sum_over_pairs(pairs, which, of, grad, value, wrong.sum(axis)))
    return rounded(given, found)


def too_steep(distances: Array, grad: Array, dtype: torch.dtype) -> Array:
    """(P, ...) -> (P,), whether a gradient over a distance, or over the smallest norm, overflows on the way."""
    smallest = np.where(distances > 0, distances, 1).min(tuple(range(1, distances.ndim)), initial=SMALLEST_NORM)
    return np.abs(grad) / smallest > OVERFLOW * torch.finfo(dtype).max


def sum_over_pairs(
    pairs: Pairs, which: Side, of: Array, grad: Array, value: Array, wrong: Array
) -> tuple[Array, Array]:
    """(P, N, D) gradients and (P, N) errors, added up for the sequences `of` of one side."""
    total, allowed = np.zeros_like(which.steps), np.zeros_like(which.steps)
    known = np.isfinite(grad) & ~pairs.poisoned & ~pairs.vague
    np.add.at(total, of[known], value[known])
    np.add.at(allowed, of[known], wrong[known][..., None] + COST_ULPS * torch.finfo(pairs.dtype).tiny)
    # A poisoned pair that counts spoils its two sequences; where the upstream gradient is no number, neither is theirs.
    total[of[pairs.poisoned & (grad != 0)]] = np.nan
    allowed[of[(~np.isfinite(grad) & ~pairs.poisoned) | pairs.vague]] = np.inf
    beyond = np.arange(total.shape[1])[:, None] >= which.lengths[:, None, None]
    return np.where(beyond, 0, total), np.where(beyond, 0, allowed)


def rounded(given: Arguments, found: list[tuple[Array, Array]]) -> list[Expected]:
    """Gradients in the caller's dtype; empty where not needed."""
    return [
        in_dtype(given[name].dtype, *parts) if given[f"need_{name}"] else nothing(given[name].dtype)
        for name, parts in zip(("x", "y"), found, strict=True)
    ]


def in_dtype(dtype: torch.dtype, value: Array, allowed: Array) -> Expected:
    limits, value = torch.finfo(dtype), np.where(np.isinf(allowed), 0, value)
    overflows = np.abs(value) + allowed > OVERFLOW * limits.max
    rounding = np.where(allowed > 0, limits.eps * np.abs(value) + limits.tiny, 0)
    return Expected(value, np.where(overflows, np.inf, allowed + rounding), dtype)


def cost_gradient(reducer: Reducer, given: Arguments) -> Expected:
    pairs = pairs_of_costs(given)
    weights, grad = reducer.weights(pairs, given), numbers(given["grad"]).reshape(-1)[:, None, None]
    value = grad * weights.value
    allowed = np.abs(grad) * (weights.error + FLOOR_ULPS * pairs.unit * weights.value) + torch.finfo(pairs.dtype).tiny
    poisoned, vague = pairs.poisoned[:, None, None], (pairs.vague | weights.vague)[:, None, None]
    value = np.where(poisoned, np.where(grad == 0, 0, np.nan), value)
    allowed = np.where((vague | ~np.isfinite(grad)) & ~poisoned, np.inf, allowed)
    value, allowed = (np.where(pairs.valid, part, 0).reshape(given["cost"].shape) for part in (value, allowed))
    return in_dtype(given["cost"].dtype, value, allowed)


# ---- interpolated Euclidean: aligned cells (t, t) only ----


class Resampled(NamedTuple):
    """The sources of some pairs at the steps of their targets."""

    of: Array  # (P,) pairs of this direction, as a mask
    left: Array  # (P, T) source steps
    right: Array
    weight: Array  # (P, T), of the right one
    apart: Array  # (P, T, D)
    distance: Array  # (P, T), 0 beyond the target
    error: Array  # (P, T)
    steps: Array  # (P,) of the target


def resampled(source: Array, target: Array, n: Array, m: Array, of: Array, dtype: torch.dtype) -> Resampled:
    """source (P, N, D), target (P, M, D)."""
    t = np.arange(target.shape[1])
    place = np.maximum((t + 0.5) * n[:, None] / m[:, None] - 0.5, 0)
    left = np.minimum(place.astype(int), n[:, None] - 1)
    right = np.minimum(left + 1, n[:, None] - 1)
    weight = place - left
    pair = np.arange(len(n))[:, None]
    row = source[pair, left] + weight[..., None] * (source[pair, right] - source[pair, left])
    valid = t < m[:, None]
    scale = norms(source[pair, left]) + norms(source[pair, right]) + norms(target)
    error = COST_ULPS * torch.finfo(dtype).eps * scale + np.sqrt(COST_ULPS * torch.finfo(dtype).tiny)
    apart = np.where(valid[..., None], row - target, 0)
    return Resampled(of, left, right, weight, apart, norms(apart), error * valid, m)


def directions(given: Arguments, pairs: Pairs, a: Side, b: Side) -> tuple[Resampled, Resampled]:
    """Of the pairs whose x is resampled, and of those whose y is."""
    of_x = {"x": pairs.n == pairs.n, "y": pairs.n != pairs.n, "shorter": pairs.n <= pairs.m}[given["resample"]]
    x, y = a.steps[pairs.i], b.steps[pairs.j]
    return (
        resampled(x, y, pairs.n, pairs.m, of_x, pairs.dtype),
        resampled(y, x, pairs.m, pairs.n, ~of_x, pairs.dtype),
    )


def interpolated(given: Arguments) -> list[Expected]:
    a, b = sides(given)
    pairs = pairs_of_sides(given, a, b)
    value, allowed = np.zeros(len(pairs.n)), np.zeros(len(pairs.n))
    for part in directions(given, pairs, a, b):
        cells, errors = part.distance, part.error
        if given["squared"]:
            cells, errors = cells**2, errors * (2 * cells + errors)
        mean = cells.sum(1) / part.steps
        value = np.where(part.of, mean, value)
        allowed = np.where(part.of, errors.sum(1) / part.steps + FLOOR_ULPS * pairs.unit * mean, allowed)
    return [pairs.output(value, allowed)]


def interpolated_gradients(given: Arguments) -> list[Expected]:
    a, b = sides(given)
    pairs = pairs_of_sides(given, a, b)
    grad = numbers(given["grad"]).reshape(-1)
    x, y = (np.zeros((len(grad), *which.steps.shape[1:])) for which in (a, b))
    x_wrong, y_wrong = np.zeros(x.shape[:2]), np.zeros(y.shape[:2])
    forwards, backwards = directions(given, pairs, a, b)
    steep = [part.of & too_steep(part.distance, grad, pairs.dtype) for part in (forwards, backwards)]
    pairs = replace(pairs, vague=pairs.vague | steep[0] | steep[1])
    for part, source, source_wrong, target, target_wrong in (
        (forwards, x, x_wrong, y, y_wrong),
        (backwards, y, y_wrong, x, x_wrong),
    ):
        value, wrong = aligned_gradient(part, grad / part.steps, given["squared"], pairs)
        pair, t = np.nonzero(part.of[:, None] & (np.arange(value.shape[1]) < part.steps[:, None]))
        target[pair, t] -= value[pair, t]
        target_wrong[pair, t] += wrong[pair, t]
        for step, share in ((part.left, 1 - part.weight), (part.right, part.weight)):
            np.add.at(source, (pair, step[pair, t]), (share[..., None] * value)[pair, t])
            # The rounding of a weight is one of 1, however small the weight.
            np.add.at(source_wrong, (pair, step[pair, t]), wrong[pair, t])
    return rounded(
        given,
        [
            sum_over_pairs(pairs, a, pairs.i, grad, x, x_wrong),
            sum_over_pairs(pairs, b, pairs.j, grad, y, y_wrong),
        ],
    )


def aligned_gradient(part: Resampled, grad: Array, squared: bool, pairs: Pairs) -> tuple[Array, Array]:
    """(P, T, D) and (P, T), in the resampled rows, of distances that each count `grad` (P,)."""
    if squared:
        value = 2 * grad[:, None, None] * part.apart
        return value, np.abs(grad)[:, None] * 2 * (part.error + FLOOR_ULPS * pairs.unit * part.distance)
    error = np.minimum(2, 4 * part.error / nonzero(np.maximum(part.distance, part.error)))
    return grad[:, None, None] * part.apart / nonzero(part.distance)[..., None], np.abs(grad)[:, None] * error
