"""Every notebook of the documentation runs, and its committed outputs are those of its code.

`make notebooks` runs them and writes their outputs.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbconvert", reason="nbconvert is not installed: pip install nbconvert ipykernel")
pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install nbconvert ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
SECONDS = 300  # that a busy machine may take for one notebook


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def outputs(cell: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what a cell shows: text without its numbers, which differ between machines, and kinds of other data."""
    return [
        (output["output_type"], re.sub(r"[\d.]+", "#", "".join(output.get("text", []))), sorted(output.get("data", {})))
        for output in cell["outputs"]
    ]


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_outputs_are_committed(notebook: Path, tmp_path: Path) -> None:
    copy = shutil.copy(notebook, tmp_path / notebook.name)
    command = [sys.executable, "-m", "nbconvert", "--to=notebook", "--execute", "--inplace", "--coalesce-streams", copy]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    for committed, fresh in zip(code_cells(notebook), code_cells(copy), strict=True):
        assert outputs(committed) == outputs(fresh), f"run `make notebooks` and commit {notebook}"
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), f"run `make notebooks` and commit {notebook}"
