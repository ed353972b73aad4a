"""Soft-DTW's gradient of 16-bit inputs, for which the softmin's weights are packed, against the float64 reference, and
where every path is known; run by test_simt.py in the shim.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.ops.cases import Case
from tests.ops.inputs import Answer, Sequences, Shape, answer, sequences
from tests.simt.parts import measured, steps
from tests.simt.plugin import settings

# Of a whole gradient, in its norm: what rounding it, and of bfloat16 its cells' factors before, leaves.
ALLOWED = {torch.bfloat16: 4e-3, torch.float16: 4e-4}
# A thread for every pair, or a block.
LANES: dict[str, Any] = {"MULTIPROCESSORS": 0}
WAVEFRONT: dict[str, Any] = {"MULTIPROCESSORS": 1_000_000}
BAND, EUCLIDEAN, COSINE = (
    {"gamma": 0.1, "band": 3},
    {"gamma": 0.1, "cost": "euclidean"},
    {"gamma": 0.1, "cost": "cosine"},
)
# Of few rows a lane, up to 64 steps, and of many; more than a warp's, or a thread's, panel.
PROBLEMS: list[tuple[Shape, list[dict[str, Any]]]] = [
    (Shape(b1=1, b2=1, n=1, m=1), [{}]),
    (Shape(b1=3, b2=4, n=6, m=5), [{}, {"gamma": 0.05}, {"gamma": 50.0}, BAND, EUCLIDEAN, COSINE]),
    (Shape(b1=2, b2=3, n=50, m=40), [{}, BAND, EUCLIDEAN, COSINE]),
    (Shape(b1=2, b2=2, n=90, m=70), [{}, BAND]),
    (Shape(b1=1, b2=2, n=300, m=17), [EUCLIDEAN, {"band": 1}]),
]
# Costs are 1. Ties: gamma is a power of two, so small that a softmin is the least of the three, and where several are,
# exactly their mean.
TIES, WIDE = {"gamma": 2.0**-60}, {"gamma": 100.0}
LONG, SHORT = 520, 260


def distance(part: Tensor, expected: Tensor) -> float:
    return ((part.double() - expected).norm() / expected.norm()).item()


def check(name: str, actual: Answer, expected: Answer, dtype: torch.dtype) -> None:
    for part in ("x_grad", "y_grad"):
        found, before = getattr(actual, part), getattr(expected, part)
        assert found.dtype == dtype, name
        apart = distance(found, before)
        assert apart <= ALLOWED[dtype], f"{name} {part}: {apart:.1e} of the gradient, allowed {ALLOWED[dtype]:.1e}"


def soft_dtw(options: dict[str, Any]) -> Case:
    return Case(f"soft_dtw {options}", "soft_dtw", options)


def check_problems(dtype: torch.dtype) -> None:
    for shape, every in PROBLEMS:
        given = sequences(shape, dtype)
        for options in every:
            case = soft_dtw(options)
            expected = answer(case.reference, given.map(Tensor.double))
            for way in (LANES, WAVEFRONT):
                with settings(**way):
                    check(f"{shape} {case} {way}", answer(case.kernel, given), expected, dtype)
    given = sequences(Shape(b1=3, b2=3, n=50, m=40), dtype)
    expected = answer(soft_dtw({}).reference, given.map(Tensor.double), paired=True)
    check("paired", answer(soft_dtw({}).kernel, given, paired=True), expected, dtype)


def check_parts(dtype: torch.dtype) -> None:
    """Of one panel of 256 rows, and of two. A panel keeps a word of each cell that its lanes visit, of 8 rows each."""
    n, m = 1100, 12
    given = steps(n, m, dtype, False).map(lambda side: side[:1])._replace(x_lengths=torch.tensor([n - 23]))
    weight = 2 if dtype == torch.bfloat16 else 4
    panel = 256 * m * (4 + weight) + 32 * (m + 31) * 8 * 4
    for options in ({}, {"cost": "euclidean", "gamma": 0.1, "band": 20}):
        case = soft_dtw(options)
        expected = answer(case.reference, given.map(Tensor.double))
        held = []
        for budget in (1, 5 * panel // 2, 1 << 30):
            found, most = measured(budget, partial(answer, case.kernel, given))
            check(f"{budget} bytes {case}", found, expected, dtype)
            held.append(most)
        # Beside the scratch, a product's operands in float32, and a share of the gradient.
        more = held[1] - held[0]
        assert panel <= more <= 4 * panel // 3, f"{case}: {more} bytes more, a panel has {panel}"


def alignment(n: int, m: int, dtype: torch.dtype, **options: Any) -> tuple[Tensor, Tensor]:
    """(n, m), (m,): the probability of each cell to be on a path, and its sums over x. From zeros to unit vectors, the
    gradient of x is -2 of the one, that of y 2 of the other times y."""
    given = Sequences(torch.zeros(1, n, m, dtype=dtype), torch.eye(m, dtype=dtype)[None], None, None)
    given = given.leaves()
    soft_dtw(options).kernel(*given).sum().backward()
    return given.x.grad[0] / -2, given.y.grad[0].diagonal() / 2


def check_paths_that_are_known(dtype: torch.dtype) -> None:
    """However long a path, and whatever its weights were rounded to, it begins and ends with all there is; a panel at a
    time, too."""
    for way in (LANES, WAVEFRONT, {**WAVEFRONT, "SCRATCH_BYTES": 1}):
        with settings(**way):
            for n, m in ((LONG, 1), (1, LONG)):
                assert torch.equal(alignment(n, m, dtype)[0], torch.ones(n, m, dtype=dtype)), (way, n, m)
            straight, _ = alignment(SHORT, SHORT, dtype, band=0)
            assert torch.equal(straight, torch.eye(SHORT, dtype=dtype)), way
            for options in (TIES, WIDE, {**WIDE, "band": 10}):
                found = alignment(LONG, SHORT, dtype, **options)
                name = f"{way} {options} {dtype}"
                ends = found[0][[0, -1], [0, -1]].tolist()
                assert ends == [1.0, 1.0], f"{name}: {ends}"
                for part, expected in zip(found, alignment(LONG, SHORT, torch.float64, **options), strict=True):
                    apart = distance(part, expected)
                    assert apart <= ALLOWED[dtype], f"{name}: {apart:.1e}"


def check_pairs_out_of_reach() -> None:
    """Costs beyond what is reached: no path has a gradient."""
    given = Sequences(*(torch.full((1, 3, 1), side * 2e18, dtype=torch.bfloat16) for side in (1, -1)), None, None)
    for way in (LANES, WAVEFRONT):
        with settings(**way):
            found = answer(soft_dtw({}).kernel, given)
            assert found.value.isinf().all()
            assert not found.x_grad.any(), found.x_grad
            assert not found.y_grad.any(), found.y_grad


def main() -> None:
    for dtype in ALLOWED:
        check_problems(dtype)
        check_parts(dtype)
        check_paths_that_are_known(dtype)
    check_pairs_out_of_reach()


if __name__ == "__main__":
    main()
