"""Time and memory against batch size; each contender runs in a process of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest

from benchmarks.alone import Point, sweep
from benchmarks.cases import DIRECTIONS, OPS, OURS, SQUARE, Workload
from benchmarks.conftest import Record
from benchmarks.peers import CONTENDERS

# Their warnings are theirs.
pytestmark = pytest.mark.filterwarnings("default")

# The exponent is that of the last points, where what does not grow matters least.
FITTED = 3


class Axis(NamedTuple):
    name: str
    works: list[Workload]
    value: Callable[[Workload], int]


def powers(first: int, last: int) -> list[int]:
    return [2**k for k in range(first, last + 1)]


AXES = {
    "B": Axis("B", [replace(SQUARE, b1=b, b2=b) for b in powers(4, 12)], lambda work: work.b1),
    "NM": Axis("NM", [replace(SQUARE, b1=32, b2=32, n=n, m=n) for n in powers(3, 10)], lambda work: work.n * work.m),
    "D": Axis("D", [replace(SQUARE, d=d) for d in powers(4, 11)], lambda work: work.d),
}
# Of time; of memory beyond the inputs there should be none. Only steps that meet count in the last.
EXPECTED = {"B": 2.0, "NM": 1.0, "D": 1.0}
EXPECTED_OF_OP = {("interpolated_euclidean", "NM"): 0.5}


def parameters() -> list[object]:
    """Every contender on the CPU as B grows, in training where it has a gradient, and our own forward as everything
    grows."""
    cases = [(*key, "B", peer.directions[-1]) for key, peer in CONTENDERS.items() if peer.device == "cpu"]
    cases += [(op, OURS, axis, DIRECTIONS[0]) for op in OPS for axis in AXES]
    quick = ("dtw", OURS, "D", DIRECTIONS[0])
    return [pytest.param(*case, id="-".join(case), marks=[] if case == quick else [pytest.mark.slow]) for case in cases]


@pytest.mark.parametrize(("op", "name", "axis", "direction"), parameters())
def test_growth(record: Record, smoke: bool, op: str, name: str, axis: str, direction: str) -> None:
    key = "-".join((op, name, axis, direction))
    facts = {"op": op, "name": name, "axis": axis, "direction": direction}
    try:
        CONTENDERS[op, name].load()
    except ImportError as reason:
        record("growth", key, **facts, skipped=str(reason))
        pytest.skip(str(reason))
    _, works, value = AXES[axis]
    points = sweep(op, name, direction, [work.tiny() for work in works[:2]] if smoke else works)
    for point, work in zip(points, works, strict=False):
        point["value"] = value(work)
    record(
        "growth",
        key,
        **facts,
        points=points,
        exponent=exponent([point for point in points if "seconds" in point]),
        expected=EXPECTED_OF_OP.get((op, axis), EXPECTED[axis]),
    )


def exponent(points: Sequence[Point]) -> float | None:
    """Slope of the least-squares line through the last points in logarithms; None where there are too few."""
    logs = [(math.log(point["value"]), math.log(min(point["seconds"]))) for point in points[-FITTED:]]
    if len(logs) < FITTED:
        return None
    x_mean, y_mean = (sum(each) / FITTED for each in zip(*logs, strict=True))
    return sum((x - x_mean) * (y - y_mean) for x, y in logs) / sum((x - x_mean) ** 2 for x, _ in logs)
