"""Builds the CUDA sources for the CPU, with the shim of simt.h in CUDA's place: `python -m tests.simt.build`.

The library registers the ops that it has for CPU tensors, over those that were there.
"""

import fcntl
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

import torch

from setup import SHARED, compiler_flags

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "simt"
LIBRARY = BUILD / "scav_simt.so"
HEADERS = Path(__file__).with_name("headers.h")
CSRC = ROOT / "csrc"
# GCC's sanitizers; what a kernel reads beyond its memory, or computes that C++ leaves undefined, ends the process.
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
FLAGS = f"{' '.join(compiler_flags()['cxx'])} -O1 -g1 -fPIC -fno-wrapv -Werror -DSCAV_SIMT -I{get_path('include')}"


def sources() -> list[Path]:
    """Return the sources of `_cuda`, without its module, and of the shim."""
    device = [path for pattern in ("*.cu", "*.cpp") for path in (CSRC / "cuda").glob(pattern)]
    ours = [*device, *(ROOT / file for file in SHARED), *Path(__file__).parent.glob("*.cpp")]
    return sorted(path for path in ours if path.name != "module.cpp")


def object_of(source: Path) -> str:
    return f"{source.relative_to(ROOT)}.o".replace("/", "_")


def compiler(csrc: Path, sanitizers: str) -> str:
    """Return the command that compiles one file of the copy of csrc/."""
    folders = f"-I{csrc} -I{Path(__file__).parent}"
    return f"c++ {FLAGS} {sanitizers} {folders} -c"


def linker(objects: str, library: str, sanitizers: str) -> str:
    torch_lib = Path(torch.__file__).parent / "lib"
    return f"c++ -shared {sanitizers} {objects} -L{torch_lib} -lc10 -ltorch -ltorch_cpu -o {library}"


def build(folder: Path = BUILD, sanitizers: str = SANITIZERS) -> Path:
    """The library's path; what is up to date is not built again."""
    folder.mkdir(parents=True, exist_ok=True)
    compile_it = compiler(CSRC, sanitizers)
    lines = [
        "rule compile_headers",
        f"  command = {compile_it} -x c++-header $in -o $out",
        "  description = $in",
        f"build headers.h.gch: compile_headers {HEADERS}",
        "rule compile",
        f"  command = {compile_it} -MMD -MF $out.d $headers -x c++ $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $in",
        "rule link",
        f"  command = {linker('$in', '$out', sanitizers)}",
        "  description = $out",
    ]
    for source in sources():
        lines.append(f"build {object_of(source)}: compile {source} | headers.h.gch")
        # Found beside it, precompiled; memory.cpp uses another API of torch.
        if source.suffix == ".cpp" and source.name != "memory.cpp":
            lines.append(f"  headers = -include {HEADERS.name}")
    lines.append(f"build {LIBRARY.name}: link {' '.join(map(object_of, sources()))}")
    # One at a time, where several processes run tests.
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "build.ninja").write_text("\n".join(lines) + "\n", encoding="utf-8")
        ninja = Path(sys.executable).with_name("ninja")
        done = subprocess.run([ninja, "-C", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-6000:] + done.stderr[-6000:])
    return folder / LIBRARY.name


if __name__ == "__main__":
    print(build())
