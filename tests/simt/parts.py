"""Pairs that are cut into parts of rows, against the reference and against themselves uncut; run by test_simt.py in the
shim. `python -m tests.simt.parts dtw chamfer` takes these metrics, and all without arguments.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import scav_kernels
from scav_kernels import reference
from tests.ops.cases import Case
from tests.ops.inputs import Answer, Sequences, Shape, answer, sequences, weights
from tests.ops.tolerances import assert_within, floor, magnification
from tests.simt.plugin import settings

KIB = 1 << 10
SMOOTH = {"epsilon": 1.0, "max_iterations": 12, "tolerance": 1e-6}
CASES = [
    Case("dtw", "dtw"),
    Case("dtw-cosine-band", "dtw", {"cost": "cosine", "band": 2}),
    Case("dtw-options", "dtw", {"diagonal_weight": 1.5, "open_begin": True, "open_end": True, "normalize": "path"}),
    Case("soft_dtw", "soft_dtw"),
    Case("soft_dtw-open", "soft_dtw", {"gamma": 0.5, "open_begin": True, "open_end": True}),
    Case("soft_dtw-euclidean-band", "soft_dtw", {"cost": "euclidean", "gamma": 0.1, "band": 20}),
    Case("sinkhorn", "sinkhorn", SMOOTH),
    Case("sinkhorn-weighted", "sinkhorn", {**SMOOTH, "scaling": 0.5}, weighted=True),
    Case("chamfer-both", "chamfer", {"direction": "both"}),
    Case("chamfer-y-cosine", "chamfer", {"direction": "y", "cost": "cosine"}),
]


class Problem(NamedTuple):
    given: Sequences
    paired: bool
    # Of the scratch. Soft-DTW's gradient takes 16 bytes a cell, 10 of bfloat16, and a part of it has 256 rows at least.
    budgets: dict[str, int]
    with_oracle: bool = True
    with_bands: bool = True


def steps(n: int, m: int, dtype: torch.dtype, paired: bool) -> Sequences:
    """An x ends with a panel of 256 rows, another within one. Both drift, so that paths advance in every part; steps of
    y are near some of x's, all along."""
    given = sequences(Shape(b1=3, b2=3 if paired else 1, n=n, m=m, d=3, ragged=False), torch.float64)
    drift = torch.linspace(-4, 4, n, dtype=torch.float64)[:, None]
    x = given.x + drift
    y = given.y + drift[:: n // m][:m]
    y[:, ::3] = x[:1, :: n // m][:, :m:3] * (1 + 1e-4)
    y_lengths = torch.tensor([m, m // 2, m]) if paired else None
    return Sequences(x.to(dtype), y.to(dtype), torch.tensor([n, 512, 300]), y_lengths)


def problems() -> list[Problem]:
    small = {"dtw": 32 * KIB, "soft_dtw": 240 * KIB, "sinkhorn": 32 * KIB, "chamfer": 32 * KIB}
    one = sequences(Shape(b1=1, b2=1, n=600, m=200, d=1, ragged=False))
    return [
        Problem(steps(1100, 12, torch.float32, False), False, small),
        Problem(steps(600, 12, torch.float64, True), True, small),
        Problem(steps(600, 12, torch.bfloat16, False), False, {**small, "soft_dtw": 100 * KIB}),
        # More panels to a part than a block has warps, and not a multiple of them.
        Problem(
            steps(4864, 19, torch.float32, False),
            False,
            {"dtw": 270 * KIB, "soft_dtw": 1536 * KIB},
            with_bands=False,
        ),
        Problem(
            one,
            False,
            {"dtw": 300 * KIB, "soft_dtw": 900 * KIB, "sinkhorn": 300 * KIB, "chamfer": 300 * KIB},
            with_oracle=False,
        ),
    ]


def measured(budget: int, run: Callable[[], Answer], order: int = 0) -> tuple[Answer, int]:
    """With so many bytes of scratch, in an order of threads; and the most bytes that torch held meanwhile."""
    with settings(MULTIPROCESSORS=1_000_000, SCRATCH_BYTES=budget, ORDER=order):
        torch.ops.scav_simt.count_memory()
        return run(), torch.ops.scav_simt.most_memory()


def from_cost(case: Case, cost: Tensor, given: Sequences) -> Answer:
    cost = cost.detach().requires_grad_()
    options = {name: value for name, value in case.options.items() if name != "cost"}
    options |= case.weights(given.x, given.y)
    value = getattr(scav_kernels, f"{case.metric}_from_cost")(cost, given.x_lengths, given.y_lengths, **options)
    (value * weights(value)).sum().backward()
    return Answer(value.detach(), cost.grad, cost.grad)


def check(case: Case, cut: Answer, expected: Answer) -> None:
    """Rounding is that of sums over steps, and of exponentials."""
    for part in cut._fields:
        actual, before = getattr(cut, part), getattr(expected, part)
        allowed = floor(actual.dtype, max(cut.x_grad.shape), magnification(case, expected))
        if case.metric == "sinkhorn" and part != "value":
            allowed = max(allowed, SMOOTH["tolerance"])
        assert_within(f"{case} {part}", actual, before, allowed, actual.dtype)


def check_convergence(problem: Problem, budget: int) -> None:
    """Iterations and marginal errors: of parts, of K in memory or in registers, and of the reference."""
    sequences = problem.given.map(Tensor.double)
    for options in ({**SMOOTH, "max_iterations": 3}, {"epsilon": 2.0, "tolerance": 0.05}):
        ask = partial(scav_kernels.cdist, metric="sinkhorn", return_convergence=True, **options)
        if problem.paired:
            ask = partial(scav_kernels.pairwise_distance, metric="sinkhorn", return_convergence=True, **options)
        _, expected = reference.sinkhorn(*sequences, paired=problem.paired, return_convergence=True, **options)
        for scratch in (budget, 1 << 30):
            with settings(MULTIPROCESSORS=1_000_000, SCRATCH_BYTES=scratch):
                _, found = ask(*problem.given)
            assert torch.equal(found.iterations, expected.iterations), (options, scratch)
            torch.testing.assert_close(found.marginal_error.double(), expected.marginal_error, rtol=1e-2, atol=1e-4)


def main(metric: str) -> None:
    if metric == "sinkhorn":
        for problem in problems()[1:3]:
            check_convergence(problem, problem.budgets[metric])
    cases = [case for case in CASES if case.metric == metric]
    for problem in problems():
        given = problem.given
        if (budget := problem.budgets.get(metric)) is None:
            continue
        for case in cases if problem.with_bands else [case for case in cases if "band" not in case.options]:
            ways = [partial(answer, case.kernel, given, problem.paired)]
            has_costs = hasattr(scav_kernels, f"{case.metric}_from_cost")
            if has_costs and given.x.dtype == torch.float32 and case.options.get("cost") != "cosine":
                cost = torch.cdist(given.x.unsqueeze(1), given.y.unsqueeze(0))
                ways.append(partial(from_cost, case, cost, given))
            for number, way in enumerate(ways):
                cut, most = measured(budget, way)
                again, _ = measured(budget, way, order=2)
                for first, part in zip(cut, again, strict=True):
                    assert torch.equal(first, part), case
                whole, most_uncut = measured(1 << 30, way)
                check(case, cut, whole)
                if number == 0 and problem.with_oracle:
                    check(case, cut, answer(case.reference, given.map(Tensor.double), problem.paired))
                elif number == 0:
                    # Beside the scratch, of so few features: rows, gradients, what is near, paths.
                    assert most <= budget + 40 * KIB, f"{case}: {most - budget} bytes more than the scratch"
                    assert most_uncut > 2 * budget, f"{case}: {most_uncut} bytes would do"


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted({case.metric for case in CASES}):
        main(name)
