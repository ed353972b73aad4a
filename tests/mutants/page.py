"""Write docs/engineering/mutants.md: the fault of each mutant and the tests that catch it."""

import re
from collections.abc import Sequence
from pathlib import Path

from .gpu_table import GPU_MUTANTS, GpuMutant
from .table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "engineering" / "mutants.md"
TITLE = """# Mutants

A mutant is a kernel with one deliberate fault (`tests/mutants/table.py`). `make mutants` builds each mutant, runs the
tests of `tests/ops/` on it and writes this page. It fails if no test catches a mutant. "Caught by" lists the first
three tests that fail, in the order in which they run.

| op | mutant | fault | caught by |
|---|---|---|---|
"""
GPU_TITLE = """
## CUDA sources

Mutants of the GPU kernels (`tests/mutants/gpu_table.py`): the fused sweep, pairs that are cut into parts, and the
packed weights of soft-DTW. [A shim](kernels.md#how-they-are-tested-without-a-gpu) runs their CUDA sources on a CPU.

| part | mutant | fault | caught by |
|---|---|---|---|
"""


def page(caught: dict[str, list[str]]) -> str:
    """Return the page; `caught` maps each mutant's name to the test functions that catch it."""

    def rows(mutants: Sequence[Mutant]) -> str:
        lines = []
        for mutant in mutants:
            if isinstance(mutant, GpuMutant) and mutant.unseen:
                functions = mutant.unseen
            else:
                functions = ", ".join(f"`{name}`" for name in caught.get(mutant.name, [])) or "nothing"
            lines.append(f"| `{mutant.op}` | {mutant.name} | {mutant.wrong} | {functions} |\n")
        return "".join(lines)

    return TITLE + rows(MUTANTS) + GPU_TITLE + rows(GPU_MUTANTS)


def caught_by_the_page() -> dict[str, list[str]]:
    """Return the `caught` that the page on disk was written from."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    rows = (line.split(" | ") for line in lines if line.startswith("| `"))
    return {row[1]: re.findall(r"`(.*?)`", row[-1]) for row in rows}
