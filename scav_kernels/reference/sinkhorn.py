"""Entropic optimal transport, between sequences, debiased, and of given costs, one pair at a time."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.convergence import Convergence
from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import accumulation_dtype, debiased, over_costs, over_items, valid_steps


class Solver(NamedTuple):
    """Options of the iterations."""

    epsilon: float
    max_iterations: int
    tolerance: float
    scaling: float | None = None


class Cloud(NamedTuple):
    """The valid steps (n, D) of a sequence and their weights (n,), which sum to 1."""

    steps: Tensor
    weights: Tensor


def sinkhorn(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    return_convergence: bool = False,
    paired: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m, its cost c (n, m)
    and weights a (n,), b (m,), 1/n and 1/m unless given, starting from g = 0 and at most `max_iterations` times:

    f_s = −epsilon · log Σ_t b_t exp((g_t − c[s, t]) / epsilon),
    g_t = −epsilon · log Σ_s a_s exp((f_s − c[s, t]) / epsilon),
    P[s, t] = a_s b_t exp((f_s + g_t − c[s, t]) / epsilon), until Σ_s |Σ_t P[s, t] − a_s| < `tolerance`.

    The distance is ⟨a, f⟩ + ⟨b, g⟩, and its gradients are P in c, f in a and g in b. With `scaling`, g starts from one
    such iteration at each epsilon of max c · scaling^k, k = 0, 1, ..., that is larger than `epsilon`, but at most
    `max_iterations`. With `return_convergence` the distance comes with how many iterations there were at `epsilon`, and
    with Σ_s |Σ_t P[s, t] − a_s| after them.
    """
    solver = Solver(epsilon, max_iterations, tolerance, scaling)
    xs, ys = clouds(x, x_lengths, x_weights), clouds(y, y_lengths, y_weights)

    def over(of_cost: Callable[..., Tensor]) -> Tensor:
        def of_pair(a: Cloud, b: Cloud) -> Tensor:
            return of_cost(ground_cost(a.steps, b.steps, cost), solver, a.weights, b.weights)

        return over_items(of_pair, xs, ys, paired, x.new_zeros(0, dtype=accumulation_dtype(x)))

    value = over(of_weighted_cost)
    if not return_convergence:
        return value
    iterations, error = (over(lambda *given, part=part: convergence_of_cost(*given)[part]) for part in (0, 1))
    return value, Convergence(iterations.long(), error)


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    cost: str = "euclidean",
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    return_convergence: bool = False,
    paired: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`: d(x, y) − (d(x, x) + d(y, y)) / 2.

    d is `sinkhorn`. With `return_convergence`, the most iterations and the largest error of the three come with it.
    """
    solver = Solver(epsilon, max_iterations, tolerance, scaling)
    xs, ys = clouds(x, x_lengths, x_weights), clouds(y, y_lengths, y_weights)

    def over(of_pair: Callable[[Cloud, Cloud], Tensor]) -> Tensor:
        return over_items(of_pair, xs, ys, paired, x.new_zeros(0, dtype=accumulation_dtype(x)))

    def distance(a: Cloud, b: Cloud) -> Tensor:
        return of_weighted_cost(ground_cost(a.steps, b.steps, cost), solver, a.weights, b.weights)

    value = over(debiased(distance))
    if not return_convergence:
        return value

    def largest(part: int) -> Tensor:
        def of_term(a: Cloud, b: Cloud) -> Tensor:
            return convergence_of_cost(ground_cost(a.steps, b.steps, cost), solver, a.weights, b.weights)[part]

        return over(lambda a, b: torch.stack([of_term(a, b), of_term(a, a), of_term(b, b)]).max())

    return value, Convergence(largest(0).long(), largest(1))


def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    scaling: float | None = None,
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the iterations of `sinkhorn` on each pair's valid cells."""
    solver = Solver(epsilon, max_iterations, tolerance, scaling)
    batch = cost[None, None] if cost.dim() == 2 else cost
    b1, b2, n, m = batch.shape
    x_weights, y_weights = (w[None] if w is not None and w.dim() == 1 else w for w in (x_weights, y_weights))
    rows = weights_of(x_weights, x_lengths, (b1, n), accumulation_dtype(cost))
    columns = weights_of(y_weights, y_lengths, (b2, m), accumulation_dtype(cost))

    def over(of_cost: Callable[..., Tensor]) -> Tensor:
        def of_pair(i: int, j: int) -> Tensor:
            lengths = (torch.tensor([len(of)]) for of in (rows[i], columns[j]))
            return over_costs(lambda c: of_cost(c, solver, rows[i], columns[j]), batch[i, j], *lengths)

        value = over_items(of_pair, range(b1), range(b2), False, cost.new_zeros(0, dtype=accumulation_dtype(cost)))
        return value.reshape(batch.shape[:2] if cost.dim() == 4 else ())

    value = over(of_weighted_cost)
    if not return_convergence:
        return value
    iterations, error = (over(lambda *given, part=part: convergence_of_cost(*given)[part]) for part in (0, 1))
    # NaN or −inf in a cell has decided both.
    iterations, error = iterations.nan_to_num(nan=0, neginf=0).long(), error.masked_fill(error.isinf(), torch.nan)
    return value, Convergence(iterations, error)


def clouds(x: Tensor, lengths: Tensor | None, weights: Tensor | None) -> list[Cloud]:
    """(B, N, D), (B,) and (B, N) -> B clouds."""
    of_steps = weights_of(weights, lengths, (x.shape[0], x.shape[1]), accumulation_dtype(x))
    return [Cloud(*pair) for pair in zip(valid_steps(x, lengths), of_steps, strict=True)]


def weights_of(
    weights: Tensor | None, lengths: Tensor | None, shape: tuple[int, int], dtype: torch.dtype
) -> list[Tensor]:
    """(B, N) or None -> B weights (length,) that sum to 1."""
    batch, longest = shape
    given = torch.ones(batch, longest, dtype=dtype) if weights is None else weights.to(dtype)
    cut = [given[i, : longest if lengths is None else int(lengths[i])] for i in range(batch)]
    return [of / of.sum() for of in cut]


def sinkhorn_of_cost(cost: Tensor, epsilon: float, max_iterations: int, tolerance: float) -> Tensor:
    """(n, m) -> (), of uniform weights: infinite where no plan has mass for every step."""
    return of_weighted_cost(cost, Solver(epsilon, max_iterations, tolerance), *uniform(cost))


def of_weighted_cost(cost: Tensor, solver: Solver, a: Tensor, b: Tensor) -> Tensor:
    """Cost (n, m), weights (n,) and (m,) -> (), infinite where no plan has mass for every step that has weight."""
    if is_blocked(cost, a, b):
        return cost.max()
    f, g, plan, _ = iterate(cost.detach(), solver, a.detach(), b.detach())
    # No mass moves at infinite cost.
    transport = (plan * cost.masked_fill(plan == 0, 0)).sum()
    # A step without weight that no finite cost leads to has an infinite potential.
    f, g = (of.masked_fill(of.isinf(), 0) for of in (f, g))
    # The difference is 0: it carries the gradient.
    return (a * f).sum() + (b * g).sum() + (transport - transport.detach())


def is_blocked(cost: Tensor, a: Tensor, b: Tensor) -> bool:
    """Return whether all costs of a step that has weight are infinite."""
    kept = cost[a > 0][:, b > 0]
    return any(bool(kept.isposinf().all(side).any()) for side in (0, 1))


def convergence_of_cost(cost: Tensor, solver: Solver, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(n, m) -> iterations (), marginal error (): 0 and NaN where no potentials exist."""
    if not cost.min() > -torch.inf or is_blocked(cost, a, b):
        return torch.tensor(0.0), cost.new_tensor(torch.nan)
    _, _, plan, iterations = iterate(cost.detach(), solver, a.detach(), b.detach())
    return torch.tensor(float(iterations)), (plan.sum(1) - a.detach()).abs().sum()


def potentials_and_plan(
    cost: Tensor, epsilon: float, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(n, m) -> f (n,), g (m,), P (n, m), of uniform weights."""
    f, g, plan, _ = iterate(cost, Solver(epsilon, max_iterations, tolerance), *uniform(cost))
    return f, g, plan


def uniform(cost: Tensor) -> tuple[Tensor, Tensor]:
    n, m = cost.shape
    return cost.new_full((n,), 1 / n), cost.new_full((m,), 1 / m)


def iterate(cost: Tensor, solver: Solver, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """(n, m) -> f (n,), g (m,), P (n, m), iterations. Steps without weight take no part, and get their potentials."""
    epsilon, max_iterations, tolerance, scaling = solver
    kept = cost[a > 0][:, b > 0]
    log_a, log_b = a[a > 0].log()[:, None], b[b > 0].log()

    def of_rows(g: Tensor, c: Tensor, epsilon: float) -> Tensor:
        return -epsilon * torch.logsumexp(log_b + (g - c) / epsilon, 1)

    def of_columns(f: Tensor, c: Tensor, epsilon: float) -> Tensor:
        return -epsilon * torch.logsumexp(log_a + (f[:, None] - c) / epsilon, 0)

    g = torch.zeros_like(log_b)
    for larger in () if scaling is None else annealed(kept, epsilon, scaling, max_iterations):
        g = of_columns(of_rows(g, kept, larger), kept, larger)
    iterations, error = 0, torch.inf
    following = of_rows(g, kept, epsilon)
    while iterations < max_iterations and not error < tolerance:
        iterations += 1
        before, f = g, following
        g = of_columns(f, kept, epsilon)
        following = of_rows(g, kept, epsilon)
        # Σ_t P[s, t] = a_s exp((f_s − following_s) / epsilon)
        error = (a[a > 0] * (torch.exp((f - following) / epsilon) - 1)).abs().sum().item()
    plan = torch.exp(log_a + log_b + (f[:, None] + g - kept) / epsilon)
    whole = torch.zeros_like(cost)
    whole[torch.outer(a > 0, b > 0)] = plan.flatten()
    return of_rows(before, cost[:, b > 0], epsilon), of_columns(f, cost[a > 0], epsilon), whole, iterations


def annealed(cost: Tensor, epsilon: float, scaling: float, most: int) -> list[float]:
    """The epsilons before the last, at most so many, from the largest finite cost down."""
    epsilons: list[float] = []
    following: float = cost[cost.isfinite()].max().item()
    while following > epsilon and len(epsilons) < most:
        epsilons.append(following)
        following *= scaling
    return epsilons
