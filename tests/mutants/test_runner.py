"""The check itself works: a mutant is built and caught. `make mutants` asks about all of them."""

import subprocess
import sys
from pathlib import Path

import pytest

from .page import ROOT

pytestmark = pytest.mark.slow


def test_a_mutant_is_caught(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.mutants", "norm-of-nan", "--page", str(tmp_path / "page.md")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "search_summaries: norm-of-nan: test_" in run.stdout
