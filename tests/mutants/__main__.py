"""Checks that every mutant, or each of those named, is caught, and writes down what catches it."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .build import COMMON, Workshop, file_of
from .gpu import GpuWorkshop, failing_checks
from .gpu_table import GPU_MUTANTS, GpuMutant
from .page import PAGE, ROOT, caught_by_the_page, page
from .table import MUTANTS, Mutant


def failing_functions(library: Path, op: str) -> list[str]:
    """Of the tests of `op`, the first few that fail with its kernels from `library`."""
    report = library.with_suffix(".json")
    command = [sys.executable, "-m", "tests.mutants.suite", str(library), op, str(report)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}\n{run.stdout}\n{run.stderr}")
    return json.loads(report.read_text())


def check_gpu(chosen: list[GpuMutant], scratch: Path) -> dict[str, list[str]]:
    """The same of the CUDA sources, by the shim."""
    workshop = GpuWorkshop(scratch)

    def unchanged(check: str) -> None:
        if failing_checks(workshop.unchanged, check, loud=True):
            raise RuntimeError(f"tests.simt.{check} fails as it is: nothing can be told from mutants")

    def caught(mutant: GpuMutant) -> list[str]:
        checks = failing_checks(workshop.mutated(mutant), mutant.op)
        print(f"{mutant.op}: {mutant.name}: {', '.join(checks) or 'SURVIVES'}", flush=True)
        return checks

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(unchanged, dict.fromkeys(mutant.op for mutant in chosen)))
        return dict(zip((mutant.name for mutant in chosen), pool.map(caught, chosen), strict=True))


def check(chosen: list[Mutant], scratch: Path) -> dict[str, list[str]]:
    """Names of mutants, and the tests that catch each; as many at a time as there are cores."""
    workshop = Workshop(scratch)
    ops = list(dict.fromkeys(mutant.op for mutant in chosen))

    def unchanged(op: str) -> None:
        if failing := failing_functions(workshop.unchanged(op), op):
            raise RuntimeError(f"{op}, as it is, fails {', '.join(failing)}: nothing can be told from its mutants")

    def caught(mutant: Mutant) -> list[str]:
        functions = failing_functions(workshop.mutated(mutant), mutant.op)
        print(f"{mutant.op}: {mutant.name}: {', '.join(functions) or 'SURVIVES'}", flush=True)
        return functions

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(workshop.compile_unchanged, [*map(file_of, ops), *COMMON]))
        list(pool.map(unchanged, ops))
        return dict(zip((mutant.name for mutant in chosen), pool.map(caught, chosen), strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="of a mutant; all of them unless given")
    parser.add_argument("--page", type=Path, default=PAGE, help="the file to write, docs/mutants.md unless given")
    arguments = parser.parse_args()
    names = arguments.names
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    of_gpu = [mutant for mutant in GPU_MUTANTS if not names or mutant.name in names]
    if unknown := set(names) - {mutant.name for mutant in (*chosen, *of_gpu)}:
        parser.error(f"expected names of mutants, got {', '.join(sorted(unknown))}")
    (ROOT / "build").mkdir(exist_ok=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=ROOT / "build") as scratch:
        caught = check(chosen, Path(scratch)) if chosen else {}
        caught |= check_gpu(of_gpu, Path(scratch)) if of_gpu else {}
    arguments.page.write_text(page({**caught_by_the_page(), **caught}), encoding="utf-8")
    survivors = [name for name, functions in caught.items() if not functions]
    print(f"{len(caught)} mutants, {len(survivors)} survivors, {time.monotonic() - start:.0f} s", *survivors)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
