"""The layout for the Hugging Face kernel-builder has the form that it expects, and every source."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from setup import cpu_extension

ROOT = Path(__file__).resolve().parents[1]
# Keys of build.toml, as the builder's reader of the format has them; it refuses others.
GENERAL = {"name", "version", "license", "backends"}
TORCH = {"minver", "maxver", "include", "src", "pyext"}
KERNEL = {"backend", "depends", "include", "src", "cxx-flags"}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "kernel"
    subprocess.run([sys.executable, ".ci/hub.py", str(folder)], cwd=ROOT, check=True)
    return folder


def test_build_toml_has_the_form_that_the_builder_reads(layout: Path) -> None:
    build = tomllib.loads((layout / "build.toml").read_text())
    assert set(build) == {"general", "torch", "kernel"}
    assert set(build["general"]) <= GENERAL
    assert re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", build["general"]["name"])
    assert set(build["torch"]) <= TORCH
    assert {kernel["backend"] for kernel in build["kernel"].values()} == set(build["general"]["backends"])
    for kernel in build["kernel"].values():
        assert set(kernel) <= KERNEL | ({"cuda-capabilities", "cuda-flags"} if kernel["backend"] == "cuda" else set())
        assert kernel["depends"] == ["torch"]
    # No paths of this machine.
    assert str(ROOT) not in (layout / "build.toml").read_text()
    assert sys.prefix not in (layout / "build.toml").read_text()


def test_every_source_is_named_and_there(layout: Path) -> None:
    build = tomllib.loads((layout / "build.toml").read_text())
    named = {source for table in (build["torch"], *build["kernel"].values()) for source in table["src"]}
    assert {source for source in named if not (layout / source).is_file()} == set()
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.*")}
    assert named == files
    cpu = next(kernel for kernel in build["kernel"].values() if kernel["backend"] == "cpu")
    assert set(cpu_extension().sources) <= {*cpu["src"], *build["torch"]["src"]}


def test_nothing_is_copied(layout: Path) -> None:
    assert (layout / "torch-ext" / "scav_kernels" / "__init__.py").samefile(ROOT / "scav_kernels" / "__init__.py")
    assert (layout / "csrc").samefile(ROOT / "csrc")
    written = [path.name for path in layout.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sorted(written) == ["build.toml", "flake.nix"]
