"""Entropic optimal transport, between sequences, debiased, and of given costs, one pair at a time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scav_kernels.ops.convergence import Convergence
from scav_kernels.reference.ground_cost import ground_cost
from scav_kernels.reference.pairs import Distance, debiased, over_costs, over_pairs


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
    return_convergence: bool = False,
    paired: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`. For a pair of lengths n, m, its cost c (n, m),
    a_s = 1/n and b_t = 1/m, starting from g = 0 and at most `max_iterations` times:

    f_s = −epsilon · log Σ_t b_t exp((g_t − c[s, t]) / epsilon),
    g_t = −epsilon · log Σ_s a_s exp((f_s − c[s, t]) / epsilon),
    P[s, t] = a_s b_t exp((f_s + g_t − c[s, t]) / epsilon), until Σ_s |Σ_t P[s, t] − a_s| < `tolerance`.

    The distance is ⟨a, f⟩ + ⟨b, g⟩, and its gradient in c is P. With `return_convergence` it comes with how many
    iterations there were, and with Σ_s |Σ_t P[s, t] − a_s| after them.
    """

    def convergence(part: int) -> Tensor:
        def of_pair(a: Tensor, b: Tensor) -> Tensor:
            return convergence_of_cost(ground_cost(a, b, cost), epsilon, max_iterations, tolerance)[part]

        return over_pairs(of_pair, x, y, x_lengths, y_lengths, paired)

    value = over_pairs(_of_pairs(epsilon, max_iterations, tolerance, cost), x, y, x_lengths, y_lengths, paired)
    return (value, Convergence(convergence(0).long(), convergence(1))) if return_convergence else value


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
    paired: bool = False,
) -> Tensor:
    """x (B1, N, D), y (B2, M, D) -> (B1, B2), or (B,) where `paired`: d(x, y) − (d(x, x) + d(y, y)) / 2.

    d is `sinkhorn`.
    """
    return over_pairs(debiased(_of_pairs(epsilon, max_iterations, tolerance, cost)), x, y, x_lengths, y_lengths, paired)


def sinkhorn_from_cost(
    cost: Tensor,
    x_lengths: Tensor | None = None,
    y_lengths: Tensor | None = None,
    *,
    epsilon: float = 0.05,
    max_iterations: int = 100,
    tolerance: float = 1e-3,
    return_convergence: bool = False,
) -> Tensor | tuple[Tensor, Convergence]:
    """cost (B1, B2, N, M) -> (B1, B2), or (N, M) -> (): the iterations of `sinkhorn` on each pair's valid cells."""

    def over(of_cost: Callable[[Tensor, float, int, float], Tensor]) -> Tensor:
        return over_costs(lambda c: of_cost(c, epsilon, max_iterations, tolerance), cost, x_lengths, y_lengths)

    value = over(sinkhorn_of_cost)
    if not return_convergence:
        return value
    iterations, error = (over(lambda *given, part=part: convergence_of_cost(*given)[part]) for part in (0, 1))
    # NaN or −inf in a cell has decided both.
    iterations, error = iterations.nan_to_num(nan=0, neginf=0).long(), error.masked_fill(error.isinf(), torch.nan)
    return value, Convergence(iterations, error)


def _of_pairs(epsilon: float, max_iterations: int, tolerance: float, cost: str) -> Distance:
    return lambda a, b: sinkhorn_of_cost(ground_cost(a, b, cost), epsilon, max_iterations, tolerance)


def sinkhorn_of_cost(cost: Tensor, epsilon: float, max_iterations: int, tolerance: float) -> Tensor:
    """(n, m) -> (), infinite where no plan has mass for every step."""
    if any(cost.isposinf().all(side).any() for side in (0, 1)):
        return cost.max()
    f, g, plan = potentials_and_plan(cost.detach(), epsilon, max_iterations, tolerance)
    # No mass moves at infinite cost.
    transport = (plan * cost.masked_fill(plan == 0, 0)).sum()
    # The difference is 0: it carries the gradient.
    return f.mean() + g.mean() + (transport - transport.detach())


def convergence_of_cost(cost: Tensor, epsilon: float, max_iterations: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """(n, m) -> iterations (), marginal error (): 0 and NaN where no potentials exist."""
    if not cost.min() > -torch.inf or any(cost.isposinf().all(side).any() for side in (0, 1)):
        return torch.tensor(0.0), cost.new_tensor(torch.nan)
    _, _, plan, iterations = iterate(cost.detach(), epsilon, max_iterations, tolerance)
    return torch.tensor(float(iterations)), (plan.sum(1) - 1 / len(cost)).abs().sum()


def potentials_and_plan(
    cost: Tensor, epsilon: float, max_iterations: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(n, m) -> f (n,), g (m,), P (n, m)."""
    f, g, plan, _ = iterate(cost, epsilon, max_iterations, tolerance)
    return f, g, plan


def iterate(cost: Tensor, epsilon: float, max_iterations: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor, int]:
    """(n, m) -> f (n,), g (m,), P (n, m), iterations."""
    n, m = cost.shape
    log_a, log_b = -math.log(n), -math.log(m)
    g = cost.new_zeros(m)
    iterations, error = 0, torch.inf
    while iterations < max_iterations and not error < tolerance:
        iterations += 1
        f = -epsilon * torch.logsumexp(log_b + (g - cost) / epsilon, 1)
        g = -epsilon * torch.logsumexp(log_a + (f[:, None] - cost) / epsilon, 0)
        plan = torch.exp(log_a + log_b + (f[:, None] + g - cost) / epsilon)
        error = (plan.sum(1) - 1 / n).abs().sum().item()
    return f, g, plan, iterations
