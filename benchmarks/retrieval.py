"""The figures of docs/retrieval.md: `python -m benchmarks.retrieval runs/demo/seed-0`.

For each metric the demo's test clips are encoded with the checkpoint that was trained with its loss, lifted to 512
features by a fixed orthonormal map, which keeps every distance, and the audios repeated with normal noise until there
are `--items`, in bfloat16; 100 of the videos search them: exactly, with bounds and without, and approximately, with as
few candidates as find 99 % of exact search's ten nearest: those that bounds choose, where there are such, and those of
the nearest means. Then `scav probe efficiency` draws its curves of the clips as they are.

Writes JSON and curves to benchmarks/results/retrieval, and the tables and plots into docs.
"""

import argparse
import json
import math
import os
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import retrieval_page
from benchmarks.machine import ROOT, about
from scav_model import checkpoint, retrieval
from scav_model.config import Config
from scav_model.data import open_features
from scav_model.distances import Distance, Sequences, retrieval_distance
from scav_model.experiments.probes.efficiency import run_efficiency, share_found
from scav_model.experiments.probes.experiment import Experiment
from scav_model.retrieval.gallery import GalleryItems, InMemory
from scav_model.retrieval.means import mean_steps
from scav_model.retrieval.nearest import Found, nearest

SYSTEMS = {"interpolated_euclidean": "scav_euclidean", "dtw": "scav_dtw", "sinkhorn": "scav_wasserstein"}
FEATURES = 512
# Items that are made at a time.
BLOCK = 2048
K = 10
# Of exact search's ten nearest, that approximate search is to find.
RECALL = 0.99
# More candidates by their means than this share of all items are counted and not compared, which would take hours.
WORTH = 0.02
CANDIDATES = (10, 20, 50, 100, 200, 500)


def repeated(clips: Sequences, items: int, noise: float, lift: Tensor) -> Sequences:
    """Clips (G, M, dim), lifted and repeated: noise of `noise` times a step's mean norm is added to each step of 512
    features, so that no two items are equal."""
    valid = torch.arange(clips.steps.shape[1]) < clips.lengths[:, None]
    scale = noise * clips.steps[valid].norm(dim=1).mean() / FEATURES**0.5
    chosen = torch.arange(items) % len(clips.steps)
    steps = torch.empty(items, clips.steps.shape[1], FEATURES, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for first in tqdm(range(0, items, BLOCK), desc="items", unit="block"):
        lifted = clips.steps[chosen[first : first + BLOCK]] @ lift
        lifted += scale * torch.randn(lifted.shape, generator=generator)
        steps[first : first + BLOCK] = lifted
    return Sequences(steps, clips.lengths[chosen])


def lifted(demo: Path, metric: str) -> tuple[Sequences, Sequences, Tensor, Config]:
    """The demo's test videos (G, N, dim) and audios (G, M, dim), encoded by the model that was trained with a metric's
    loss, the map (dim, 512) that lifts their steps, and the model's config."""
    model, config = checkpoint.load_model(demo / SYSTEMS[metric] / "checkpoint.pt")
    videos, audios = retrieval.encode(model, open_features(f"{demo / 'features'}:test"))
    lift = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(1)))[0]
    return videos, audios, lift[: videos.steps.shape[2]], config


def fewest_candidates(queries: Sequences, items: GalleryItems, right: Tensor) -> int:
    """Return the fewest candidates that have, among the nearest by mean, RECALL of the items right (Q, k)."""
    vectors = mean_steps(queries)
    cosines = torch.cat([vectors @ means.T for _, means in items.means()], dim=1)  # (Q, G)
    own = cosines.gather(1, right)
    places = torch.stack([(cosines > column[:, None]).sum(1) for column in own.T]).flatten().sort().values
    return max(K, int(places[math.ceil(RECALL * len(places)) - 1]) + 1)


def fewest_by_bounds(queries: Sequences, items: GalleryItems, side: str, right: Tensor) -> int:
    """Return the fewest candidates by bounds that find RECALL of the items right (Q, k): more of them find no less."""

    def share(count: int) -> float:
        found = nearest(queries, items, side, K, method="bounds", candidates=count)
        return share_found(found.numbers, right) / 100

    return K + bisect_left(range(K, len(items)), RECALL, key=share)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def measure(demo: Path, metric: str, items: int, queries: int, noise: float, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    load = os.getloadavg()[0]
    videos, audios, lift, config = lifted(demo, metric)
    database = repeated(audios, items, noise, lift)
    asked = Sequences((videos.steps[:queries] @ lift).bfloat16(), videos.lengths[:queries])
    trained = retrieval_distance(config)
    # Sums along a path as they are: of clips of many lengths, other orders than the kernel's would need more searches.
    distance = Distance(trained.metric, trained.options, per_step=False)
    gallery = GalleryItems(InMemory(database), distance)

    def search(method: str, count: int | None = None, prune: str = "auto") -> Callable[[], Found]:
        return lambda: nearest(asked, gallery, "video", K, method=method, candidates=count, prune=prune)

    ways_to = {"brute_force": search("exact", prune="none"), "pruned": search("exact"), "mean": search("mean")}
    pruned, first = timed(ways_to["pruned"])
    brute = ways_to["brute_force"]()
    candidates = {"hybrid": fewest_candidates(asked, gallery, brute.numbers)}
    if candidates["hybrid"] <= WORTH * items:
        ways_to["hybrid"] = search("hybrid", candidates["hybrid"])
    if gallery.has_candidates:
        candidates["by_bounds"] = fewest_by_bounds(asked, gallery, "video", brute.numbers)
        ways_to["by_bounds"] = search("bounds", candidates["by_bounds"])
    samples: dict[str, list[float]] = {name: [] for name in ways_to}
    recall = {}
    for _ in tqdm(range(rounds), desc="searches", unit="round"):
        for name, run in ways_to.items():
            found, seconds = timed(run)
            samples[name].append(seconds)
            recall[name] = share_found(found.numbers, brute.numbers) / 100
    medians = {name: median(values) for name, values in samples.items()}
    return {
        "metric": metric,
        "options": distance.options,
        "queries": len(asked.steps),
        "items": items,
        "noise": noise,
        "k": K,
        "load_before": load,
        "seconds_first": first,  # which makes the summaries
        "samples_seconds": samples,
        "seconds": medians,
        "times_faster": {name: medians["brute_force"] / seconds for name, seconds in medians.items()},
        "scored_share": pruned.report.scored / pruned.report.pairs,
        "abandoned_share": pruned.report.abandoned / pruned.report.pairs,
        "same_indices": bool((pruned.numbers == brute.numbers).all()),
        "same_distances": bool((pruned.distances == brute.distances).all()),
        "candidates": candidates,
        "recall": recall,
    }


def curve(demo: Path, system: str, rounds: int, queries: int | None, out: Path) -> None:
    """results.json, table.md and curve.png of one system, in `out`."""
    subject = Experiment.load(demo / system / "checkpoint.pt", Path(f"{demo / 'features'}:test"), None, 64, "cpu")
    options: dict[str, Any] = {"candidates": CANDIDATES, "queries": queries, "repeats": rounds, "seed": 0}
    run_efficiency(subject, **options, out=out, overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="a seed's folder of `scav demo`")
    parser.add_argument("--metrics", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="lines of the table")
    parser.add_argument("--curves", nargs="*", default=list(SYSTEMS.values()), help="systems of the demo")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--curve_queries", type=int, help="clips that search for a curve; all by default")
    parser.add_argument("--noise", type=float, default=0.1, help="of a step's mean norm")
    parser.add_argument("--rounds", type=int, default=3, help="of each search")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "retrieval")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of the page retrieval.md to rewrite")
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    figures = given.out / "figures.json"
    for metric in given.metrics:
        found = measure(given.demo, metric, given.items, given.queries, given.noise, given.rounds)
        print(json.dumps(found, indent=1))
        before = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
        before[metric] = {"machine": about(), **found}
        figures.write_text(json.dumps(before, indent=1) + "\n", encoding="utf-8")
    for system in given.curves:
        curve(given.demo, system, given.rounds, given.curve_queries, given.out / system)
        shutil.move(given.out / system / "curve.png", given.docs / f"retrieval-{system}.png")
    retrieval_page.write(given.out, given.docs)


if __name__ == "__main__":
    main()
