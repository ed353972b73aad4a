"""A library that does not fit our pins, in a process of another Python: `python -m benchmarks.elsewhere LIBRARY`.

The process reads pairs of arrays from its standard input and writes their distances to its standard output, pickled.
Imports nothing but NumPy and the library: the environment has no torch.
"""

import atexit
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Callable[[np.ndarray, np.ndarray], np.ndarray]


def aeon_dtw(threads: int) -> Arrays:
    from aeon.distances import dtw_pairwise_distance

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        # aeon takes (B, D, steps).
        first, second = (steps.astype(np.float64).transpose(0, 2, 1) for steps in (x, y))
        return dtw_pairwise_distance(first, second, n_jobs=threads)

    return distance


LIBRARIES = {"aeon": aeon_dtw}


@cache
def all_pairs(library: str, python: Path, threads: int) -> Arrays:
    """Return the library's distances of all pairs, computed by this Python; ImportError says why there are none."""
    if not python.exists():
        raise ImportError(f"no {python.parents[1].name}; `make bench` makes it")
    command = [str(python), "-m", "benchmarks.elsewhere", library, str(threads)]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, env=environment)
    atexit.register(worker.kill)
    assert worker.stdin is not None
    assert worker.stdout is not None
    stdin, stdout = worker.stdin, worker.stdout

    def receive() -> Any:
        answer = pickle.load(stdout)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        pickle.dump((x, y), stdin)
        stdin.flush()
        return receive()

    receive()
    return distance


def serve(library: str, threads: int) -> None:
    # What the library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(answer: Any) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    try:
        distance = LIBRARIES[library](threads)
    except ImportError as missing:
        send(ImportError(str(missing)))
        return
    send("ready")
    while True:
        try:
            x, y = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        send(distance(x, y))


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
