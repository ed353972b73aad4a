"""The fixed cost of a call, and the speed-up by a second thread."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.cases import DIRECTIONS, OPS, SQUARE, Workload, inputs, once, ours
from benchmarks.conftest import Record
from benchmarks.limit import seconds_of

SMALLEST = Workload("smallest", 1, 1, 4, 4, d=8)
# Calls that are timed together, and how many times.
CALLS, TIMES = 500, 7
ROUNDS = 5


@pytest.fixture
def threads() -> Iterator[int]:
    """Return the number of threads, and restore it after the test."""
    threads = torch.get_num_threads()
    yield threads
    torch.set_num_threads(threads)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", OPS)
def test_call(record: Record, smoke: bool, op: str, direction: str) -> None:
    distance = ours(op, **({"max_iterations": 1} if op == "sinkhorn" else {}))
    batch = inputs(SMALLEST, gradient=direction == "forward_backward")
    calls = 1 if smoke else CALLS

    def run() -> None:
        for _ in range(calls):
            once(distance, batch, direction)

    samples = [seconds_of(run) / calls for _ in range(TIMES)]
    record("calls", f"{op}-{direction}", op=op, direction=direction, seconds=min(samples), samples_seconds=samples)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", OPS)
def test_threads(record: Record, smoke: bool, threads: int, op: str, direction: str) -> None:
    work = SQUARE.tiny() if smoke else SQUARE
    distance, batch = ours(op), inputs(work, gradient=direction == "forward_backward")
    samples: dict[int, list[float]] = {1: [], threads: []}
    # In turn, so that a machine that is busy for a while is so for both.
    for _ in range(ROUNDS):
        for count, seconds in samples.items():
            torch.set_num_threads(count)
            seconds.append(seconds_of(lambda: once(distance, batch, direction)))
    speedup = min(samples[1]) / min(samples[threads])
    facts = {"op": op, "direction": direction, "most_threads": threads, "speedup": speedup}
    record("threads", f"{op}-{direction}", **facts, samples_seconds=list(samples.values()))
