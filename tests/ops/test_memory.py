"""Nothing is allocated that grows with the number of cells, B1·B2·N·M."""

import subprocess
import sys
from pathlib import Path

import pytest

from .cases import CORE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# Sequences on each side, and their steps: 64, 256 and 576 MiB of cells in float32.
SIZES = [(64, 64), (128, 64), (192, 64)]
METRICS = [case.metric for case in CORE]
FROM_COST = ["dtw_from_cost", "soft_dtw_from_cost", "sinkhorn_from_cost"]


def cells(batch: int, steps: int) -> int:
    """Bytes of all cells."""
    return batch**2 * steps**2 * 4


def allowed(batch: int, steps: int) -> int:
    """The design's bound for one thread, the result, and what is saved for backward: O(N + M) numbers a pair."""
    return (64 << 20) + batch**2 * (2 * steps + 2) * 4


def peaks(metric: str, *sizes: tuple[int, int]) -> list[tuple[int, int]]:
    """Forward alone, and with its gradient, of each size."""
    script = Path(__file__).with_name("peak_memory.py")
    command = [sys.executable, str(script), metric, *(str(size) for pair in sizes for size in pair)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [tuple(map(int, line.split())) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("metric", [*METRICS, *FROM_COST])
def test_peak_memory(metric: str) -> None:
    for size, (forward, backward) in zip(SIZES, peaks(metric, *SIZES), strict=True):
        assert forward <= allowed(*size), size
        # The gradient of given costs is one number a cell, and the only one.
        gradient = cells(*size) if metric in FROM_COST else 0
        assert backward <= allowed(*size) + gradient, size
    assert cells(*SIZES[-1]) > 6 * allowed(*SIZES[-1])


def test_the_meter_sees_a_tensor_of_all_cells() -> None:
    for size, (found, _) in zip(SIZES, peaks("materialized", *SIZES), strict=True):
        # Less the few pages that were free before.
        assert found >= 0.99 * cells(*size)
