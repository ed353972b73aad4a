"""A toy distance, added by exactly the files that CONTRIBUTING.md names: all that a distance has follows from them.

`files` holds the new ones. A copy of the package gets them and a line or two in each file that lists distances; the
kernels are a library of their own, since the extension is not built again.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .build import build

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
FILES = HERE / "files"
NAME = "mean_l1"
# Lines that each file that lists distances gets, by the text that they follow; "" is the end of the file.
ENTRIES = {
    "scav_kernels/__init__.py": {"": f"from scav_kernels.ops.{NAME} import {NAME}\n"},
    "scav_kernels/reference/__init__.py": {"": f"from scav_kernels.reference.{NAME} import {NAME}\n"},
    "scav_kernels/metric_types.py": {"MetricName = Literal[\n": f'    "{NAME}",\n', "": "    weight: float\n"},
    "tests/ops/cases.py": {
        "CORE = [\n": f'    Case("{NAME}", "{NAME}"),\n    Case("{NAME}-weighted", "{NAME}", {{"weight": 2.5}}),\n'
    },
    # Without a product, what a user would write is the reference.
    "tests/ops/plain.py": {"": f"from scav_kernels.reference.{NAME} import {NAME}\n"},
}
# The files of the op suite whose tests follow from the case table.
SUITE = [
    "test_parity.py",
    "test_gradients.py",
    "test_registration.py",
    "test_padding.py",
    "test_invariance.py",
    "test_errors.py",
    "test_func.py",
    "test_metric_types.py",
]


def new_files() -> list[str]:
    return sorted(str(path.relative_to(FILES)) for path in FILES.rglob("*.*") if path.suffix in (".py", ".inl", ".cpp"))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its op suite, with the toy distance."""
    root = tmp_path_factory.mktemp("scaffold")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for folder in ("scav_kernels", "tests/ops"):
        shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
    for library in (ROOT / "scav_kernels").glob("*.so"):
        (root / "scav_kernels" / library.name).symlink_to(library)
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, root / file)
    for file in new_files():
        assert not (ROOT / file).exists()
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / file, root / file)
    for file, entries in ENTRIES.items():
        text = (root / file).read_text(encoding="utf-8")
        for before, lines in entries.items():
            at = text.index(before) + len(before) if before else len(text)
            text = text[:at] + lines + text[at:]
        (root / file).write_text(text, encoding="utf-8")
    shutil.copy(HERE / "load_kernels.py", root)
    shutil.copy(HERE / "use.py", root / "tests" / "ops" / f"test_{NAME}.py")
    build(root / "csrc", f"cpu/{NAME}.cpp", root / "kernels.so")
    return root


def test_contributing_names_these_files() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Add a distance in (\w+) files\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    named = re.findall(r"^\d+\. `([^`]+)`", section[2], re.MULTILINE)
    assert sorted(file.replace("<distance>", NAME) for file in named) == sorted([*new_files(), *ENTRIES])
    assert section[1] == {6: "six", 7: "seven", 8: "eight", 9: "nine"}[len(named)]


@pytest.mark.slow
def test_the_op_suite_covers_it(copy: Path) -> None:
    """Parity, gradients, opcheck, padding, invariance, errors, batching; and `use.py`: by name, and in a search."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (copy, copy / "tests"))),
        "SCAV_SCAFFOLD_LIBRARY": str(copy / "kernels.so"),
        "OMP_NUM_THREADS": "1",
    }
    files = [f"tests/ops/{file}" for file in (*SUITE, f"test_{NAME}.py")]
    # The process of that test would not have the toy's kernels.
    chosen = f"{NAME} and not test_fresh_memory"
    only = ["-p", "load_kernels", "-p", "no:cacheprovider", "-q", "-k", chosen]
    command = [sys.executable, "-m", "pytest", *only, *files]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 600
