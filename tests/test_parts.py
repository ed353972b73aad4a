"""`make check PART=K/N`: all parts together are all tests."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def collected(part: str) -> list[str]:
    command = [sys.executable, "-m", "pytest", "tests/model/test_words.py", "--collect-only", "-q", "--part", part]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_each_test_is_in_one_part() -> None:
    parts = [collected(f"{part}/2") for part in (1, 2)]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == sorted(collected("1/1"))
