"""Builds the kernels of the toy distance as a library of their own, from its files and those that all ops share."""

import subprocess
from pathlib import Path

from torch.utils.cpp_extension import get_cxx_compiler, library_paths

from setup import CSRC, get_extension
from tests.mutants.build import COMMON


def build(csrc: Path, source: str, to: Path) -> Path:
    """Compile csrc/source by the extension's flags, but with few optimizations; return the library's path.

    All files are included in one, so that the headers of torch are compiled once.
    """
    together = to.with_suffix(".cpp")
    together.write_text("".join(f'#include "{file}"\n' for file in (*COMMON, source)))
    compiler = [get_cxx_compiler(), *get_extension().extra_compile_args["cxx"], "-O1", "-fPIC", "-shared"]
    folders = [f"-I{csrc}", f"-I{CSRC}", *(f"-L{path}" for path in library_paths())]
    done = subprocess.run(
        [*compiler, *folders, str(together), "-lc10", "-ltorch_cpu", "-o", str(to)], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-6000:])
    return to
