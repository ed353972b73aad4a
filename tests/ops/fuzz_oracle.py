"""The expected result of a call of a scav op, and its tolerance: all pairs at once, in float64 NumPy.

The reference needs milliseconds where this needs microseconds; `test_fuzz.py` holds one against the other. Allowed
errors are bounds that follow from the rounding of a single cost, so that any values may be drawn.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
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
END_OF_PATH, SKIPPED_STEP = 3, 4


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
    return op.removesuffix("_backward").removesuffix("_from_cost") in (
        *REDUCERS,
        "interpolated_euclidean",
        "interpolated_cosine",
    )


@np.errstate(all="ignore")
def expected(op: str, given: Arguments) -> list[Expected]:
    """The outputs of a valid call, in the schema's order. Of a backward op, with what the forward op saved for it."""
    name = op.removesuffix("_backward")
    if name == "interpolated_euclidean":
        return interpolated(given) if op == name else interpolated_gradients(given)
    if name == "interpolated_cosine":
        given = {**given, "cost": "cosine"}
        return interpolated_cosines(given) if op == name else interpolated_cosine_gradients(given)
    reducer = REDUCERS[name.removesuffix("_from_cost")]
    if op == name:
        return reducer.forward(pairs_of(given), given)
    found = [cost_gradient(reducer, given)] if isinstance(given["cost"], Tensor) else gradients(reducer, given)
    return found + (step_weight_gradients(given) if reducer.forward is sinkhorn else [])


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


def recursion(pairs: Pairs, given: Arguments, softmin: Callable[[Array], Array]) -> Array:
    """r (N + 1, M + 1, P), in which cell (s + 1, t + 1) belongs to the steps s and t."""
    _, n, m = pairs.cost.shape
    allowed = pairs.in_band(given["band"])
    penalty, weight = given.get("step_penalty", 0.0), given.get("diagonal_weight", 1.0)
    r = np.full((n + 1, m + 1, len(pairs.n)), np.inf)
    r[0, : m if given["open_begin"] else 1] = 0
    nowhere = np.full(len(pairs.n), np.inf)
    for s in range(n):
        for t in range(m):
            cost = pairs.cost[:, s, t]
            # What the diagonal adds to the cost of the other steps; a path starts at weight 1.
            extra = np.where(np.isposinf(cost), 0, (weight - 1) * (cost if s else 0 * cost)) - penalty
            up = r[s, t + 1] if s else nowhere
            found = cost + penalty + softmin(np.stack([r[s, t] + extra, up, r[s + 1, t]]))
            r[s + 1, t + 1] = np.where(allowed[:, s, t], found, np.inf)
    return r


def ends(pairs: Pairs, r: Array, open_end: bool) -> Array:
    """(M, P), of every step at which a path may end; elsewhere inf."""
    last = r[pairs.n, 1:, np.arange(len(pairs.n))].T
    t = np.arange(len(last))[:, None]
    return np.where((t < pairs.m) if open_end else (t == pairs.m - 1), last, np.inf)


def path_error(pairs: Pairs, sum_: Array, gamma: float = 0.0, given: Arguments | None = None) -> Array:
    """(P,), of the sum of a path's costs, or of a softmin over paths: each cell adds its error and a rounding."""
    options = {"step_penalty": 0.0, "diagonal_weight": 1.0, **(given or {})}
    weight, penalty = max(1.0, options["diagonal_weight"]), options["step_penalty"]
    most = weight * pairs.largest + penalty + np.abs(finite(sum_)) + gamma
    return (pairs.n + pairs.m) * (weight * pairs.error.max((1, 2)) + pairs.unit * most)


def dtw(pairs: Pairs, given: Arguments) -> list[Expected]:
    total = ends(pairs, recursion(pairs, given, lambda before: before.min(0)), given["open_end"]).min(0)
    error = path_error(pairs, total, given=given)
    # The cells of the path that is taken lie between these; `path_mismatch` counts them.
    longest = pairs.n + pairs.m - 1
    shortest = pairs.n if given["open_begin"] or given["open_end"] else np.maximum(pairs.n, pairs.m)
    most, least = {"path": (longest, shortest), "steps": (pairs.n + pairs.m,) * 2}.get(given["normalize"], (1, 1))
    out = (total / most + total / least) / 2
    # `path_mismatch` looks at the paths.
    steps = sum(pairs.cost.shape[1:])
    anything = Expected(np.zeros((*pairs.shape, steps)), np.full((*pairs.shape, steps), np.inf), torch.uint8)
    distances = pairs.output(out, error / least + np.abs(finite(total / least - total / most)) / 2)
    return [distances, anything if given["save_path"] else nothing(torch.uint8)]


def nothing(dtype: torch.dtype) -> Expected:
    return Expected(np.zeros(0), np.zeros(0), dtype)


def path_cells(path: Array, n: int, m: int) -> list[tuple[int, int]]:
    """From a path's end to its start."""
    skipped = int((path == SKIPPED_STEP).sum())
    s, t = n - 1, m - 1 - skipped
    cells = [(s, t)]
    for step in path[skipped:]:
        if step == END_OF_PATH:
            break
        s, t = s - (step != 2), t - (step != 1)
        cells.append((s, t))
    return cells


def path_mismatch(given: Arguments, out: Tensor, path: Tensor) -> str | None:
    """Describe a path that does not lead through the band at the cost of the distance, or return None."""
    pairs = pairs_of(given)
    in_band, distances = pairs.in_band(given["band"]), numbers(out).reshape(-1)
    for pair in np.flatnonzero(np.isfinite(distances) & ~pairs.poisoned & ~pairs.vague):
        steps = path.reshape(len(pairs.n), path.shape[-1])[pair].numpy()
        cells = path_cells(steps, int(pairs.n[pair]), int(pairs.m[pair]))
        starts = cells[-1][0] == 0 if given["open_begin"] else cells[-1] == (0, 0)
        ends_there = given["open_end"] or cells[0][1] == pairs.m[pair] - 1
        if not starts or not ends_there or min(map(min, cells)) < 0 or not all(in_band[(pair, *c)] for c in cells):
            return f"pair {pair}: {cells} is not a path"
        weights, divisor = weights_along(cells, pairs, int(pair), given)
        total = sum(weight * pairs.cost[(pair, *cell)] for cell, weight in zip(cells, weights, strict=True))
        total += given["step_penalty"] * sum(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(cells))
        allowed = 2 * path_error(pairs, np.full(len(pairs.n), total), given=given)[pair] / divisor
        if abs(total / divisor - distances[pair]) > allowed:
            return f"pair {pair}: the path {cells} costs {total} / {divisor}, not {distances[pair]}"
        if (steps[pairs.m[pair] - 1 - cells[0][1] + len(cells) - 1 :] != END_OF_PATH).any():
            return f"pair {pair}: {steps.tolist()} goes on after its end"
    return None


def weights_along(cells: list[tuple[int, int]], pairs: Pairs, pair: int, given: Arguments) -> tuple[list[float], int]:
    """The weights of a path's cells, from its end, and what its distance is divided by."""
    weights = [1.0 if a[0] == b[0] or a[1] == b[1] else given["diagonal_weight"] for a, b in pairwise(cells)]
    divisor = {"path": len(cells), "steps": int(pairs.n[pair] + pairs.m[pair])}.get(given["normalize"], 1)
    return [*weights, 1.0], divisor


def path_weights(pairs: Pairs, given: Arguments) -> Weights:
    """Those of the saved paths."""
    weights = np.zeros_like(pairs.cost)
    reachable = np.isfinite(numbers(given["out"]).reshape(-1))
    for pair in np.flatnonzero(reachable & ~pairs.poisoned & ~pairs.vague):
        path = given["path"].reshape(len(pairs.n), given["path"].shape[-1])[pair].numpy()
        cells = path_cells(path, int(pairs.n[pair]), int(pairs.m[pair]))
        along, divisor = weights_along(cells, pairs, int(pair), given)
        for cell, weight in zip(cells, along, strict=True):
            weights[(pair, *cell)] = weight / divisor
    return Weights(weights, np.zeros_like(weights), np.zeros(len(pairs.n), dtype=bool))


def softmin(before: Array, gamma: float) -> Array:
    """(K, P) -> (P,)"""
    least = finite(before.min(0))
    return least - gamma * np.log(np.exp((least - before) / gamma).sum(0))


def soft_dtw(pairs: Pairs, given: Arguments) -> list[Expected]:
    gamma = given["gamma"]
    last = ends(pairs, recursion(pairs, given, lambda before: softmin(before, gamma)), given["open_end"])
    # The smallest stands for those that no path comes to.
    out = np.where(np.isfinite(last).any(0), softmin(last, gamma), np.inf)
    return [pairs.output(out, path_error(pairs, out, gamma))]


def expected_alignment(pairs: Pairs, given: Arguments) -> Weights:
    gamma = given["gamma"]
    r = recursion(pairs, given, lambda before: softmin(before, gamma))
    last = ends(pairs, r, given["open_end"])
    shares = np.exp((finite(last.min(0)) - last) / gamma)
    e = np.zeros_like(r)
    e[pairs.n, 1:, np.arange(len(pairs.n))] = (shares / np.maximum(shares.sum(0), 1)).T
    for s in range(r.shape[0] - 1, 0, -1):
        for t in range(r.shape[1] - 1, 0, -1):
            up = r[s - 1, t] if s > 1 else np.full(len(pairs.n), np.inf)
            before = np.stack([r[s - 1, t - 1], up, r[s, t - 1]])
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
    rows, columns = pairs.valid.any(2), pairs.valid.any(1)
    a, b = step_weights(pairs, given)
    f, g, iterations = np.zeros(rows.shape), np.zeros(columns.shape), min(count, MOST_ITERATIONS)
    # Of the value: iterations do not add to it, because a softmin does not magnify what it is given.
    error = 2 * pairs.error.max((1, 2)) + FLOOR_ULPS * pairs.unit * (pairs.largest + epsilon)
    blocked = blocked_steps(pairs, a, b)
    vague = pairs.vague | (pairs.largest / epsilon > OVERFLOW * torch.finfo(pairs.dtype).max)
    running = ~pairs.poisoned & ~vague & ~blocked
    epsilons, uncertain = annealed(pairs, given, a, b)
    vague |= uncertain
    for number, larger in enumerate(epsilons):
        going = running & (larger > epsilon) & (number < count)
        if not going.any():
            break
        larger = np.where(going, larger, 1)[:, None]
        next_f = -larger * log_sum_exp(g[:, None] - pairs.cost, b[:, None], larger, 2)
        f = np.where(going[:, None] & rows, next_f, f)
        next_g = -larger * log_sum_exp(f[:, :, None] - pairs.cost, a[:, :, None], larger, 1)
        g = np.where(going[:, None] & columns, next_g, g)
    iterations += len(epsilons)
    # A potential is rounded once more as it is taken from one epsilon to the next.
    error *= 2 if epsilons else 1
    ran, marginal_error = np.zeros(len(pairs.n)), np.full(len(pairs.n), np.nan)
    for _ in range(min(count, MOST_ITERATIONS)):
        if not running.any():
            break
        next_f = -epsilon * log_sum_exp(g[:, None] - pairs.cost, b[:, None], epsilon, 2)
        f = np.where(running[:, None] & rows, next_f, f)
        next_g = -epsilon * log_sum_exp(f[:, :, None] - pairs.cost, a[:, :, None], epsilon, 1)
        g = np.where(running[:, None] & columns, next_g, g)
        left = np.abs(plan(pairs, f, g, epsilon, a, b).sum(2) - a).sum(1)
        # Rounding decides whether to stop here.
        uncertain = 4 * (1 + left) * error / epsilon + pairs.unit * tolerance
        vague |= running & (tolerance > 0) & (np.abs(left - tolerance) <= uncertain)
        ran, marginal_error = ran + running, np.where(running, left, marginal_error)
        running &= ~(left < tolerance)
    vague |= running & (count > MOST_ITERATIONS)
    # Iterations do add to what f gains and g loses, and to sums that grow because no plan has the marginals.
    highest = np.abs(finite(f)).max(1)
    drift = iterations * (error + pairs.unit * highest)
    grown = highest > 4 * (pairs.largest + epsilon)
    value = np.where(a > 0, a * f, 0).sum(1) + np.where(b > 0, b * g, 0).sum(1)
    value = np.where(blocked, np.inf, value)
    out = replace(pairs, vague=vague).output(value, 2 * error + drift * grown)
    outputs = [out, nothing(pairs.dtype), nothing(torch.int64), nothing(pairs.dtype)]
    if given["save_potentials"]:
        # Saved in units of epsilon; of poisoned pairs, and of pairs without a plan, they mean nothing; nor of
        # steps without weight that nothing finite leads to.
        stranded = ~np.isfinite(f).all(1)
        saved = replace(pairs, vague=vague | pairs.poisoned | blocked | stranded, poisoned=np.zeros_like(vague))
        outputs[1] = saved.output(f / epsilon, drift[:, None] / epsilon * rows)
    if given["return_convergence"]:
        known = replace(pairs, vague=vague, poisoned=np.zeros_like(vague))
        outputs[2] = known.output(ran, np.zeros_like(ran))._replace(dtype=torch.int64)
        rounding = (1 + marginal_error) * np.expm1(4 * (error + drift) / epsilon) + pairs.unit * (pairs.n + pairs.m)
        rounding = np.where(rounding > MAGNIFIED, np.inf, rounding)
        outputs[3] = known.output(marginal_error, rounding)
    return outputs


def step_weights(pairs: Pairs, given: Arguments) -> tuple[Array, Array]:
    """(P, N) and (P, M), of sum 1, and 0 beyond the lengths."""
    sides = ((given["x_weights"], pairs.i, pairs.valid.any(2)), (given["y_weights"], pairs.j, pairs.valid.any(1)))
    raw = [np.where(valid, 1.0 if of is None else numbers(of)[index], 0) for of, index, valid in sides]
    a, b = (of / nonzero(of.sum(1, keepdims=True)) for of in raw)
    return a, b


def annealed(pairs: Pairs, given: Arguments, a: Array, b: Array) -> tuple[list[Array], Array]:
    """The epsilons (P,) before the last, and (P,) whether rounding decides how many there are."""
    scaling, epsilon, count = given["scaling"], given["epsilon"], given["max_iterations"]
    counts = np.isfinite(pairs.cost) & (a > 0)[:, :, None] & (b > 0)[:, None]
    following = np.where(counts, pairs.cost, 0).max((1, 2), initial=0)
    epsilons: list[Array] = []
    uncertain = np.zeros(len(pairs.n), dtype=bool)
    known = following < OVERFLOW * torch.finfo(pairs.dtype).max
    while scaling is not None and len(epsilons) < min(count, MOST_ITERATIONS) and (following[known] > epsilon).any():
        epsilons.append(following)
        # A cost errs by its rounding, and the number of epsilons with it.
        uncertain |= np.abs(following - epsilon) <= 2 * pairs.error.max((1, 2)) + 1e-5 * epsilon
        following = following * scaling
    if scaling is not None:
        uncertain |= np.abs(following - epsilon) <= 2 * pairs.error.max((1, 2)) + 1e-5 * epsilon
    return epsilons, uncertain | (following > epsilon) & (count > MOST_ITERATIONS) & (scaling is not None)


def blocked_steps(pairs: Pairs, a: Array, b: Array) -> Array:
    """(P,), whether every cell between a step that has weight and others that do is forbidden."""
    forbidden = np.isposinf(pairs.cost) | (a == 0)[:, :, None] | (b == 0)[:, None]
    return (forbidden.all(2) & (a > 0)).any(1) | (forbidden.all(1) & (b > 0)).any(1)


def log_sum_exp(exponent: Array, weights: Array, epsilon: float | Array, axis: int) -> Array:
    """log of the weighted sum of exp(exponent / epsilon) over an axis; `epsilon` is a number, or (P, 1)."""
    exponent = np.where(weights > 0, exponent, -np.inf) / (epsilon if np.ndim(epsilon) == 0 else epsilon[:, :, None])
    peak = finite(exponent.max(axis, keepdims=True))
    return peak.squeeze(axis) + np.log((weights * np.exp(exponent - peak)).sum(axis))


def plan(pairs: Pairs, f: Array, g: Array, epsilon: float, a: Array, b: Array) -> Array:
    counts = (a > 0)[:, :, None] & (b > 0)[:, None]
    exponent = np.where(counts, finite(f)[:, :, None] + finite(g)[:, None] - pairs.cost, -np.inf) / epsilon
    return np.exp(exponent) * a[:, :, None] * b[:, None]


def plan_weights(pairs: Pairs, given: Arguments) -> Weights:
    """Of the saved potentials: shares of the columns, whose sums an iteration leaves exact."""
    f, epsilon = numbers(given["f"]).reshape(len(pairs.n), given["f"].shape[-1]), given["epsilon"]
    a, b = step_weights(pairs, given)
    exponent = np.where((a > 0)[:, :, None] & pairs.valid, f[:, :, None] - pairs.cost / epsilon, -np.inf)
    shares = a[:, :, None] * np.exp(exponent - finite(exponent.max(1, keepdims=True)))
    weights = shares / nonzero(shares.sum(1, keepdims=True)) * b[:, None]
    weights = np.where(blocked_steps(pairs, a, b)[:, None, None], 0, weights)
    rounding = FLOOR_ULPS * pairs.unit * (np.abs(finite(f)).max(1) + pairs.largest / epsilon + 1)
    relative = 2 * (pairs.error.max((1, 2)) / epsilon + rounding)
    return magnified(weights, relative[:, None, None], pairs.unit)


def step_weight_gradients(given: Arguments) -> list[Expected]:
    """Of the saved potentials of x, and of those of y that follow from them."""
    pairs, epsilon = pairs_of(given), given["epsilon"]
    (a, b), grad = step_weights(pairs, given), numbers(given["grad"]).reshape(-1)
    f = numbers(given["f"]).reshape(len(pairs.n), given["f"].shape[-1])
    g = -log_sum_exp(f[:, :, None] - pairs.cost / epsilon, a[:, :, None], 1.0, 1)
    unplanned = blocked_steps(pairs, a, b)
    found = []
    for name, of, weights, potentials, lengths in (
        ("x_weights", pairs.i, a, f * epsilon, pairs.n),
        ("y_weights", pairs.j, b, g * epsilon, pairs.m),
    ):
        if given[name] is None or not given[f"need_{name}"]:
            found.append(nothing(pairs.dtype if given[name] is None else given[name].dtype))
            continue
        raw = numbers(given[name])
        total, allowed = np.zeros_like(raw), np.zeros_like(raw)
        valid = np.arange(raw.shape[1]) < lengths[:, None]
        highest = np.where(valid, np.abs(potentials), 0).max(1) * max(1, 1 / epsilon)
        stranded = ~(highest < OVERFLOW * torch.finfo(pairs.dtype).max)
        known = np.isfinite(grad) & ~pairs.poisoned & ~pairs.vague & ~unplanned & ~stranded
        mass = np.where(valid, raw[of], 0).sum(1, keepdims=True)
        centered = potentials - (weights * np.where(weights > 0, potentials, 0)).sum(1, keepdims=True)
        value = np.where(valid, grad[:, None] * centered / nonzero(mass), 0)
        # Computed in the dtype of the costs, though weights may have a wider one.
        overflows = ~(np.abs(value).max(1) < OVERFLOW * torch.finfo(pairs.dtype).max)
        known &= ~overflows
        size = np.where(valid, np.abs(potentials), 0).max(1) + pairs.largest + epsilon
        wrong = np.abs(grad) * (4 * pairs.error.max((1, 2)) + FLOOR_ULPS * pairs.unit * size)
        np.add.at(total, of[known], value[known])
        np.add.at(allowed, of[known], (wrong[:, None] / nonzero(mass) * valid)[known])
        total[of[pairs.poisoned & (grad != 0)]] = np.nan
        unknown = ~np.isfinite(grad) | pairs.vague | ((stranded | overflows) & ~unplanned & (grad != 0))
        allowed[of[unknown & ~pairs.poisoned]] = np.inf
        beyond = np.ones_like(raw, dtype=bool)
        beyond[of] = ~valid
        found.append(in_dtype(given[name].dtype, np.where(beyond, 0, total), np.where(beyond, 0, allowed)))
    return found


def chamfer(pairs: Pairs, given: Arguments) -> list[Expected]:
    value, saved = np.zeros(len(pairs.n)), 0
    for axis, lengths in chamfer_sides(pairs, given["direction"]):
        least = np.where(pairs.valid, pairs.cost, np.inf).min(axis)
        value += finite(least).sum(1) / lengths
        saved += least.shape[1]
    if given["direction"] == "both":
        value /= 2
    # `nearest_mismatch` looks at the nearest steps.
    anything = Expected(np.zeros((*pairs.shape, saved)), np.full((*pairs.shape, saved), np.inf), torch.int32)
    error = pairs.error.max((1, 2)) + (pairs.n + pairs.m) * pairs.unit * pairs.largest
    return [pairs.output(value, error), anything if given["save_nearest"] else nothing(torch.int32)]


def chamfer_sides(pairs: Pairs, direction: str) -> list[tuple[int, Array]]:
    """The axis along which a side's steps look for their nearest, and how many steps that side has."""
    sides = {"x": (2, pairs.n), "y": (1, pairs.m)}
    return list(sides.values()) if direction == "both" else [sides[direction]]


def chosen_cells(pairs: Pairs, given: Arguments, nearest: Tensor) -> list[tuple[Array, int]]:
    """A mask (P, N, M) of the cells that the steps of a side chose, and the axis along which they looked."""
    saved, found, first = nearest.reshape(len(pairs.n), nearest.shape[-1]).numpy(), [], 0
    for axis, _ in chamfer_sides(pairs, given["direction"]):
        steps = pairs.cost.shape[3 - axis]
        places = np.expand_dims(saved[:, first : first + steps], axis)
        across = np.arange(pairs.cost.shape[axis])
        found.append((pairs.valid & (places == (across if axis == 2 else across[:, None])), axis))
        first += steps
    return found


def nearest_mismatch(given: Arguments, nearest: Tensor) -> str | None:
    """Describe saved steps that are farther than the nearest ones, or return None."""
    pairs = pairs_of(given)
    allowed = 2 * (pairs.error + pairs.unit * np.abs(pairs.cost))
    known = ~pairs.poisoned & ~pairs.vague & (np.abs(pairs.cost).max((1, 2)) < OVERFLOW * torch.finfo(pairs.dtype).max)
    for chosen, axis in chosen_cells(pairs, given, nearest):
        least = np.where(pairs.valid, pairs.cost, np.inf).min(axis, keepdims=True)
        # A square that rounds below its own error has a root of any size below the error's.
        near = pairs.cost <= least + allowed + allowed.max((1, 2), keepdims=True)
        once = chosen.sum(axis) == pairs.valid.any(axis)
        if not (near | ~chosen | ~known[:, None, None]).all() or not once[known].all():
            return f"nearest steps {nearest.tolist()} along axis {axis} of {pairs.cost.tolist()}"
    return None


def chosen_weights(pairs: Pairs, given: Arguments) -> Weights:
    """Shares of the cells that the saved steps chose."""
    weights = np.zeros_like(pairs.cost)
    for chosen, axis in chosen_cells(pairs, given, given["nearest"]):
        weights += chosen / (pairs.n if axis == 2 else pairs.m)[:, None, None]
    if given["direction"] == "both":
        weights /= 2
    return Weights(weights, np.zeros_like(weights), np.zeros(len(pairs.n), dtype=bool))


REDUCERS = {
    "dtw": Reducer(dtw, path_weights),
    "soft_dtw": Reducer(soft_dtw, expected_alignment),
    "sinkhorn": Reducer(sinkhorn, plan_weights),
    "chamfer": Reducer(chamfer, chosen_weights),
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


# ---- interpolated cosine: the same cells, by their angles ----


class Angles(NamedTuple):
    """Steps of the sources at the steps of their targets, and of the targets, each divided by its norm."""

    of: Array  # (P,) pairs of this direction, as a mask
    left: Array  # (P, T) source steps
    right: Array
    weight: Array  # (P, T), of the right one
    row: Array  # (P, T, D), 0 beyond the target
    target: Array
    row_norm: Array  # (P, T), at least the smallest
    target_norm: Array
    error: Array  # (P, T), of the direction of a row: a sum of steps may cancel
    edge: Array  # (P,) rounding may have moved a norm across the smallest, or overflowed
    steps: Array  # (P,) of the target


def angles(given: Arguments, pairs: Pairs, source: Array, target: Array, n: Array, m: Array, of: Array) -> Angles:
    """source (P, N, D), target (P, M, D)."""
    unit, t = COST_ULPS * torch.finfo(pairs.dtype).eps, np.arange(target.shape[1])
    if given["mode"] == "nearest":
        # As torch does in this dtype.
        number = np.float64 if pairs.dtype == torch.float64 else np.float32
        places = (t.astype(number) * (n.astype(number) / m.astype(number))[:, None]).astype(np.float32)
        left = right = np.minimum(np.floor(places).astype(int), n[:, None] - 1)
        weight = np.zeros(left.shape)
    else:
        place = np.maximum((t + 0.5) * n[:, None] / m[:, None] - 0.5, 0)
        left = np.minimum(place.astype(int), n[:, None] - 1)
        right, weight = np.minimum(left + 1, n[:, None] - 1), place - left
    pair, valid = np.arange(len(n))[:, None], t < m[:, None]
    row = source[pair, left] + weight[..., None] * (source[pair, right] - source[pair, left])
    size = np.where(valid, norms(source[pair, left]) + norms(source[pair, right]), 0)
    row_norm, target_norm = norms(row), np.where(valid, norms(target), 0)
    error = np.where(valid, unit * (1 + size / np.maximum(row_norm, SMALLEST_NORM)), 0)
    close = [np.abs(norm / SMALLEST_NORM - 1) < wrong for norm, wrong in ((row_norm, error), (target_norm, unit))]
    edge = (size > OVERFLOW * torch.finfo(pairs.dtype).max) | (valid & (close[0] | close[1]))
    scales = np.maximum(row_norm, SMALLEST_NORM), np.maximum(target_norm, SMALLEST_NORM)
    rows, targets = (
        np.where(valid[..., None], of / scale[..., None], 0) for of, scale in zip((row, target), scales, strict=True)
    )
    return Angles(of, left, right, weight, rows, targets, *scales, error, edge.any(1), m)


def angle_directions(given: Arguments, pairs: Pairs, a: Side, b: Side) -> tuple[Angles, Angles]:
    """Of the pairs whose x is resampled, and of those whose y is."""
    of_x = {"x": pairs.n == pairs.n, "y": pairs.n != pairs.n, "shorter": pairs.n <= pairs.m}[given["resample"]]
    x, y = a.steps[pairs.i], b.steps[pairs.j]
    return (
        angles(given, pairs, x, y, pairs.n, pairs.m, of_x),
        angles(given, pairs, y, x, pairs.m, pairs.n, ~of_x),
    )


def interpolated_cosines(given: Arguments) -> list[Expected]:
    a, b = sides(given)
    pairs = pairs_of_sides(given, a, b)
    value, allowed = np.zeros(len(pairs.n)), np.zeros(len(pairs.n))
    vague = pairs.vague
    for part in angle_directions(given, pairs, a, b):
        mean = (part.row * part.target).sum((1, 2)) / part.steps
        value = np.where(part.of, 1 - mean, value)
        error = part.error.sum(1) / part.steps + FLOOR_ULPS * pairs.unit * part.steps
        allowed = np.where(part.of, np.minimum(error, 2), allowed)
        vague = vague | (part.of & part.edge)
    return [replace(pairs, vague=vague).output(value, allowed)]


def interpolated_cosine_gradients(given: Arguments) -> list[Expected]:
    a, b = sides(given)
    pairs = pairs_of_sides(given, a, b)
    grad = numbers(given["grad"]).reshape(-1)
    x, y = (np.zeros((len(grad), *which.steps.shape[1:])) for which in (a, b))
    x_wrong, y_wrong = np.zeros(x.shape[:2]), np.zeros(y.shape[:2])
    forwards, backwards = angle_directions(given, pairs, a, b)
    vague = pairs.vague | too_steep(pairs.cost, grad, pairs.dtype)
    for part in (forwards, backwards):
        vague = vague | (part.of & (part.edge | (part.error > MAGNIFIED).any(1)))
    pairs = replace(pairs, vague=vague)
    for part, source, source_wrong, target, target_wrong in (
        (forwards, x, x_wrong, y, y_wrong),
        (backwards, y, y_wrong, x, x_wrong),
    ):
        pair, t = np.nonzero(part.of[:, None] & (np.arange(part.row.shape[1]) < part.steps[:, None]))
        share = (grad / part.steps)[:, None]
        of_row, of_target = (across(*rows, share) for rows in ((part.row, part.target), (part.target, part.row)))
        target[pair, t] += (of_target / part.target_norm[..., None])[pair, t]
        wrong = 4 * np.abs(share) * (part.error + pairs.unit)
        target_wrong[pair, t] += (wrong / part.target_norm)[pair, t]
        value, value_wrong = of_row / part.row_norm[..., None], wrong / part.row_norm
        for step, weight in ((part.left, 1 - part.weight), (part.right, part.weight)):
            np.add.at(source, (pair, step[pair, t]), (weight[..., None] * value)[pair, t])
            # The rounding of a weight is one of 1, however small the weight.
            np.add.at(source_wrong, (pair, step[pair, t]), value_wrong[pair, t])
    return rounded(
        given,
        [
            sum_over_pairs(pairs, a, pairs.i, grad, x, x_wrong),
            sum_over_pairs(pairs, b, pairs.j, grad, y, y_wrong),
        ],
    )


def across(row: Array, other: Array, share: Array) -> Array:
    """(P, T, D), of −share · ⟨row, other⟩ in what `row` is the direction of; a row shorter than 1 has none."""
    along = (row * other).sum(-1, keepdims=True) * row
    short = norms(row) < 1 - 1e-6
    return np.where(short[..., None], 0, share[..., None] * (along - other))
