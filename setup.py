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


def cuda_wanted(cuda_sources: list[str]) -> bool:
    """Whether to build for CUDA. SCAV_BUILD_CUDA=1 insists, =0 declines; unset takes it where it can be had."""
    setting = os.environ.get("SCAV_BUILD_CUDA", "auto")
    if setting not in ("0", "1", "auto"):
        raise SystemExit(f"SCAV_BUILD_CUDA must be 0, 1 or auto, got {setting!r}")
    reasons = []
    if not cuda_sources:
        reasons.append("this version has no CUDA sources")
    if torch.version.cuda is None:
        reasons.append("this torch was built without CUDA; install a CUDA build of torch")
    if CUDA_HOME is None or not (Path(CUDA_HOME) / "lib64" / "libcudart.so").exists():
        reasons.append(f"no CUDA toolkit (CUDA_HOME={CUDA_HOME}); set CUDA_HOME to a root with lib64/libcudart.so")
    if setting == "1" and reasons:
        raise SystemExit("SCAV_BUILD_CUDA=1, but " + "; ".join(reasons))
    return setting != "0" and not reasons


def get_extension() -> Extension:
    cpu_sources = sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*.cpp"))
    cuda_sources = sorted(str(path.relative_to(ROOT)) for path in CSRC.rglob("*.cu"))
    with_cuda = cuda_wanted(cuda_sources)
    cxx = ["-O3", "-g0", "-std=c++20", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    cxx += ["-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas"]
    cxx += os.environ.get("SCAV_CXXFLAGS", "").split()
    # As system headers, other people's warnings stay theirs.
    cxx += [f"-isystem{path}" for path in (pybind11.get_include(), *include_paths())]
    nvcc = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", "-Werror", "all-warnings"]
    extension = CUDAExtension if with_cuda else CppExtension
    return extension(
        "scav_kernels._C",
        cpu_sources + (cuda_sources if with_cuda else []),
        include_dirs=[str(CSRC)],
        extra_compile_args={"cxx": cxx, "nvcc": nvcc},
        extra_link_args=["-fopenmp"],
        define_macros=[("SCAV_WITH_CUDA", torch.version.cuda), ("SCAV_CUDA_ARCHITECTURES", architectures())]
        if with_cuda
        else [],
    )


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, which torch compiles for, as build_info() reports it."""
    return ",".join(os.environ.get("TORCH_CUDA_ARCH_LIST", "native").replace(";", " ").split())


if __name__ == "__main__":
    setup(ext_modules=[get_extension()], cmdclass={"build_ext": BuildExtension})
