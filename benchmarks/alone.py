"""Time and memory of one contender on workloads that grow, in a process of its own.

A peak of memory never goes down again, and what runs out of memory must take nothing else with it.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Workload, inputs, once
from benchmarks.limit import seconds_of
from benchmarks.machine import ROOT
from benchmarks.peers import CONTENDERS

# Seconds that a run may take, going by the one before; and for how long short ones are repeated.
LONGEST, REPEATED = 1.0, 0.2
# Of the memory that is free.
SHARE = 0.75

Point = dict[str, Any]


def sweep(op: str, name: str, direction: str, works: Sequence[Workload]) -> list[Point]:
    """Of each workload in turn {"seconds": [...], "extra_bytes": ...}, the latter beyond the inputs, until one would
    take too long, or too much memory: {"out_of_memory": true}."""
    job = {"op": op, "name": name, "direction": direction, "sizes": [sizes(work) for work in works]}
    command = [sys.executable, "-m", "benchmarks.alone", json.dumps(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    points = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode > 0:
        raise RuntimeError(done.stderr)
    # A signal is what those get who take too much.
    return [*points, {"out_of_memory": True}] if done.returncode else points


def sizes(work: Workload) -> tuple[int, ...]:
    return work.b1, work.b2, work.n, work.m, work.d


def measured(op: str, name: str, direction: str, works: Sequence[Workload]) -> Iterator[Point]:
    contender = CONTENDERS[op, name]
    distance = contender.load()

    def run(work: Workload) -> Point:
        batch = inputs(work, gradient=direction == "forward_backward")
        if contender.compiles:
            once(distance, batch, direction)
        seconds: list[float] = []
        extra = cpu_extra_bytes(lambda: seconds.append(seconds_of(lambda: once(distance, batch, direction))))
        while sum(seconds) < REPEATED:
            seconds.append(seconds_of(lambda: once(distance, batch, direction)))
        return {"seconds": seconds, "extra_bytes": extra}

    # What a first call loads or compiles is not the distance's.
    run(Workload("warm-up", 2, 2, *sizes(works[0])[2:]))
    per_cell = 0.0
    for work in works:
        amount = work.b1 * work.b2 * work.n * work.m * work.d
        if per_cell * amount > LONGEST:
            return
        try:
            point = run(work)
        except (MemoryError, RuntimeError) as error:
            if "allocate" not in str(error).lower():
                raise
            yield {"out_of_memory": True}
            return
        per_cell = min(point["seconds"]) / amount
        yield point


def cpu_extra_bytes(run: Callable[[], object]) -> int:
    """Peak of what a run holds beyond what was held before it."""
    before = resident("VmRSS", afresh=True)
    run()
    return resident("VmHWM") - before


def resident(field: str, afresh: bool = False) -> int:
    """VmRSS, now, or VmHWM, at most since it was taken afresh, in bytes."""
    if afresh:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return status(Path("/proc/self/status"), field)


def status(path: Path, field: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field + ":")).split()[1])


def main() -> None:
    job = json.loads(sys.argv[1])
    free = status(Path("/proc/meminfo"), "MemAvailable")
    used = status(Path("/proc/self/status"), "VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (used + int(SHARE * free), resource.RLIM_INFINITY))
    works = [Workload("", *each) for each in job.pop("sizes")]
    for point in measured(**job, works=works):
        print(json.dumps(point), flush=True)


if __name__ == "__main__":
    main()
