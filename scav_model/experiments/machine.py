"""The machine that an experiment ran on, and the versions that it ran with."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import torch

import scav_kernels


def machine() -> dict[str, Any]:
    """Return the machine that times were measured on, and the versions that were measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "simd_level": scav_kernels.build_info()["simd_level"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scav_kernels": scav_kernels.__version__,
    }
