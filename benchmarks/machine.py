"""The machine of a benchmark, and the versions that it measured."""

import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

import scav_kernels

ROOT = Path(__file__).parents[1]


def about() -> dict[str, Any]:
    return {
        "cpu": cpu_name(),
        **gpu(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scav_kernels": scav_kernels.__version__,
        "commit": commit(),
        **scav_kernels.build_info(),
    }


def gpu() -> dict[str, Any]:
    """Name, driver and clocks in MHz, now and at most, where there is one."""
    if not torch.cuda.is_available():
        return {"gpu": None}
    fields = ["driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit"]
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        values = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0].split(", ")
    except (OSError, subprocess.CalledProcessError):
        values = []
    return {"gpu": torch.cuda.get_device_name(), **dict(zip(fields, values, strict=False))}


def missing(device: str) -> str | None:
    """Return the reason why our ops cannot run on this device, or None."""
    if device == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if device == "cuda" and scav_kernels.build_info()["cuda_version"] is None:
        return "built without CUDA kernels: SCAV_BUILD_CUDA=1 insists on them"
    return None


@cache
def cpu_name() -> str:
    """With family and model where the name alone does not tell generations apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def slug(device: str = "cpu") -> str:
    """The machine's name in file names."""
    name = f"{cpu_name()} {torch.get_num_threads()}threads" if device == "cpu" else torch.cuda.get_device_name()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@cache
def commit() -> str | None:
    """Ends in -dirty where files differ from it; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
