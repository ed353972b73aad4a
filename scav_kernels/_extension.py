"""Loads the compiled kernels, which register themselves with torch's dispatcher."""

import importlib
from typing import Any

import torch

from scav_kernels._C import build_info as _cpu_build_info


def _load_cuda() -> tuple[Any, str]:
    """Return the module of the CUDA kernels; or None and why there is none."""
    if torch.version.cuda is None:
        return None, f"torch {torch.__version__} was built without CUDA; install a CUDA build of torch"
    try:
        return importlib.import_module("scav_kernels._cuda"), ""
    except ModuleNotFoundError:
        return None, "this build of scav_kernels has none; rebuild it with SCAV_BUILD_CUDA=1 where a CUDA toolkit is"
    except ImportError as error:
        return None, f"they cannot be loaded with torch {torch.__version__}, CUDA {torch.version.cuda}: {error}"


_cuda, why_no_cuda = _load_cuda()


def build_info() -> dict[str, Any]:
    """Return how the compiled kernels were built, and what of them is in use.

    Returns:
        compiler: its name and version.
        torch_version: torch that they were built with; they run with any torch from 2.11 on.
        simd_levels, simd_level: levels of this CPU, lowest first, and the one in use ("baseline", "avx2" or "avx512").
        matmul: source of float32 products, "onednn" or "scav".
        bfloat16_matmul: source of bfloat16 products, "onednn" or None.
        cuda_version, cuda_architectures: what the CUDA kernels were built for; None where there are none.
    """
    cuda = {"cuda_version": None, "cuda_architectures": None} if _cuda is None else _cuda.build_info()
    return {**_cpu_build_info(), **cuda}
