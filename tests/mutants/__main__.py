"""Checks that every mutant, or each of those named, is caught, and writes down what catches it."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .build import Workshop
from .gpu import GpuWorkshop, failing_checks
from .gpu_table import GPU_MUTANTS
from .page import PAGE, ROOT, caught_by_the_page, page
from .table import MUTANTS, Mutant


def failing_functions(library: Path, op: str) -> list[str]:
    """Return the first few tests of `op` that fail with its kernels from `library`."""
    report = library.with_suffix(".json")
    command = [sys.executable, "-m", "tests.mutants.suite", str(library), op, str(report)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}\n{run.stdout}\n{run.stderr}")
    return json.loads(report.read_text())


Failing = Callable[[Path, str], list[str]]


def check(chosen: Sequence[Mutant], workshop: Workshop | GpuWorkshop, failing: Failing) -> dict[str, list[str]]:
    """Names of mutants, and what of `failing(library, op)` catches each; as many at a time as there are cores."""

    def unchanged(op: str) -> None:
        if found := failing(workshop.unchanged(op), op):
            raise RuntimeError(f"{op}, as it is, fails {', '.join(found)}: nothing can be told from its mutants")

    def caught(mutant: Mutant) -> list[str]:
        found = failing(workshop.mutated(mutant), mutant.op)
        print(f"{mutant.op}: {mutant.name}: {', '.join(found) or 'SURVIVES'}", flush=True)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ops = dict.fromkeys(mutant.op for mutant in chosen)
        workshop.prepare(list(ops), pool.map)
        list(pool.map(unchanged, ops))
        return dict(zip((mutant.name for mutant in chosen), pool.map(caught, chosen), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="mutants to build; default: all")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write; default: docs/engineering/mutants.md")
    arguments = parser.parse_args()
    names = arguments.names
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    of_gpu = [mutant for mutant in GPU_MUTANTS if (not names or mutant.name in names) and not mutant.unseen]
    if unknown := set(names) - {mutant.name for mutant in (*chosen, *of_gpu)}:
        parser.error(f"expected names of mutants, got {', '.join(sorted(unknown))}")
    (ROOT / "build").mkdir(exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=ROOT / "build") as scratch:
        caught = check(chosen, Workshop(Path(scratch)), failing_functions) if chosen else {}
        caught |= check(of_gpu, GpuWorkshop(Path(scratch)), failing_checks) if of_gpu else {}
    arguments.page.write_text(page({**caught_by_the_page(), **caught}), encoding="utf-8")
    survivors = [name for name, functions in caught.items() if not functions]
    print(f"{len(caught)} mutants, {len(survivors)} survivors, {time.monotonic() - start:.0f} s", *survivors)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
