"""Mutants of the CUDA sources, as the shim of tests/simt runs them: a library of each, and whether it is caught."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.simt.build import CSRC, ROOT, build, compiler, linker, object_of, sources

from .gpu_table import GpuMutant

# Of a check, which is over in a minute or two on one core: a mutant may wait for itself for ever.
PATIENCE = 1800  # seconds


class GpuWorkshop:
    """Builds in the folder `scratch`, without sanitizers: what is wrong is to be seen in results."""

    def __init__(self, scratch: Path) -> None:
        self.folder = scratch / "simt"
        self.library = build(self.folder, sanitizers="")

    def prepare(self, _ops: Sequence[str], _in_parallel: Callable[..., Iterable[None]]) -> None:
        """There is one library, and it is made."""

    def unchanged(self, _op: str) -> Path:
        return self.library

    def mutated(self, mutant: GpuMutant) -> Path:
        copy = self.folder / mutant.name
        shutil.copytree(CSRC, copy)
        target = copy / mutant.file
        target.write_text(mutant.applied_to(target.read_text(encoding="utf-8")), encoding="utf-8")
        changed, library = copy / "changed.o", copy / "mutant.so"
        run([*compiler(copy, "").split(), "-w", "-x", "c++", str(copy / mutant.source), "-o", str(changed)])
        own = object_of(CSRC / mutant.source)
        others = [str(self.folder / object_of(source)) for source in sources() if object_of(source) != own]
        run(linker(" ".join([*others, str(changed)]), str(library), "").split())
        return library


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


def failing_checks(library: Path, check: str) -> list[str]:
    """`check`, a module of tests/simt, if it fails with the library's kernels."""
    environment = {**os.environ, "SCAV_SIMT_LIBRARY": str(library)}
    command = [sys.executable, "-W", "ignore", "-m", f"tests.simt.{check}"]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return [f"simt/{check}.py"]
    return [f"simt/{check}.py"] if done.returncode != 0 else []
