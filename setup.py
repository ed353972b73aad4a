"""Build `scav_kernels._C`, the CPU kernels, always, and `scav_kernels._cuda` where torch and a toolkit allow it."""

import os
import re
import shutil
from pathlib import Path

# torch takes the toolkit's root from where nvcc is found, which is wrong where that is a wrapper script.
if "CUDA_HOME" not in os.environ and Path("/usr/local/cuda/lib64/libcudart.so").exists():
    os.environ["CUDA_HOME"] = "/usr/local/cuda"

from setuptools import Extension, setup

try:
    import ninja
    import pybind11
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension, include_paths
except ImportError as error:
    raise SystemExit(
        f"building scav_kernels needs {error.name}: pip install torch pybind11 ninja numpy, then build again"
    ) from None

# torch looks for the program on the PATH, where an environment that is not activated does not have it.
os.environ["PATH"] = os.pathsep.join((ninja.BIN_DIR, os.environ.get("PATH", os.defpath)))

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"


def toolkit_version(home: str | None) -> str | None:
    """Return the version of the CUDA toolkit in `home`, such as "13.0"; "" if unknown, None if there is no toolkit."""
    if home is None or not (Path(home) / "lib64" / "libcudart.so").exists():
        return None
    header = Path(home) / "include" / "cuda.h"
    found = re.search(r"#define CUDA_VERSION (\d+)", header.read_text(errors="replace")) if header.exists() else None
    return f"{int(found[1]) // 1000}.{int(found[1]) % 1000 // 10}" if found else ""


def reason_without_cuda(setting: str, torch_cuda: str | None, home: str | None) -> str | None:
    """Return why CUDA kernels are not built; None if they are.

    Args:
        setting: SCAV_BUILD_CUDA: 0 declines, 1 insists, auto builds them if torch and the toolkit allow it.
        torch_cuda: version of CUDA that torch was built with; None: it was built without.
        home: root of the CUDA toolkit; None: there is none.

    Raises:
        SystemExit: `setting` is 1 and they cannot be built, or it is none of the three.
    """
    if setting not in ("0", "1", "auto"):
        raise SystemExit(f"SCAV_BUILD_CUDA must be 0, 1 or auto, got {setting!r}")
    toolkit = toolkit_version(home)
    reason = None
    if torch_cuda is None:
        reason = "this torch was built without CUDA; install a CUDA build of torch"
    elif toolkit is None:
        reason = f"there is no CUDA toolkit (CUDA_HOME={home}); set CUDA_HOME to a root with lib64/libcudart.so"
    elif toolkit and toolkit.partition(".")[0] != torch_cuda.partition(".")[0]:
        reason = f"torch has CUDA {torch_cuda} and the toolkit in {home} is {toolkit}; set CUDA_HOME to one of torch's"
    if setting == "1" and reason:
        raise SystemExit(f"SCAV_BUILD_CUDA=1, but {reason}")
    return "SCAV_BUILD_CUDA=0" if setting == "0" else reason


WITHOUT_CUDA = reason_without_cuda(os.environ.get("SCAV_BUILD_CUDA", "auto"), torch.version.cuda, CUDA_HOME)


class Build(BuildExtension):
    """Says what is built and why, or in one line what the build lacks."""

    build_temp: str
    inplace: bool

    def run(self) -> None:
        compiler = os.environ.get("CXX", "c++").split()[0]
        if shutil.which(compiler) is None:
            raise SystemExit(
                f"building scav_kernels needs a C++20 compiler, and there is no {compiler}: apt install g++"
            )
        what = f"without CUDA kernels ({WITHOUT_CUDA})" if WITHOUT_CUDA else f"with CUDA kernels for {architectures()}"
        print(f"scav_kernels: building {what}, with torch {torch.__version__}; SCAV_BUILD_CUDA=0 or 1 changes that")
        if self.inplace:
            # pip would compile everything anew in a temporary folder; this one lets it compile only what changed.
            self.build_temp = str(ROOT / "build" / f"torch-{torch.__version__}")
        super().run()

    def swig_sources(self, sources: list[str], extension: Extension) -> list[str]:
        # The last hook before the compiler. Setuptools sorts by name; those that take longest come first, so that none
        # is compiled alone at the end.
        return sorted(super().swig_sources(sources, extension), key=lambda source: Path(source).stem not in SLOWEST)

    def build_extension(self, ext: Extension) -> None:
        # Each has objects of its own: files that both are made of are compiled with different flags.
        objects = self.build_temp
        self.build_temp = os.path.join(objects, ext.name)
        super().build_extension(ext)
        self.build_temp = objects


# Half of the compiler's time.
SLOWEST = ("dtw", "soft_dtw")
# The oldest torch whose stable ABI the extensions use: one binary runs with it and all later ones.
STABLE_ABI = "0x020b000000000000"  # 2.11
# What both extensions are made of beside their own folder.
SHARED = [
    f"csrc/shared/{name}.cpp"
    for name in ("boxed", "checks", "dtw_options", "interrupt", "scratch", "signals", "tensor")
]


def compiler_flags() -> dict[str, list[str]]:
    # Another compiler may have other warnings, so that they are errors in the Makefile's builds alone.
    strict = os.environ.get("SCAV_WERROR") == "1"
    cxx = ["-O3", "-g0", "-std=c++20", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
    cxx += ["-Wall", "-Wextra", *(["-Werror"] if strict else []), "-Wno-psabi", "-Wno-unknown-pragmas"]
    cxx += [f"-DTORCH_TARGET_VERSION={STABLE_ABI}", *os.environ.get("SCAV_CXXFLAGS", "").split()]
    # As system headers, other people's warnings stay theirs.
    cxx += [f"-isystem{path}" for path in (pybind11.get_include(), *include_paths())]
    nvcc = ["-O3", "-std=c++20", "--expt-relaxed-constexpr", *(["-Werror", "all-warnings"] if strict else [])]
    nvcc += ["-Xcompiler", "-fvisibility=hidden", f"-DTORCH_TARGET_VERSION={STABLE_ABI}", "-DUSE_CUDA"]
    return {"cxx": cxx, "nvcc": nvcc}


def sources_in(folder: str, *kinds: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for kind in kinds for path in (CSRC / folder).glob(kind))


def cpu_extension() -> Extension:
    """Return `_C`: the module, the CPU kernels and what all of them share."""
    sources = ["csrc/module.cpp", *sources_in("cpu", "*.cpp"), *sources_in("shared", "*.cpp")]
    extension = CppExtension("scav_kernels._C", sources, include_dirs=[str(CSRC)], extra_compile_args=compiler_flags())
    # Where the stable ABI is; torch's helper names libraries that other torches may not have.
    extension.libraries = ["torch_cpu"]
    return extension


def cuda_extension() -> Extension:
    """Return `_cuda`: the CUDA kernels, which are loaded only where torch has CUDA."""
    flags = compiler_flags()
    flags["cxx"] += ["-DUSE_CUDA", f"-DSCAV_CUDA_VERSION={torch.version.cuda}"]
    flags["cxx"] += [f"-DSCAV_CUDA_ARCHITECTURES={architectures()}"]
    extension = CUDAExtension(
        "scav_kernels._cuda",
        [*sources_in("cuda", "*.cpp", "*.cu"), *SHARED],
        include_dirs=[str(CSRC)],
        extra_compile_args=flags,
    )
    extension.libraries = ["torch_cpu", "torch_cuda", "cudart"]
    return extension


# Ampere's and Hopper's own code, and what later ones compile when they first load it.
ARCHITECTURES = "8.0 9.0+PTX"


def architectures() -> str:
    """TORCH_CUDA_ARCH_LIST, which torch compiles for, as build_info() reports it."""
    return ",".join(os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES).replace(";", " ").split())


if __name__ == "__main__":
    extensions = [cpu_extension()] if WITHOUT_CUDA else [cpu_extension(), cuda_extension()]
    setup(ext_modules=extensions, cmdclass={"build_ext": Build})
