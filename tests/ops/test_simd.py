"""Every SIMD level that this machine has gives the same answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scav_kernels

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
BUILD = scav_kernels.build_info()
OTHER_LEVELS = [level for level in BUILD["simd_levels"] if level != BUILD["simd_level"]]


def test_level_in_use() -> None:
    assert BUILD["simd_level"] == os.environ.get("SCAV_SIMD", BUILD["simd_levels"][-1])


# The level is chosen once per process; this process tests the one in use.
@pytest.mark.parametrize("level", OTHER_LEVELS)
def test_parity_at_another_level(level: str) -> None:
    chosen = [
        "test_simd.py::test_level_in_use",
        "test_parity.py",
        "test_closed_form.py",
        "test_hard_numbers.py",
        "test_bfloat16.py",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in chosen)]
    run = subprocess.run(command, env={**os.environ, "SCAV_SIMD": level}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_unknown_level_says_which_there_are() -> None:
    command = [sys.executable, "-c", "import scav_kernels; scav_kernels.build_info()"]
    run = subprocess.run(command, env={**os.environ, "SCAV_SIMD": "sse9"}, capture_output=True, text=True)
    assert run.returncode != 0
    for fragment in ("SCAV_SIMD=sse9", *BUILD["simd_levels"]):
        assert fragment in run.stderr
