"""Real processes that train."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As many threads as the tests themselves have, so that sums come in the same order.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHELASTIC_ERROR_FILE": ""}
# glibc returns what is freed at once, so that resident memory is memory in use: equal from run to run within 1 MiB.
MEASURING = {**ENVIRONMENT, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def torchrun(*arguments: str | Path, processes: int = 2) -> list[str]:
    """The command that runs a script, or `-m module`, in so many processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*launcher, *map(str, arguments)]


def run(command: list[str], timeout: float = 120) -> str:
    """Run a command that must succeed, and return its output."""
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout
