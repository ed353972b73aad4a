"""Time to open and read a feature store: `python -m benchmarks.stores`.

A store of 200,000 clips of one step opens with its index and without. Clips of a real size, 50 steps of 2048 video
features and 62 of 768 audio features in bfloat16, are read in random order, beside a plain reading of their files from
end to end: evicted from memory before, and from there. The stores lie where temporary files do (`TMPDIR`), which should
be a disk. Writes benchmarks/results/stores.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from benchmarks.machine import ROOT, about
from scav_model.data import FeatureStore
from scav_model.data.store import Entry, StoreWriter
from scav_model.data.store.header import StoreHeader

RESULTS = ROOT / "benchmarks" / "results" / "stores.json"
READ_BYTES = 1 << 24
OPENING = """
import sys, time
from scav_model.data import FeatureStore
start = time.perf_counter()
clips = len(FeatureStore.open(sys.argv[1]))
print(clips, time.perf_counter() - start)
"""


def fill(folder: Path, clips: int, video: tuple[int, int], audio: tuple[int, int]) -> FeatureStore:
    """A store of clips of (steps, features)."""
    sides = ({"dim": dim, "rate_hz": steps / 10, "encoder": "random"} for steps, dim in (video, audio))
    torch.manual_seed(0)
    steps = torch.randn(video), torch.randn(audio)
    with StoreWriter(folder, StoreHeader(*sides, dtype="bfloat16")) as writer:
        for number in tqdm(range(clips), desc="clips", unit="clip"):
            refused = writer.add(Entry(f"clip-{number:06d}", "train", 10.0, None), *steps)
            assert refused is None, refused
        writer.finish()
    return FeatureStore.open(folder)


def opening(folder: Path) -> float:
    """Seconds, in a process of its own."""
    run = subprocess.run([sys.executable, "-c", OPENING, folder], capture_output=True, text=True, check=True)
    return float(run.stdout.split()[1])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.safetensors"))


def evict(files: Iterable[Path]) -> None:
    """Leaves no page of them in memory, as far as the system obeys."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain(folder: Path) -> float:
    """Seconds for all bytes of all shards, in order."""
    start = time.perf_counter()
    for path in shards(folder):
        with path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass
    return time.perf_counter() - start


def clips(folder: Path, seed: int) -> float:
    """Seconds for all clips, in random order, of a store that was just opened."""
    store = FeatureStore.open(folder)
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(seed)).tolist()
    start = time.perf_counter()
    for number in order:
        store.clip(number)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", type=int, default=200_000, help="clips of the store that is opened")
    parser.add_argument("--clips", type=int, default=5000, help="of the store that is read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()

    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seconds.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory(prefix="stores-") as scratch:
        many, some = Path(scratch) / "many", Path(scratch) / "some"
        fill(many, given.many, (1, 4), (1, 4))
        for _ in range(given.rounds):
            note("opening", opening(many))
        index = next(many.glob("*index*"))
        index.unlink()
        for _ in range(given.rounds):
            note("opening_without_index", opening(many))
        fill(some, given.clips, (50, 2048), (62, 768))
        size = sum(path.stat().st_size for path in shards(some))
        for seed in tqdm(range(given.rounds), desc="readings", unit="round"):
            evict(shards(some))
            note("plain_evicted", plain(some))
            note("plain_in_memory", plain(some))
            evict(shards(some))
            note("clips_evicted", clips(some, seed))
            note("clips_in_memory", clips(some, seed))
    result = {
        "machine": {**about(), "load_before": load},
        "many": given.many,
        "clips": given.clips,
        "bytes": size,
        "samples_seconds": seconds,
        "seconds": {name: median(values) for name, values in seconds.items()},
        "bytes_per_second": {name: size / median(values) for name, values in seconds.items() if "opening" not in name},
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: result[name] for name in ("seconds", "bytes_per_second")}, indent=1))


if __name__ == "__main__":
    main()
