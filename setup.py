"""Builds `scav_kernels._C`: CPU kernels always, CUDA kernels where torch and a toolkit can."""

import os
from pathlib import Path

# torch takes the toolkit's root from where nvcc is found, which is wrong where that is a wrapper script.
if "CUDA_HOME" not in os.environ and Path("/usr/local/cuda/lib64/libcudart.so").exists():
    os.environ["CUDA_HOME"] = "/usr/local/cuda"

import pybind11
import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"


def cuda_wanted() -> bool:
    """Whether to build for CUDA. SCAV_BUILD_CUDA=1 insists, =0 declines; unset takes it where it can be had."""
    setting = os.environ.get("SCAV_BUILD_CUDA", "auto")
    if setting not in ("0", "1", "auto"):
        raise SystemExit(f"SCAV_BUILD_CUDA must be 0, 1 or auto, got {setting!r}")
    reasons = []
    if torch.version.cuda is None:
        reasons.append("this torch was built without CUDA; install a CUDA build of torch")
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "lib64" / "libcudart.so").exists():
        reasons.append(f"no CUDA toolkit (CUDA_HOME={CUDA_HOME}); set CUDA_HOME to a root with lib64/libcudart.so")
    if setting == "1" and reasons:
        raise SystemExit("SCAV_BUILD_CUDA=1, but " + "; ".join(reasons))
    return setting != "0" and not reasons


def get_extension() -> Extension:
    sources = sorted(str(path.relative_to(ROOT)) for kind in ("*.cpp", "*.cu") for path in CSRC.rglob(kind))
    cuda_sources = [source for source in sources if Path(source).is_relative_to("csrc/cuda")]
    with_cuda = cuda_wanted()
    cxx = ["-O3", "-g0", "-std=c++20", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    cxx += ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas"]
    cxx += os.environ.get("SCAV_CXXFLAGS", "").split()
    # As system headers, other people's warnings stay theirs.
    cxx += [f"-isystem{path}" for path in (pybind11.get_include(), *include_paths())]
    if with_cuda:
        cxx += [f"-DSCAV_WITH_CUDA={torch.version.cuda}", f"-DSCAV_CUDA_ARCHITECTURES={architectures()}"]
    nvcc = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", "-Werror", "all-warnings"]
    nvcc += ["-Xcompiler", "-fvisibility=hidden"]
    extension = CUDAExtension if with_cuda else CppExtension
    return extension(
        "scav_kernels._C",
        [source for source in sources if with_cuda or source not in cuda_sources],
        include_dirs=[str(CSRC)],
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        extra_link_args=["-fopenmp"],
    )


# Ampere's and Hopper's own code, and what later ones compile when they first load it.
ARCHITECTURES = "8.0 9.0+PTX"


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, which torch compiles for, as build_info() reports it."""
    return ",".join(os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES).replace(";", " ").split())


if __name__ == "__main__":
    setup(ext_modules=[get_extension()], cmdclass={"build_ext": BuildExtension})
