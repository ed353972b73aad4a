"""setup.py chooses what to build, and explains in one line why it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from setup import reason_without_cuda, toolkit_version

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def toolkit(tmp_path: Path) -> str:
    """The root of a CUDA 12.6 toolkit."""
    for folder in ("lib64", "include"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lib64" / "libcudart.so").touch()
    (tmp_path / "include" / "cuda.h").write_text("#define CUDA_VERSION 12060\n")
    return str(tmp_path)


def test_the_version_of_a_toolkit(toolkit, tmp_path):
    assert toolkit_version(toolkit) == "12.6"
    (tmp_path / "include" / "cuda.h").unlink()
    assert toolkit_version(toolkit) == ""
    assert toolkit_version(str(tmp_path / "nothing")) is None
    assert toolkit_version(None) is None


def test_cuda_kernels_are_built_where_torch_and_toolkit_agree(toolkit):
    for setting in ("auto", "1"):
        assert reason_without_cuda(setting, "12.9", toolkit) is None
    assert reason_without_cuda("0", "12.9", toolkit) == "SCAV_BUILD_CUDA=0"


@pytest.mark.parametrize(
    ("torch_cuda", "has_toolkit", "reason"),
    [
        ("13.0", True, r"torch has CUDA 13.0 and the toolkit in .* is 12.6; set CUDA_HOME"),
        ("13.0", False, r"there is no CUDA toolkit \(CUDA_HOME=None\); set CUDA_HOME"),
        (None, True, r"this torch was built without CUDA; install"),
    ],
)
def test_a_cpu_build_says_why(torch_cuda, has_toolkit, reason, toolkit):
    home = toolkit if has_toolkit else None
    assert reason_without_cuda("auto", torch_cuda, home) is not None
    with pytest.raises(SystemExit, match=f"^SCAV_BUILD_CUDA=1, but {reason}"):
        reason_without_cuda("1", torch_cuda, home)


def test_another_setting_is_refused(toolkit):
    with pytest.raises(SystemExit, match="SCAV_BUILD_CUDA must be 0, 1 or auto, got 'yes'"):
        reason_without_cuda("yes", "12.6", toolkit)


@pytest.mark.parametrize(
    ("before", "compiler", "message"),
    [
        ("sys.modules['torch'] = None", "c++", "building scav_kernels needs torch: pip install torch"),
        ("sys.modules['pybind11'] = None", "c++", "building scav_kernels needs pybind11: pip install torch"),
        ("sys.modules['ninja'] = None", "c++", "building scav_kernels needs ninja: pip install torch"),
        ("", "no-such-compiler", "needs a C++20 compiler, and there is no no-such-compiler: apt install g++"),
    ],
)
def test_what_a_build_lacks_is_one_line(before, compiler, message, tmp_path):
    program = f"import runpy, sys\n{before}\n"
    program += f"sys.argv = ['setup.py', '--quiet', 'build_ext', '--build-lib={tmp_path}', '--build-temp={tmp_path}']\n"
    program += "runpy.run_path('setup.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env={**os.environ, "SCAV_BUILD_CUDA": "0", "CXX": compiler},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
