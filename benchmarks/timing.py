"""Time the rounds of a benchmark."""

from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.limit import seconds_of

# Seconds for the rounds of one benchmark, of which there is at least one.
SPENT = 0.6
MOST_ROUNDS = 30
# Whatever takes less is run once more before each round: threads that have gone to sleep take long to wake.
SHORT = 0.05


def rounds_of(seconds: float) -> int:
    """The rounds of a run that takes so long."""
    return max(1, min(MOST_ROUNDS, int(SPENT / seconds)))


def samples_of(run: Callable[[], object], device: str = "cpu") -> list[float]:
    """Seconds of the rounds of a `run`, as many as `time_rounds` makes."""
    seconds = seconds_of(run, device)
    samples = []
    for _ in range(rounds_of(seconds)):
        if seconds < SHORT:
            run()
        samples.append(seconds_of(run, device))
    return samples


def time_rounds(
    benchmark: BenchmarkFixture,
    run: Callable[[], object],
    before_each: Callable[[], object] = lambda: None,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Times a `run` that has been warmed up; its raw samples, their best and their median, in seconds."""
    short = False
    if rounds is None:
        seconds = seconds_of(run)
        rounds, short = rounds_of(seconds), seconds < SHORT

    def prepare() -> None:
        before_each()
        if short:
            run()

    benchmark.pedantic(run, setup=prepare, rounds=rounds)
    stats = benchmark.stats.stats
    return {"seconds": stats.min, "median_seconds": stats.median, "samples_seconds": stats.data}
