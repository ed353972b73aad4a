"""Builds the kernels of the toy distance as a library of their own, from its files and those that all ops share."""

import subprocess
from pathlib import Path

from torch.utils.cpp_extension import library_paths

from setup import CSRC
from tests.mutants.build import COMMON, compiler


def build(csrc: Path, source: str, to: Path) -> Path:
    """Compile csrc/source by the extension's flags, but with few optimizations; return the library's path.

    All files are included in one, so that the headers of torch are compiled once.
    """
    together = to.with_suffix(".cpp")
    together.write_text("".join(f'#include "{file}"\n#undef SCAV_KERNELS\n' for file in (*COMMON, source)))
    folders = [f"-I{csrc}", f"-I{CSRC}", *(f"-L{path}" for path in library_paths())]
    done = subprocess.run(
        [*compiler("-O1", "-shared"), *folders, str(together), "-lc10", "-ltorch_cpu", "-o", str(to)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-6000:])
    return to
