"""Every op on every workload, beside the limit of the machine: `pytest benchmarks/test_ops.py`."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import limit
from benchmarks.alone import cpu_extra_bytes
from benchmarks.cases import CASES, OPS, Case, inputs, name_of, once, ours, products
from benchmarks.conftest import Record
from benchmarks.machine import about, missing
from benchmarks.oracle import TOLERANCES, Question, check
from benchmarks.timing import time_rounds
from scav_kernels import reference


def parameter(case: Case) -> object:
    return pytest.param(case, id=str(case), marks=[pytest.mark.gpu] if case.device == "cuda" else [])


@pytest.mark.parametrize("case", [parameter(case) for case in CASES])
def test_op(benchmark: BenchmarkFixture, record: Record, smoke: bool, case: Case) -> None:
    op, work, direction, dtype, device = case
    if reason := missing(device):
        pytest.skip(reason)
    if smoke:
        work = work.tiny()
    distance = ours(op)
    question = Question(getattr(reference, op), tuple(OPS[op].items()), work, dtype, device)
    check(distance, question, direction, TOLERANCES[dtype])

    batch = inputs(work, dtype, device, gradient=direction == "forward_backward")
    rows, columns = products(op, batch)
    mm = limit.matmul_flops(rows, columns, work.d, dtype, device) / (2 * work.d)

    def limit_rate() -> float:
        return limit.limit_rate(work, rows, columns, dtype, device)

    peaks = [limit_rate()]

    extra_bytes: list[int] = []

    def complete() -> None:
        once(distance, batch, direction)
        limit.synchronize(device)

    def run() -> None:
        # Of the first round, as the next ones find its memory.
        if extra_bytes:
            complete()
        else:
            extra_bytes.append((limit.cuda_extra_bytes if device == "cuda" else cpu_extra_bytes)(complete))

    times = time_rounds(benchmark, run, lambda: peaks.append(limit_rate()), work.rounds)
    limit_seconds = rows * columns / max(peaks)
    facts = {
        **times,
        "shapes": [list(steps.shape) for steps in batch[:2]],
        "dtype": name_of(dtype),
        "cells": rows * columns,
        "cells_per_second": rows * columns / times["seconds"],
        "limit_cells_per_second": max(peaks),
        "limit_seconds": limit_seconds,
        "efficiency": limit_seconds / times["seconds"],
        "matmul_efficiency": mm / max(peaks),
        "extra_bytes": extra_bytes[0],
    }
    benchmark.extra_info |= {key: facts[key] for key in facts if "seconds" not in key or key == "limit_seconds"}
    benchmark.extra_info |= {"machine": about()}
    record("ops", str(case), **facts, op=op, workload=case.work.name, direction=direction, device=device)
