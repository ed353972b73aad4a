"""The check itself works: a mutant is built and caught. `make mutants` asks about all of them."""

import subprocess
import sys

import pytest

from .page import ROOT


@pytest.mark.slow
def test_a_mutant_is_caught() -> None:
    command = [sys.executable, "-m", "tests.mutants", "value-epsilon"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "sinkhorn: value-epsilon: test_" in run.stdout
