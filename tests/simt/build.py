"""Builds the CUDA sources for the CPU, with the shim of simt.h in CUDA's place: `python -m tests.simt.build`.

The library registers the ops that it has for CPU tensors, over those that were there.
"""

import fcntl
import subprocess
import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "simt"
LIBRARY = BUILD / "scav_simt.so"
HEADERS = Path(__file__).with_name("headers.h")
# GCC's sanitizers; what a kernel reads beyond its memory, or computes that C++ leaves undefined, ends the process.
FLAGS = (
    "-std=c++20 -O1 -g1 -fPIC -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined "
    "-fno-wrapv -Wall -Wextra -Werror -Wno-unknown-pragmas -DSCAV_SIMT"
)


def sources() -> list[Path]:
    csrc = ROOT / "csrc"
    device = [path for pattern in ("*.cu", "*_cuda.cpp") for path in csrc.rglob(pattern)]
    return sorted([*device, csrc / "common" / "checks.cpp", *Path(__file__).parent.glob("*.cpp")])


def build() -> Path:
    """The library's path; what is up to date is not built again."""
    BUILD.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{ROOT / 'csrc'}", f"-I{Path(__file__).parent}", *(f"-isystem{path}" for path in include_paths())]
    torch_lib = Path(torch.__file__).parent / "lib"
    flags = f"{FLAGS} {' '.join(includes)}"
    lines = [
        "rule compile_headers",
        f"  command = c++ -x c++-header {flags} -c $in -o $out",
        "  description = $in",
        f"build headers.h.gch: compile_headers {HEADERS}",
        "rule compile",
        f"  command = c++ -MMD -MF $out.d $headers -x c++ {flags} -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "  description = $in",
        "rule link",
        f"  command = c++ -shared -fsanitize=address,undefined $in -L{torch_lib} -lc10 -ltorch -ltorch_cpu -o $out",
        "  description = $out",
    ]
    objects = []
    for source in sources():
        objects.append(f"{source.relative_to(ROOT)}.o".replace("/", "_"))
        lines.append(f"build {objects[-1]}: compile {source} | headers.h.gch")
        # Found beside it, precompiled.
        if source.suffix == ".cpp":
            lines.append(f"  headers = -include {HEADERS.name}")
    lines.append(f"build {LIBRARY.name}: link {' '.join(objects)}")
    # One at a time, where several processes run tests.
    with open(BUILD / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (BUILD / "build.ninja").write_text("\n".join(lines) + "\n", encoding="utf-8")
        ninja = Path(sys.executable).with_name("ninja")
        done = subprocess.run([ninja, "-C", BUILD], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stdout[-6000:] + done.stderr[-6000:])
    return LIBRARY


if __name__ == "__main__":
    print(build())
