"""The peak rate of a machine in operations per second; a multiply-add is two."""

import ctypes
import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from benchmarks.cases import Workload
from benchmarks.machine import cpu_name

SOURCE = Path(__file__).with_name("peak.cpp")
BUILD = Path(__file__).parents[1] / "build" / "benchmarks"
# Of each chain: some milliseconds, of which a busy machine leaves one try or another alone.
STEPS, TRIES = 1_000_000, 5
# Numbers that a library may write while it is timed; its rate no longer changes there.
LARGEST_PRODUCT = {"cpu": 2**25, "cuda": 2**31}


def arithmetic_peak(dtype: torch.dtype) -> float:
    """FLOP/s of multiply-adds in registers, on as many threads as torch uses, now; what accumulates in float32 has
    the peak of float32."""
    return rate("flops", dtype)


def cells_peak(dtype: torch.dtype) -> float:
    """Cells per second of a subtraction, two minima and a multiply-add in registers: the least that dynamic time
    warping of one feature needs."""
    return rate("cells", dtype)


def rate(of: str, dtype: torch.dtype) -> float:
    """The best of several tries, on as many threads as torch uses."""
    function = getattr(library(), f"float64_{of}" if dtype == torch.float64 else f"float32_{of}")
    return max(function(torch.get_num_threads(), STEPS) for _ in range(TRIES))


@cache
def library() -> ctypes.CDLL:
    """peak.cpp, compiled for this CPU once and kept in build/."""
    key = hashlib.sha256(SOURCE.read_bytes() + cpu_name().encode()).hexdigest()[:16]
    built = BUILD / f"peak-{key}.so"
    if not built.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        unfinished = built.with_suffix(f".{os.getpid()}")
        flags = ["-std=c++17", "-O2", "-march=native", "-pthread", "-shared", "-fPIC"]
        subprocess.run([os.environ.get("CXX", "c++"), *flags, str(SOURCE), "-o", str(unfinished)], check=True)
        unfinished.rename(built)
    loaded = ctypes.CDLL(str(built))
    for name in ("float32_flops", "float64_flops", "float32_cells", "float64_cells"):
        function = getattr(loaded, name)
        function.argtypes, function.restype = [ctypes.c_int, ctypes.c_long], ctypes.c_double
    return loaded


def matmul_flops(rows: int, columns: int, depth: int, dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the device's best library (MKL and oneDNN, or cuBLAS) on (rows, depth) times (depth, columns), best of
    six; of fewer columns where the product would be large."""
    columns = max(1, min(columns, LARGEST_PRODUCT[device] // rows))
    a = torch.randn(rows, depth, device=device).to(dtype)
    b = torch.randn(depth, columns, device=device).to(dtype)
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    products = [partial(torch.mm, a, b, out=out)]
    if device == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
        products.append(partial(torch.ops.aten.mkldnn_linear, a.to_mkldnn(), b.T.contiguous().to_mkldnn(), None))
    seconds = min(seconds_of(product, device) for product in products for _ in range(6))
    return 2 * rows * columns * depth / seconds


def peak_flops(rows: int, columns: int, depth: int, dtype: torch.dtype, device: str) -> float:
    """FLOP/s that the limit goes by: of arithmetic alone on a CPU, of cuBLAS on a GPU."""
    return arithmetic_peak(dtype) if device == "cpu" else matmul_flops(rows, columns, depth, dtype, device)


def limit_rate(work: Workload, rows: int, columns: int, dtype: torch.dtype, device: str) -> float:
    """Cells per second, now, of the arithmetic that a workload's limit counts: the products of the steps, or the
    recursion where their features are few."""
    if work.few_features:
        return cells_peak(dtype)
    return peak_flops(rows, columns, work.d, dtype, device) / (2 * work.d)


def cuda_extra_bytes(run: Callable[[], object]) -> int:
    """Peak of what a run allocates on the GPU."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def seconds_of(run: Callable[[], object], device: str = "cpu") -> float:
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
