"""The source package, an editable install, and the metadata of all packages."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from scav_model.extras import ALONE, EXTRAS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("csrc", "scav_kernels", "scav_model", "tests", "benchmarks", "examples")
BUILT = (".so", ".pyc")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Packages that Ray has inside.
VENDORED = {"psutil"}
# Extras that developers install, and that scav_model imports nothing of.
DEVELOPMENT = {"docs", "cuda", "plot", "test", "peers", "bench", "dev"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tree, because setuptools writes beside setup.py."""
    left_out = shutil.ignore_patterns(".*", "build", "runs", "*.so", "*.egg-info", "__pycache__")
    return shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out)


@pytest.mark.slow
def test_the_source_package_has_every_source(copy: Path, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "sdist", f"--dist-dir={tmp_path}"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        names = {name.partition("/")[2] for name in package.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.*")
        if path.is_file() and path.suffix not in BUILT and "__pycache__" not in path.parts
    }
    assert sources
    assert not sources - names
    assert {"pyproject.toml", "setup.py", "README.md", "Makefile", "constraints.txt", "CHANGELOG.md"} <= names


@pytest.fixture
def without_kernels(copy: Path) -> Path:
    """A copy of the tree whose packages have no extension, so that they build in a second."""
    (copy / "setup.py").write_text("from setuptools import setup\nsetup()\n")
    return copy


def build(function: str, folder: Path, to: Path) -> zipfile.ZipFile:
    program = f"from setuptools.build_meta import {function} as build; build({str(to)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)
    (wheel,) = to.glob("*.whl")
    return zipfile.ZipFile(wheel)


def test_type_checkers_find_an_editable_install(without_kernels: Path, tmp_path: Path) -> None:
    """They follow the paths in .pth files, and run no import hooks."""
    with build("build_editable", without_kernels, tmp_path) as wheel:
        lines = [wheel.read(name).decode().split() for name in wheel.namelist() if name.endswith(".pth")]
    assert lines == [[str(without_kernels)]]


def test_the_wheel_has_types_presets_and_the_license(without_kernels: Path, tmp_path: Path) -> None:
    with build("build_wheel", without_kernels, tmp_path) as wheel:
        names = set(wheel.namelist())
        folder = next(name.partition("/")[0] for name in names if name.endswith("/METADATA"))
        described = metadata.PathDistribution(zipfile.Path(wheel, f"{folder}/")).metadata
        presets = {path.relative_to(ROOT).as_posix() for path in (ROOT / "scav_model" / "configs").rglob("*.yaml")}
        assert presets
        assert {"scav_kernels/py.typed", "scav_model/py.typed", f"{folder}/licenses/LICENSE", *presets} <= names
        assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "csrc/"))]
    assert described["License-Expression"] == "Apache-2.0"
    assert described["Requires-Python"] == ">=3.11"
    assert described["Keywords"]
    core = [text for text in described.get_all("Requires-Dist") if "extra ==" not in text]
    assert sorted(core) == ["numpy", "torch>=2.11"]


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in requirements}


def imported(package: str) -> set[str]:
    """Return the names of other packages that a package imports anywhere."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names - {"scav_kernels", "scav_model"}


@pytest.mark.parametrize("package", ["scav_kernels", "scav_model"])
def test_every_imported_package_is_declared(package: str) -> None:
    extras = PROJECT["optional-dependencies"]
    usable = set(extras) - DEVELOPMENT if package == "scav_model" else {"cuda", "plot"}
    declared = names_of([*PROJECT["dependencies"], *(text for name in usable for text in extras[name])])
    declared |= names_of([*ALONE.values()])
    distributions = metadata.packages_distributions()
    for name in imported(package) - VENDORED:
        provided_by = {other.lower().replace("_", "-") for other in distributions.get(name, [name])}
        assert provided_by & declared, f"{package} imports {name}, which pyproject.toml does not declare"


def test_errors_name_the_extra_that_declares_a_package() -> None:
    distributions = metadata.packages_distributions()
    for name, extra in EXTRAS.items():
        declared = names_of([text for part in extra.split(",") for text in PROJECT["optional-dependencies"][part]])
        provided_by = {other.lower().replace("_", "-") for other in distributions.get(name, [name])}
        assert provided_by & declared, f"{name} is not in the extra {extra}"
    assert {part for extra in EXTRAS.values() for part in extra.split(",")} == (
        set(PROJECT["optional-dependencies"]) - DEVELOPMENT
    )


def test_packages_without_an_extra_are_pinned_and_are_in_none() -> None:
    pins = (ROOT / "constraints-no-deps.txt").read_text(encoding="utf-8").splitlines()
    assert names_of([line for line in pins if not line.startswith("#")]) == names_of([*ALONE.values()])
    declared = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]
    assert not names_of([*ALONE.values()]) & names_of(declared)


def test_version_of_python_is_the_same_everywhere() -> None:
    least = PROJECT["requires-python"].removeprefix(">=")
    for file, words in {
        "README.md": f"Python {least} or newer",
        "Makefile": f"Python {least} or newer",
        "pyproject.toml": f'target-version = "py{least.replace(".", "")}"',
    }.items():
        assert words in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not say {words!r}"
