"""The numbers of a command line that no command can use, by the names of their options."""

import math
from collections.abc import Mapping
from typing import Any

COUNTS = (
    "batch_clips",
    "batch_frames",
    "batch_size",
    "candidates",
    "clips",
    "factors",
    "hybrid_k",
    "k",
    "queries",
    "repeats",
    "seeds",
    "shard_megabytes",
    "threads",
)
RATES = ("audio_rate_hz", "clip_seconds", "frame_rate", "video_rate_hz")
# Processes and threads that a machine can have.
MOST_WORKERS = 4096
MOST = {"threads": MOST_WORKERS, "workers": MOST_WORKERS}


def check(arguments: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: a number is none, or out of the range of its option.
    """
    for name, value in arguments.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not isinstance(number, bool):
                check_number(name, number)


def check_number(name: str, number: int | float) -> None:
    if math.isnan(number):
        raise ValueError(f"expected {name} to be a number, got NaN")
    if name in COUNTS and number < 1:
        raise ValueError(f"expected {name} to be at least 1, got {number}")
    if name in RATES and not 0 < number < math.inf:
        raise ValueError(f"expected {name} to be above 0 and finite, got {number}")
    most = MOST.get(name, 2**63 - 1)
    if isinstance(number, int) and number > most:
        raise ValueError(f"expected {name} to be at most {most}, got {number}")
