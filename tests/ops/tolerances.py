"""All tolerances of the op tests, against the float64 reference.

A kernel's error is at most `ERROR_RATIO` times that of plain PyTorch in the same dtype, or a few units in the last
place where that is larger, because plain PyTorch can be exact by luck: `FLOOR_ULPS` of them for a number, more for a
sum over steps, and more again where an exponential of large arguments magnifies the rounding of its argument. Errors
are the largest deviation over a tensor, relative to its largest entry.
"""

import math

import torch
from torch import Tensor

from scav_kernels.reference.pairs import accumulation_dtype

from .cases import Case
from .inputs import Answer
from .strategies import Problem

ERROR_RATIO = 2
FLOOR_ULPS = 4
# ‖x‖² + ‖y‖² − 2⟨x, y⟩, or its root, and a gradient x Σw − Σ w y are this much smaller than their terms at most: where
# more would cancel, kernels start from x − y.
CANCELLATION = 16
# What ‖x‖² + ‖y‖² − 2⟨x, y⟩ in float32 may leave of ‖x‖ where steps coincide: the root of an ulp, with room.
COINCIDENCE = 1e-3
# Of a probability, in soft-DTW's expected alignment, whatever the lengths.
ALIGNMENT = 1e-5
# Of ‖x‖ + ‖y‖, for the cost of two steps of few features.
COST_ULPS = FLOOR_ULPS * CANCELLATION


def assert_accurate(case: Case, actual: Answer, plain: list[Answer], oracle: Answer) -> None:
    """`plain` is the same answer by several formulas in plain PyTorch; the one that errs most is the yardstick."""
    for part in actual._fields:
        dtype, expected = getattr(plain[0], part).dtype, getattr(oracle, part)
        unavoidable = max(error(getattr(answer, part), expected) for answer in plain)
        allowed = max(ERROR_RATIO * unavoidable, floor(dtype, steps(oracle), magnification(case, oracle)))
        assert_within(part, getattr(actual, part), expected, allowed, dtype)


def assert_same_up_to_rounding(actual: Answer, expected: Answer) -> None:
    """For one question asked twice, in another order or layout."""
    for part in actual._fields:
        before = getattr(expected, part)
        assert_within(part, getattr(actual, part), before, floor(before.dtype, steps(expected)), before.dtype)


def assert_same_answer(problem: Problem, actual: Answer, expected: Answer) -> None:
    """For one question asked in another way, so that its costs round differently."""
    assert_same_value(problem, actual.value, expected.value)
    if not problem.decided:
        return
    magnification = reach(problem) / problem.smoothing if problem.smoothing else 0.0
    for part in ("x_grad", "y_grad"):
        before = getattr(expected, part)
        cells = steps(expected) * max(expected.value.shape)
        allowed = CANCELLATION * floor(before.dtype, cells, magnification)
        allowed *= max(before.abs().max().item(), slope(problem))
        difference = (getattr(actual, part) - before).abs().max().item()
        assert difference <= allowed, f"{part}: difference {difference:.2e}, allowed {allowed:.2e}"


def assert_same_value(problem: Problem, actual: Tensor, expected: Tensor, slack: float = 0.0) -> None:
    """`slack`: what the two may differ by without any rounding, in the distance's unit."""
    assert actual.shape == expected.shape, f"expected {tuple(expected.shape)}, got {tuple(actual.shape)}"
    for smaller, larger in ((actual, expected), (expected, actual)):
        assert_at_most(problem, smaller, larger, slack)


def assert_at_most(problem: Problem, smaller: Tensor, larger: Tensor, slack: float = 0.0) -> None:
    allowed = rounding(problem) + slack
    excess = (smaller.double() - larger.double()).max().item()
    assert excess <= allowed, f"excess {excess:.2e}, allowed {allowed:.2e}"


def rounding(problem: Problem) -> float:
    """Return the largest change of a distance by rounding, in its unit: that of the costs along a path."""
    summands = max(problem.given.x.shape[2], path(problem))
    return CANCELLATION * floor(accumulation_dtype(problem.given.x), summands) * reach(problem)


def reach(problem: Problem) -> float:
    """No number in the computation of a distance is larger."""
    logarithm = 1 + math.log(max(problem.given.x.shape[1], problem.given.y.shape[1]))
    return path(problem) * (largest_cost(problem) + problem.smoothing * logarithm)


def largest_cost(problem: Problem) -> float:
    """No ground cost of the problem is larger."""
    if problem.cost == "cosine":
        return 2.0
    x, y = (max(steps.norm(dim=-1).max().item() for steps in side) for side in problem.valid())
    return (x + y) ** (2 if problem.cost == "sqeuclidean" else 1)


def slope(problem: Problem) -> float:
    """Typical gradient of one cell, in units of the distance per unit of a feature: a sum of several may be zero."""
    sides = problem.valid()
    if problem.cost == "cosine":
        norms = torch.cat([steps.norm(dim=-1) for side in sides for steps in side])
        of_cost = 1 / norms.masked_fill(norms == 0, torch.inf).min().item()
    else:
        of_cost = 2 * largest_cost(problem) ** 0.5 if problem.cost == "sqeuclidean" else 1.0
    # A mean or a plan spreads a weight of one over the steps.
    return of_cost if "dtw" in problem.case.metric else of_cost / max(len(steps) for side in sides for steps in side)


def path(problem: Problem) -> int:
    """Cells whose costs one distance adds, at most."""
    longest = max(problem.given.x.shape[1], problem.given.y.shape[1])
    return terms(problem) * (2 * longest - 1 if "dtw" in problem.case.metric else 1)


def terms(problem: Problem) -> int:
    """A divergence adds to a distance the halves of two others."""
    return 2 if "divergence" in problem.case.metric else 1


def unconverged(problem: Problem) -> float:
    """Return how far below the optimum Sinkhorn's dual value may stop: its gradient, the marginal error, times the
    largest distance of the potentials from the best ones, which vary by no more than the costs do."""
    return terms(problem) * problem.case.options["tolerance"] * largest_cost(problem)


def coincidence(dtype: torch.dtype) -> float:
    """Share of its norm by which a step may differ from itself."""
    return COINCIDENCE * math.sqrt(torch.finfo(dtype).eps / torch.finfo(torch.float32).eps)


def assert_close(name: str, actual: Tensor, expected: Tensor) -> None:
    assert_within(name, actual, expected, floor(expected.dtype), expected.dtype)


def floor(dtype: torch.dtype, steps: int = 4, magnification: float = 0.0) -> float:
    return FLOOR_ULPS * torch.finfo(dtype).eps * (math.sqrt(steps) + magnification)


def steps(found: Answer) -> int:
    return max(found.x_grad.shape[1], found.y_grad.shape[1])


def magnification(case: Case, oracle: Answer) -> float:
    """By how much the relative rounding of a cost or a distance grows.

    By distance / smoothing in exp(−distance / smoothing), and by epsilon / distance in Sinkhorn's potentials, which are
    logarithms in units of epsilon.
    """
    options, value = case.all_options(), oracle.value.abs().max().item()
    epsilon = options.get("epsilon", 0.0)
    return value / options.get("gamma", epsilon or math.inf) + (epsilon / value if epsilon and value else 0.0)


def assert_within(name: str, actual: Tensor, expected: Tensor, allowed: float, dtype: torch.dtype) -> None:
    assert actual.dtype == dtype, f"{name}: expected {dtype}, got {actual.dtype}"
    assert actual.shape == expected.shape, f"{name}: expected {tuple(expected.shape)}, got {tuple(actual.shape)}"
    measured = error(actual, expected)
    assert measured <= allowed, f"{name}: relative error {measured:.2e}, allowed {allowed:.2e}"


def error(actual: Tensor, expected: Tensor) -> float:
    """Infinite where a number is not finite, because no comparison with NaN is ever true."""
    if not actual.numel():
        return 0.0
    scale = expected.double().abs().max().clamp(min=torch.finfo(torch.float64).tiny)
    measured = ((actual.double() - expected.double()).abs().max() / scale).item()
    return torch.inf if math.isnan(measured) else measured
