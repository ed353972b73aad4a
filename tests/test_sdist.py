"""The source package holds what a build and its tests need."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("csrc", "scav_kernels", "scav_model", "tests", "benchmarks")
BUILT = (".so", ".pyc")


def test_every_source_is_in_it(tmp_path):
    # Of a copy, because setuptools writes beside setup.py.
    left_out = shutil.ignore_patterns(".*", "build", "runs", "*.so", "*.egg-info", "__pycache__")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out)
    command = [sys.executable, "setup.py", "--quiet", "sdist", f"--dist-dir={tmp_path}"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        held = {name.partition("/")[2] for name in package.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.*")
        if path.is_file() and path.suffix not in BUILT and "__pycache__" not in path.parts
    }
    assert sources
    assert not sources - held
    assert {"pyproject.toml", "setup.py", "README.md", "Makefile", "constraints.txt", "CHANGELOG.md"} <= held
