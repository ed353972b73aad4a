"""One op from a copy of csrc/ as a library that, once loaded, takes the place of the extension's own kernels of it."""

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from sysconfig import get_path

from torch.utils.cpp_extension import get_cxx_compiler, library_paths

from setup import CSRC, compiler_flags

from .table import Mutant

# What every kernel's file includes, and what takes most of its compilation.
HEADERS = "#include <torch/csrc/stable/library.h>\n#include <torch/csrc/stable/ops.h>\n"
SOURCES = sorted(path for folder in ("cpu", "shared") for path in (CSRC / folder).glob("*.cpp"))
# Files without an op. The extension has defined the ops, and each op's library registers its own.
COMMON = [str(path.relative_to(CSRC)) for path in SOURCES if "TORCH_LIBRARY" not in path.read_text(encoding="utf-8")]


def file_of(op: str) -> str:
    return f"cpu/{op.removesuffix('_from_cost')}.cpp"


def compiler(*more: str) -> list[str]:
    """Return the command that compiles a file of the extension."""
    return [get_cxx_compiler(), *compiler_flags()["cxx"], f"-I{get_path('include')}", "-fPIC", *more]


class Workshop:
    """Builds in the folder `scratch`; nothing of what it builds is optimized, as tests compute little."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.compiler = compiler("-O0", "-w")
        self.objects: dict[str, Path] = {}  # of unchanged files
        self.headers = scratch / "headers.h"
        self.headers.write_text(HEADERS)
        self.run(["-x", "c++-header", str(self.headers), "-o", f"{self.headers}.gch"])

    def prepare(self, ops: Sequence[str], in_parallel: Callable[..., Iterable[None]]) -> None:
        """Compile the objects that the libraries of these ops share."""
        list(in_parallel(self.compile_unchanged, [*dict.fromkeys(map(file_of, ops)), *COMMON]))

    def compile_unchanged(self, file: str) -> None:
        to = self.scratch / f"{file.replace('/', '_')}.o"
        self.objects[file] = self.compile(CSRC, file, to)

    def unchanged(self, op: str) -> Path:
        return self.link([self.objects[file] for file in (*COMMON, file_of(op))], self.scratch / f"{op}.so")

    def mutated(self, mutant: Mutant) -> Path:
        """The op's library. Only the file that holds the change, or the op's that includes it, is compiled for it."""
        copy = self.scratch / mutant.name
        shutil.copytree(CSRC, copy)
        target = copy / mutant.file
        target.write_text(mutant.applied_to(target.read_text()))
        changed = mutant.file if mutant.file.endswith(".cpp") else file_of(mutant.op)
        objects = {file: self.objects[file] for file in (*COMMON, file_of(mutant.op))}
        objects[changed] = self.compile(copy, changed, copy / "changed.o")
        return self.link(list(objects.values()), copy / "mutant.so")

    def compile(self, csrc: Path, file: str, to: Path) -> Path:
        self.run(["-include", str(self.headers), f"-I{csrc}", "-c", str(csrc / file), "-o", str(to)])
        return to

    def link(self, objects: list[Path], to: Path) -> Path:
        libraries = [f"-L{path}" for path in library_paths()] + ["-lc10", "-ltorch_cpu"]
        self.run(["-shared", *map(str, objects), *libraries, "-o", str(to)])
        return to

    def run(self, arguments: list[str]) -> None:
        done = subprocess.run([*self.compiler, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(done.args)}\n{done.stderr}")
