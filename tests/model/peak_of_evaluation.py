"""Prints the growth in bytes of resident memory at its peak while galleries are evaluated: arguments are their sizes.

Clips are 128 × 64 numbers on either side, made in batches and kept on disk.
"""

import ctypes
import sys
from pathlib import Path

import torch

from scav_model.distances import Distance
from scav_model.retrieval import evaluate, ranking
from scav_model.retrieval.gallery import OnDisk

STEPS, DIM, BATCH = 128, 64, 50


def resident(field: str) -> int:
    """VmRSS, now, or VmHWM, at most, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def run(clips: int) -> None:
    lengths = torch.full((clips,), STEPS)
    sides = OnDisk(lengths, DIM), OnDisk(lengths, DIM)
    for start in range(0, clips, BATCH):
        for side in sides:
            side.append(torch.randn(BATCH, STEPS, DIM), lengths[start : start + BATCH])
    evaluate(*sides, Distance("interpolated_euclidean"), hybrid_k=2)


def main() -> None:
    torch.set_num_threads(1)
    # Blocks of 64 clips, 2 MiB.
    ranking.BLOCK, ranking.FLOATS = 64, 64 * STEPS * DIM
    run(BATCH)
    for clips in map(int, sys.argv[1:]):
        # What was freed before must not serve again uncounted.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        run(clips)
        print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
