"""Time to write, open and search an index: `python -m benchmarks.index runs/demo/seed-0`.

The clips are those of benchmarks/retrieval.py, the demo's encoded audios repeated with noise, in an index of that side.
Each search is in a process of its own, which tells the seconds of its first search, of those after it, and by how much
its own memory grew; with what the index keeps for bounds and, as a peer, all compared. Before some of them the index is
evicted from memory. It lies where temporary files do (`TMPDIR`), which should be a disk. Writes
benchmarks/results/index.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.machine import ROOT, about
from benchmarks.retrieval import FEATURES, lifted, repeated
from benchmarks.stores import evict
from scav_model.distances import Sequences
from scav_model.index import Encoded, Header, IndexWriter

RESULTS = ROOT / "benchmarks" / "results" / "index.json"
K = 10
SEARCH = """
import json, sys, threading, time
from pathlib import Path
import torch
from scav_model.index import SearchIndex, make_queries, parts, search
folder, asked, way, candidates = sys.argv[1], torch.load(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(2)
if way == "all":
    parts.has_bounds = lambda header: False
def own():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])
start = time.perf_counter()
index = SearchIndex.open(folder)
opened = time.perf_counter() - start
queries = make_queries("video", [str(n) for n in range(len(asked))], asked)
search(index, make_queries("video", ["0"], asked[:1]), 1, mode="mean")
before, most, done = own(), 0, threading.Event()
def watch():
    global most
    while not done.wait(0.002):
        most = max(most, own())
threading.Thread(target=watch, daemon=True).start()
seconds = []
for _ in range(3):
    start = time.perf_counter()
    answer = search(index, queries, 10, mode="bounds" if way == "bounds" else "exact", candidates=candidates)
    seconds.append(time.perf_counter() - start)
done.set()
found = [[(hit.number, hit.distance) for hit in hits] for hits in answer.hits]
print(json.dumps({"opening": opened, "searches": seconds, "own_bytes": most - before, "found": found}))
"""


def searched(folder: Path, asked: Path, way: str, candidates: int = 0) -> dict[str, Any]:
    command = [sys.executable, "-c", SEARCH, folder, asked, way, str(candidates)]
    run = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def write_index(folder: Path, clips: Sequences) -> float:
    """Seconds."""
    header = Header(
        checkpoint="",
        model_sha256="",
        metric="interpolated_euclidean",
        options={},
        per_step=False,
        dim=FEATURES,
        dtype="bfloat16",
        sides=["audio"],
        features={side: {"dim": FEATURES, "rate_hz": None} for side in ("video", "audio")},
    )
    start = time.perf_counter()
    with IndexWriter.create(folder, header) as writer:
        rows = zip(clips.steps, clips.lengths.tolist(), strict=True)
        for number, (steps, length) in enumerate(tqdm(rows, desc="clips", unit="clip", total=len(clips.steps))):
            writer.add(Encoded(f"clip-{number:06d}", {"audio": steps[:length]}, {}))
    return time.perf_counter() - start


def write_plainly(folder: Path, bytes: int) -> float:
    """Seconds for as many bytes, in pieces of a shard, each synced."""
    piece = os.urandom(1 << 20) * 128
    start = time.perf_counter()
    for number in range(-(-bytes // len(piece))):
        with (folder / f"plain-{number}").open("wb") as file:
            file.write(piece[: bytes - number * len(piece)])
            os.fsync(file.fileno())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="a seed's folder of `scav demo`")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=184, help="of each query, in mode bounds")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind of search")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()

    torch.set_num_threads(2)
    load = os.getloadavg()[0]
    videos, audios, lift, _ = lifted(given.demo, "interpolated_euclidean")
    asked = [
        (steps[:length] @ lift).bfloat16().float()
        for steps, length in zip(videos.steps[: given.queries], videos.lengths.tolist(), strict=False)
    ]
    results: dict[str, Any] = {"machine": about(), "load_before": load, "items": given.items, "k": K}
    with tempfile.TemporaryDirectory(prefix="index-") as scratch:
        folder = Path(scratch) / "clips.index"
        clips = repeated(audios, given.items, 0.1, lift)
        results["seconds_writing"] = write_index(folder, clips)
        del clips
        results["bytes"] = sum(path.stat().st_size for path in folder.iterdir())
        results["bytes_of_bounds"] = sum(path.stat().st_size for path in folder.glob("*.bounds.*"))
        results["seconds_writing_plainly"] = write_plainly(Path(scratch), results["bytes"])
        for path in Path(scratch).glob("plain-*"):
            path.unlink()
        for count in (1, given.queries):
            torch.save(asked[:count], Path(scratch) / "asked.pt")
            found: dict[str, Any] = {}
            for way, cold in (("kept", True), ("kept", False), ("all", True), ("all", False), ("bounds", False)):
                rounds = []
                for _ in tqdm(range(given.rounds), desc=f"{count} queries, {way}", unit="process"):
                    if cold:
                        evict(folder.iterdir())
                    rounds.append(searched(folder, Path(scratch) / "asked.pt", way, given.candidates))
                answers = [one.pop("found") for one in rounds]
                name = way + ("_evicted" if cold else "")
                found[name] = {
                    "samples": rounds,
                    "first": median(one["searches"][0] for one in rounds),
                    "later": median(seconds for one in rounds for seconds in one["searches"][1:]),
                }
                if way == "kept":
                    right = answers[0]
                elif way == "all":
                    results["same_answers"] = results.get("same_answers", True) and answers[0] == right
                else:
                    numbers = [[{number for number, _ in hits} for hits in hits_of] for hits_of in (answers[0], right)]
                    shares = [len(some & all_of) / K for some, all_of in zip(*numbers, strict=True)]
                    found[name]["recall"] = sum(shares) / len(shares)
            results[f"queries_{count}"] = found
    given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in results.items() if not key.startswith("queries")}, indent=1))
    for count in (1, given.queries):
        for name, values in results[f"queries_{count}"].items():
            own = max(one["own_bytes"] for one in values["samples"]) / 1e9
            print(
                f"{count} queries, {name}: first {values['first']:.3f} s, later {values['later']:.3f} s, {own:.2f} GB"
            )


if __name__ == "__main__":
    main()
