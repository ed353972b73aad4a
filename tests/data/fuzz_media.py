"""Decode damaged media files: each must be a clip or a DecodeError, soon and in little memory.

python tests/data/fuzz_media.py --files 400
"""

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from marked_media import make_marked

from scav_model.data.decode import DecodeError, Limits, media_seconds, read_clip

SECONDS = 10.0  # a damaged file may take so long
MEGABYTES = 1024  # and so much memory more than an undamaged one
LIMITS = Limits(max_seconds=60.0, max_bytes=64 << 20, max_pixels=1 << 20)

FILES: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "a.mkv": {},
    "a.ts": {},
    "a.flv": {"sample_rate": 44_100},
    "a.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "a.mpg": {"video": "mpeg2video", "audio": "mp2", "container": "vob", "sample_rate": 48_000},
    "a.webm": {"video": "libvpx", "audio": "libopus", "b_frames": None, "sample_rate": 48_000},
    "a.mov": {"audio": "pcm_s16le", "layout": "5.1"},
}


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Return the content with bytes flipped, cut off, cut out, put in or repeated."""
    data = bytearray(content)
    # Headers lie at either end and are where damage does most.
    place = int(random.choice([random.integers(len(data)), random.integers(min(4096, len(data)))]))
    length = int(2 ** random.uniform(0, 11))
    match int(random.integers(6)):
        case 0:
            for _ in range(length):
                data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
        case 1:
            del data[max(1, place) :]
        case 2:
            del data[place : place + length]
        case 3:
            data[place:place] = random.bytes(length)
        case 4:
            data[place : place + 4] = random.choice([b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"])
        case _:
            for _ in range(min(length, 32)):
                data[int(random.integers(min(4096, len(data))))] = int(random.integers(256))
    return bytes(data)


def cases(folder: Path, count: int, seed: int) -> Iterator[tuple[str, Path, dict[str, float]]]:
    sources = [(name, make_marked(folder / name, gop=10, **options)) for name, options in FILES.items()]
    random = np.random.default_rng(seed)
    for number in range(count):
        name, source = sources[number % len(sources)]
        path = folder / f"damaged{source.suffix}"
        path.write_bytes(damaged(source.read_bytes(), random))
        yield f"{number} ({name}, seed {seed})", path, {"start": 1.0} if number % 3 == 0 else {}


def fuzz(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Return how many files gave a clip, and how many an error; an AssertionError names a file that did neither."""
    outcomes: Counter[str] = Counter()
    memory = 0
    for name, path, part in cases(folder, count, seed):
        memory = memory or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.monotonic()
        reason = ""
        try:
            media = read_clip(path, limits=LIMITS, **part)  # type: ignore[arg-type]
            assert (media.frames.ndim, media.frames.dtype) == (4, np.uint8), name
            assert (media.audio.ndim, media.audio.dtype) == (1, np.float32), name
        except DecodeError as error:
            reason = str(error)
        assert "\n" not in reason, name
        outcomes["errors" if reason else "clips"] += 1
        with contextlib.suppress(DecodeError):
            media_seconds(path)
        assert time.monotonic() - began < SECONDS, f"{name} took {time.monotonic() - began:.1f} s"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        assert grown < MEGABYTES, f"{name} took {grown:.0f} MiB"
    return outcomes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as below:
        print(dict(fuzz(Path(below), chosen.files, chosen.seed)), file=sys.stdout)
