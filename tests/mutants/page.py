"""docs/mutants.md: what is wrong with each mutant, and which tests catch it."""

import re
from collections.abc import Sequence
from pathlib import Path

from .gpu_table import GPU_MUTANTS, GpuMutant
from .table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mutants.md"
TITLE = """# Mutants

Kernels made wrong on purpose, one at a time (`tests/mutants/table.py`), and the tests of `tests/ops/` that fail then:
the first three in the order of `make mutants`, which writes this page and fails if a mutant survives.

| op | mutant | what is wrong | caught by |
|---|---|---|---|
"""
GPU_TITLE = """
## CUDA sources

The same of the kernels for GPUs (`tests/mutants/gpu_table.py`), run on the CPU by the shim: the fused sweep, slabs of
pairs that are cut, and packed weights of soft-DTW. [What the shim is](kernels.md#how-they-are-tested-without-a-gpu).

| part | mutant | what is wrong | caught by |
|---|---|---|---|
"""


def page(caught: dict[str, list[str]]) -> str:
    """`caught` holds the names of mutants, and of the functions that catch each."""

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
    """What `page` was given when it was written last."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    rows = (line.split(" | ") for line in lines if line.startswith("| `"))
    return {row[1]: re.findall(r"`(.*?)`", row[-1]) for row in rows}
