"""Calls every scav op with random arguments; each call must raise a decent error or return the right answer.

    python -m tests.ops.fuzz --calls 200000 --seed 7

Call number i of a seed is always the same: `--first i --calls 1` makes one again. Each process writes down the call
that it is about to make, so that a crash or a hang is reported as that call.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scav_kernels  # noqa: F401  (registers the ops)

from . import fuzz_oracle
from .fuzz_calls import Call, Expect, draw, overload

# What a process may allocate beyond what is loaded.
MEMORY = 2 << 30
# Of processor time for one call.
CALL_SECONDS = 20
REFUSALS = (ValueError, TypeError, RuntimeError, NotImplementedError)
MOST_FAILURES = 10


@dataclass
class Report:
    """Count how calls ended, and list the wrong ones."""

    counts: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, other: "Report") -> None:
        self.counts += other.counts
        self.compared += other.compared
        self.failures += other.failures
        self.slowest = max(self.slowest, other.slowest)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.counts.items()))
        ops = ", ".join(f"{op} {count}" for op, count in sorted(self.compared.items()))
        slowest = f"slowest: {self.slowest[0]:.2f} s for {self.slowest[1]}"
        return "\n".join([*self.failures, f"{self.counts.total()} calls: {ends}", f"compared: {ops}", slowest])


class WrongError(Exception):
    """A call did what it must not."""


def make(call: Call) -> str:
    """Return how the call ended: "refused", "compared" or "survived"; raise WrongError if that is wrong."""
    torch.set_num_threads(call.threads)
    before = {name: contents(value) for name, value in call.arguments.items()}
    try:
        outputs = overload(call.op)(*call.arguments.values())
    except REFUSALS as error:
        if call.expect is Expect.ANSWER or "INTERNAL ASSERT" in str(error):
            raise WrongError(f"raised {type(error).__name__}: {error}") from error
        return "refused"
    finally:
        for name, memory in before.items():
            if memory is not None and not torch.equal(contents(call.arguments[name]), memory):
                raise WrongError(f"{name} was modified")
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if call.expect is Expect.REFUSAL:
        raise WrongError(f"was not refused, but returned {outputs}")
    if call.expect is Expect.ANYTHING or not fuzz_oracle.knows(call.op):
        look(call, outputs)
        return "survived"
    compare(call, outputs)
    return "compared"


def contents(value: Any) -> Tensor | None:
    """A copy of all memory behind a tensor; None where there is none."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return None
    return torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage()).clone()


def look(call: Call, outputs: tuple[Tensor, ...]) -> None:
    """Shapes and dtypes are those that the op declares for torch.compile."""
    declared = overload(call.op)(*(v.to("meta") if isinstance(v, Tensor) else v for v in call.arguments.values()))
    declared = declared if isinstance(declared, tuple) else (declared,)
    for output, like in zip(outputs, declared, strict=True):
        if (output.shape, output.dtype) != (like.shape, like.dtype) or not output.is_contiguous():
            raise WrongError(f"returned {output.dtype} {output.shape}, declared {like.dtype} {like.shape}")


def compare(call: Call, outputs: tuple[Tensor, ...]) -> None:
    for number, (output, expected) in enumerate(
        zip(outputs, fuzz_oracle.expected(call.op, call.arguments), strict=True)
    ):
        if wrong := expected.mismatch(output):
            raise WrongError(f"output {number}: {wrong}")
    if call.arguments.get("save_path") and (wrong := fuzz_oracle.path_mismatch(call.arguments, *outputs)):
        raise WrongError(wrong)


def work(seed: int, calls: range, journal: Path, connection: Connection) -> None:
    """Makes calls, and sends a report."""
    limit_memory()
    report = Report()
    with journal.open("wb", buffering=0) as file:
        for index in calls:
            write_down(file.fileno(), f"call {index}, being drawn")
            # Ends the process from within C++, too, which no Python handler does.
            signal.setitimer(signal.ITIMER_PROF, CALL_SECONDS)
            call = draw(seed, index)
            write_down(file.fileno(), f"call {index}: {call}")
            began = time.perf_counter()
            try:
                end = make(call)
            except WrongError as error:
                end = "wrong"
                report.failures.append(f"call {index}: {call}\n    {error}")
            report.slowest = max(report.slowest, (time.perf_counter() - began, f"call {index}"))
            report.counts[end] += 1
            report.compared[call.op] += end == "compared"
            if len(report.failures) >= MOST_FAILURES:
                break
    connection.send(report)


def write_down(file: int, text: str) -> None:
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)


def limit_memory() -> None:
    status = Path("/proc/self/status").read_text()
    loaded = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1])
    resource.setrlimit(resource.RLIMIT_AS, (loaded + MEMORY, resource.RLIM_INFINITY))


def run(calls: int, seed: int, processes: int, first: int = 0) -> Report:
    """Every process makes each `processes`-th call."""
    spawn = multiprocessing.get_context("spawn")
    total = Report()
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number in range(processes):
            receiver, sender = spawn.Pipe(duplex=False)
            journal = Path(folder) / str(number)
            share = range(first + number, first + calls, processes)
            process = spawn.Process(target=work, args=(seed, share, journal, sender), daemon=True)
            process.start()
            sender.close()
            started.append((process, receiver, journal))
        for process, receiver, journal in started:
            try:
                total.add(receiver.recv())
            except EOFError:
                process.join()
                total.failures.append(f"{journal.read_text()}\n    {death(process.exitcode)}")
            process.join()
    return total


def death(code: int) -> str:
    if code == -signal.SIGPROF:
        return f"took more than {CALL_SECONDS} s"
    return f"ended the process with {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    report = run(options.calls, options.seed, min(options.processes, options.calls), options.first)
    print(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
