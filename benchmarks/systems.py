"""Retrieval as the field reports it: recall, queries a second, size of the index and memory of several systems.

`python -m benchmarks.systems` makes a gallery of 100,000 synthetic clips and lets each system search it, in a process
of its own. A clip is a random walk on the unit sphere in 128 dimensions, of 39 to 62 steps. Clips come in pairs: the
second has the four quarters of the first in another order, so that a system that ignores order finds the right clip in
half of the cases. A query is a clip at another speed, with noise.

With `--demo runs/demo/seed-0`, the gallery is the demo's 512 test clips, each system of which encodes its own: videos
search sounds.

Writes benchmarks/results/systems/NAME.json, and the tables in docs/retrieval.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import scav_kernels
from benchmarks import systems_page
from benchmarks.alone import resident
from benchmarks.machine import ROOT, about
from benchmarks.retrieval import SYSTEMS as DEMO_SYSTEMS
from scav_model import checkpoint, retrieval
from scav_model.data import open_features
from scav_model.distances import Distance, Sequences
from scav_model.retrieval.gallery import GalleryItems, InMemory
from scav_model.retrieval.nearest import nearest

DIM, SHORTEST, LONGEST = 128, 39, 62
K = 10
CANDIDATES = 200
# Clips that are made, or compared by MaxSim, at a time.
BLOCK = 1024
# Bytes that bounds of an item take, by its steps: the table in docs/retrieval.md.
BOUND_BYTES = {
    "interpolated_euclidean": lambda _: 4 * (16 + 4 * 16 + 16 * 8 + 32 * 16),
    "dtw": lambda steps: 4 * steps * (8 + 32),
    "sinkhorn": lambda steps: 4 * steps * 32,
    "chamfer": lambda steps: 4 * steps * (8 + 32),
}

Search = Callable[[Sequences], Tensor]


def walks(clips: int, generator: torch.Generator) -> Sequences:
    """Return random walks of unit steps (clips, LONGEST, DIM), bfloat16, the second of each pair in another order."""
    steps = torch.zeros(clips, LONGEST, DIM, dtype=torch.bfloat16)
    lengths = torch.randint(SHORTEST, LONGEST + 1, ((clips + 1) // 2,), generator=generator).repeat_interleave(2)[
        :clips
    ]
    for first in tqdm(range(0, clips, 2 * BLOCK), desc="clips", unit="block"):
        count = min(2 * BLOCK, clips - first)
        # With a mean of their own, so that clips differ as wholes too.
        mean = torch.randn((count + 1) // 2, 1, DIM, generator=generator)
        walk = torch.randn((count + 1) // 2, LONGEST, DIM, generator=generator).cumsum(1) / 4
        unit = F.normalize(walk + mean, dim=-1)
        for row in range(count):
            steps[first + row] = unit[row // 2].bfloat16()
    for odd in range(1, clips, 2):
        length = int(lengths[odd])
        second, first_quarter, last, third = (steps[odd, :length].chunk(4)[place] for place in (1, 0, 3, 2))
        steps[odd, :length] = torch.cat((second, first_quarter, last, third))
    steps[torch.arange(LONGEST) >= lengths[:, None]] = 0
    return Sequences(steps, lengths)


def queries_of(clips: Sequences, count: int, noise: float, generator: torch.Generator) -> tuple[Sequences, Tensor]:
    """Return clips at 0.8 to 1.25 of their speed with noise, and their numbers in the gallery."""
    right = torch.randperm(len(clips.lengths), generator=generator)[:count]
    rows = []
    for number in right.tolist():
        length = int(clips.lengths[number])
        speed = 0.8 + 0.45 * torch.rand((), generator=generator).item()
        steps = clips.steps[number, :length].float().T[None]
        stretched = F.interpolate(steps, size=max(2, round(length / speed)), mode="linear")[0].T
        noisy = stretched + noise / DIM**0.5 * torch.randn(stretched.shape, generator=generator)
        rows.append(F.normalize(noisy, dim=-1))
    lengths = torch.tensor([len(row) for row in rows])
    return Sequences(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).bfloat16(), lengths), right


@dataclass(frozen=True)
class System:
    """`build(clips, folder)` indexes clips and returns a search for the K nearest, and the bytes of the index."""

    name: str
    build: Callable[[Sequences, Path], tuple[Search, int]]


def step_bytes(clips: Sequences) -> int:
    return 2 * int(clips.lengths.sum()) * clips.steps.shape[2]


def means(clips: Sequences) -> Tensor:
    """Return the unit mean steps (G, D), float32."""
    rows = [(block.float().sum(1) / n[:, None]) for block, n in zip(*(t.split(BLOCK) for t in clips), strict=True)]
    return F.normalize(torch.cat(rows), dim=1)


def pooled(clips: Sequences, _: Path) -> tuple[Search, int]:
    database = means(clips)
    return lambda queries: (means(queries) @ database.T).topk(K).indices, database.nbytes


def max_sim(clips: Sequences, _: Path) -> tuple[Search, int]:
    """Sum over the query's steps of the largest cosine, of all clips, in plain PyTorch."""

    def search(queries: Sequences) -> Tensor:
        scores = []
        for block, lengths in zip(*(t.split(BLOCK) for t in clips), strict=True):
            padding = torch.arange(block.shape[1]) >= lengths[:, None]
            rows = []
            for query, length in zip(*queries, strict=True):
                cosines = torch.einsum("nd,gmd->gnm", query[:length].float(), block.float())
                rows.append(cosines.masked_fill_(padding[:, None], -torch.inf).amax(2).sum(1))
            scores.append(torch.stack(rows))
        return torch.cat(scores, 1).topk(K).indices

    return search, step_bytes(clips)


def exact(clips: Sequences, _: Path, metric: str, candidates: int | None = None, **options: Any) -> tuple[Search, int]:
    """`scav_kernels.topk`, with the bounds of its index."""
    index = scav_kernels.SearchIndex(clips.steps, clips.lengths)

    def search(queries: Sequences) -> Tensor:
        found = scav_kernels.topk(
            queries.steps, index, K, queries.lengths, metric=metric, candidates=candidates, **options
        )
        return found.indices

    return search, step_bytes(clips) + sum(BOUND_BYTES[metric](steps) for steps in clips.lengths.tolist())


def hybrid(clips: Sequences, _: Path, metric: str, **options: Any) -> tuple[Search, int]:
    """Candidates by their means, and the distances of their sequences, as `scav search --mode hybrid`."""
    items = GalleryItems(InMemory(clips), Distance(metric, options))

    def search(queries: Sequences) -> Tensor:
        return nearest(queries, items, "video", K, method="hybrid", candidates=min(CANDIDATES, len(items))).numbers

    return search, step_bytes(clips) + 4 * len(clips.lengths) * clips.steps.shape[2]


def fast_plaid(clips: Sequences, folder: Path) -> tuple[Search, int]:
    """MaxSim among candidates of an inverted file, steps in four bits a number: all settings are its defaults."""
    from fast_plaid.search import FastPlaid

    index = FastPlaid(index=str(folder / "plaid"), device="cpu")
    index.create([row[:length].float() for row, length in zip(*clips, strict=True)])

    def search(queries: Sequences) -> Tensor:
        rows = [row[:length].float() for row, length in zip(*queries, strict=True)]
        found = index.search(rows, top_k=K, show_progress=False, n_processes=1)
        # Fewer than K where fewer are candidates.
        return torch.tensor([[number for number, _ in hits] + [-1] * (K - len(hits)) for hits in found])

    return search, sum(path.stat().st_size for path in (folder / "plaid").rglob("*") if path.is_file())


SYSTEMS = [
    System("pooled, flat", pooled),
    System("interpolated Euclidean, exact", partial(exact, metric="interpolated_euclidean")),
    System(
        "interpolated Euclidean, 200 by bounds", partial(exact, metric="interpolated_euclidean", candidates=CANDIDATES)
    ),
    System("DTW, 200 by means", partial(hybrid, metric="dtw")),
    System("Sinkhorn, 200 by means", partial(hybrid, metric="sinkhorn")),
    # Divided by the steps, as the models and `hybrid` divide it.
    System("DTW, exact", partial(exact, metric="dtw", normalize="steps")),
    System("chamfer (MaxSim), exact", partial(exact, metric="chamfer", cost="cosine")),
    System("MaxSim, plain PyTorch", max_sim),
    System("fast-plaid (MaxSim)", fast_plaid),
]


def share_within(found: Tensor, right: Tensor, k: int) -> float:
    """Return the share of queries whose clip is among the first k."""
    return (found[:, :k] == right[:, None]).any(1).double().mean().item()


def measure(system: System, clips: Sequences, queries: Sequences, right: Tensor, rounds: int) -> dict[str, Any]:
    """Return recall, seconds and bytes of one system, in this process."""
    load = os.getloadavg()[0]
    before = resident("VmRSS", afresh=True)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        search, size = system.build(clips, Path(folder))
        built = time.perf_counter()
        # The first search makes the bounds of an index.
        found = search(queries)
        first = time.perf_counter() - built
        seconds = []
        for _ in range(rounds):
            again = time.perf_counter()
            search(queries)
            seconds.append(time.perf_counter() - again)
    return {
        "system": system.name,
        "recall_at_1": share_within(found, right, 1),
        "recall_at_10": share_within(found, right, K),
        "samples_seconds": seconds,
        "queries_per_second": len(right) / median(seconds),
        "seconds_build": built - start,
        "seconds_first": first,
        "index_bytes": size,
        "extra_bytes": resident("VmHWM") - before,
        "load_before": load,
    }


def in_own_process(system: System, gallery: Path, rounds: int, minutes: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.systems", "--one", system.name, "--gallery", str(gallery)]
    try:
        done = subprocess.run(
            [*command, "--rounds", str(rounds)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60 * minutes,
        )
    except subprocess.TimeoutExpired:
        return {"system": system.name, "skipped": f"stopped after {minutes:g} minutes"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"system": system.name, "skipped": last}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def demo_gallery(demo: Path, metric: str) -> tuple[Sequences, Sequences, Tensor]:
    """Return the demo's test sounds and videos, by the model of one metric, with unit steps, and the right numbers."""
    model, _ = checkpoint.load_model(demo / DEMO_SYSTEMS[metric] / "checkpoint.pt")
    videos, audios = retrieval.encode(model, open_features(f"{demo / 'features'}:test"))
    unit = [Sequences(F.normalize(side.steps, dim=-1).bfloat16(), side.lengths) for side in (audios, videos)]
    return unit[0], unit[1], torch.arange(len(audios.lengths))


def versions() -> dict[str, str | None]:
    try:
        return {"fast_plaid": metadata.version("fast-plaid")}
    except metadata.PackageNotFoundError:
        return {"fast_plaid": None}


def compare(name: str, gallery: tuple[Sequences, Sequences, Tensor], given: argparse.Namespace) -> None:
    """Measure every system on one gallery, and write the records as they come."""
    clips, queries, right = gallery
    path = given.out / f"{name}.json"
    facts = {"clips": len(clips.lengths), "queries": len(right), "dim": clips.steps.shape[2], "noise": given.noise}
    record: dict[str, Any] = {
        "machine": about() | versions(),
        "beside_other_work": given.beside,
        **facts,
        "systems": [],
    }
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save({"clips": tuple(clips), "queries": tuple(queries), "right": right}, file.name)
        for system in tqdm([s for s in SYSTEMS if s.name in given.systems], desc=name, unit="system"):
            found = in_own_process(system, Path(file.name), given.rounds, given.minutes)
            record["systems"].append(found)
            print(json.dumps(found), flush=True)
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="a seed's folder of `scav demo`, whose test clips are galleries too")
    parser.add_argument("--clips", type=int, default=100_000, help="of the synthetic gallery; 0 leaves it out")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--noise", type=float, default=2.0, help="of a query's step, as a share of its norm")
    parser.add_argument("--rounds", type=int, default=3, help="searches that are timed")
    parser.add_argument("--minutes", type=float, default=60.0, help="after which a system is stopped")
    parser.add_argument("--systems", nargs="*", default=[system.name for system in SYSTEMS], metavar="NAME")
    parser.add_argument("--beside", action="store_true", help="note that the machine has other work")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "systems")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page retrieval.md to rewrite")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--gallery", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        stored = torch.load(given.gallery)
        (system,) = (system for system in SYSTEMS if system.name == given.one)
        sides = (Sequences(*stored[name]) for name in ("clips", "queries"))
        print(json.dumps(measure(system, *sides, stored["right"], given.rounds)))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    for metric in DEMO_SYSTEMS if given.demo else ():
        compare(f"demo-{metric}", demo_gallery(given.demo, metric), given)
    if given.clips:
        generator = torch.Generator().manual_seed(0)
        clips = walks(given.clips, generator)
        queries, right = queries_of(clips, given.queries, given.noise, generator)
        compare("synthetic", (clips, queries, right), given)
    systems_page.write(given.out, given.docs)


if __name__ == "__main__":
    main()
