"""Recall against time and pairs compared, for each method of searching one gallery."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from scav_model.distances import Sequences, retrieval_distance
from scav_model.experiments.folder import refuse_earlier_run
from scav_model.experiments.machine import machine
from scav_model.experiments.probes.experiment import Experiment
from scav_model.experiments.probes.plots import plot_efficiency
from scav_model.experiments.probes.results import FORMAT, RESULTS
from scav_model.experiments.tables import Row, markdown
from scav_model.progress import Progress
from scav_model.retrieval.gallery import GalleryItems, InMemory
from scav_model.retrieval.nearest import Found, has_bounds, nearest
from scav_model.retrieval.ranking import DIRECTIONS
from scav_model.storage.files import working_in, write_text

# Items that count as found, of the true match and of exact search's nearest.
K = 10
EXACT, PRUNED, BY_BOUNDS = "exact", "exact, pruned", "by bounds"


@torch.no_grad()
def run_efficiency(
    experiment: Experiment,
    *,
    out: Path = Path("runs/efficiency"),
    candidates: Sequence[int] = (10, 20, 50, 100, 200, 500),
    queries: int | None = None,
    repeats: int = 5,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Row]:
    """Return a row for each direction and way to search; write results.json, table.md and curve.png.

    A row has `direction`, `way` (mean, hybrid, by bounds, exact, or exact, pruned), `candidates` (of hybrid and by
    bounds, else None), `R@1` and `R@10` (queries whose own clip is among the nearest) and `found` (share of exact
    search's ten nearest), in percent, `scored` and `abandoned` (pairs), `share` (of all pairs that were scored, in
    percent), `samples_seconds` (each repeat, for all queries at once), `ms` (a query, by the median of these) and
    `queries_per_second`.

    Args:
        out: Folder for results.json (with every time that was measured), table.md and curve.png.
        candidates: Numbers of clips that hybrid takes from the pooled ranking, at least 10.
        queries: Clips to search with, drawn at random; null takes all.
        repeats: Times that each search is timed; the median counts.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if queries is not None and queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    if min(candidates, default=K) < K:
        raise ValueError(f"candidates must be at least {K}, as many as are to be found, got {min(candidates)}")
    if len(experiment.features) < K:
        raise ValueError(f"expected at least {K} clips to search among, got {len(experiment.features)}")
    with working_in(out, "runs an experiment"):
        if not overwrite:
            refuse_earlier_run(out / RESULTS, "overwrite it")
        distance = retrieval_distance(experiment.config)
        load = os.getloadavg()[0]
        clips = len(experiment.features)
        chosen = torch.randperm(clips, generator=torch.Generator().manual_seed(seed))[:queries].sort().values
        sides = dict(zip(("video", "audio"), experiment.encode(experiment.features), strict=True))
        counts = sorted({min(count, clips) for count in candidates})
        rows: list[Row] = []
        with Progress(total=len(DIRECTIONS) * (repeats + 1), desc="searches", unit="round") as bar:
            for direction, (asked, target) in zip(DIRECTIONS, (("video", "audio"), ("audio", "video")), strict=True):
                some = Sequences(*(part[chosen.to(part.device)] for part in sides[asked]))
                items = GalleryItems(InMemory(sides[target]), distance)
                rows += measure(some, items, asked, chosen, direction, counts, repeats, lambda: bar.update())
        settings = {
            **experiment.settings(),
            "metric": distance.metric,
            "options": distance.options,
            "per_step": distance.per_step,
            "queries": len(chosen),
            "seed": seed,
            "repeats": repeats,
            "machine": {**machine(), "load_before": load},
        }
        write_text(out / RESULTS, json.dumps({"format": FORMAT, "settings": settings, "rows": rows}, indent=1) + "\n")
        write_text(out / "table.md", table(rows, settings) + "\n")
        plot(rows, settings, out / "curve.png")
        return rows


def measure(
    queries: Sequences,
    items: GalleryItems,
    side: str,
    truth: torch.Tensor,
    direction: str,
    candidates: Sequence[int],
    repeats: int,
    tick: Callable[[], object],
) -> list[Row]:
    """Return a row for each way to search; truth (Q,) are the queries' own items. Ways take turns, so that they share a
    busy hour."""

    def search(method: str, count: int | None = None, prune: str = "auto") -> Callable[[], Found]:
        return lambda: nearest(queries, items, side, K, method=method, candidates=count, prune=prune)

    tried: dict[tuple[str, int | None], Callable[[], Found]] = {("mean", None): search("mean")}
    tried |= {("hybrid", count): search("hybrid", count) for count in candidates}
    if items.has_candidates:
        tried |= {(BY_BOUNDS, count): search("bounds", count) for count in candidates}
    if has_bounds(items.distance):
        tried[PRUNED, None] = search("exact")
    tried[EXACT, None] = search("exact", prune="none")
    # The first round makes what an index keeps.
    found = {key: run() for key, run in tried.items()}
    tick()
    samples: dict[tuple[str, int | None], list[float]] = {key: [] for key in tried}
    for _ in range(repeats):
        for key, run in tried.items():
            started = time.perf_counter()
            run()
            samples[key].append(time.perf_counter() - started)
        tick()
    right = found[EXACT, None].numbers
    rows: list[Row] = []
    for key, (_, numbers, report) in found.items():
        own = numbers == truth.to(numbers.device)[:, None]
        seconds = median(samples[key]) / len(truth)
        rows.append(
            {
                "direction": direction,
                "way": key[0],
                "candidates": key[1],
                "R@1": 100 * own[:, :1].any(1).double().mean().item(),
                "R@10": 100 * own.any(1).double().mean().item(),
                "found": share_found(numbers, right),
                "scored": report.scored,
                "abandoned": report.abandoned,
                "share": 100 * report.scored / (len(truth) * len(items)),
                "ms": 1e3 * seconds,
                "queries_per_second": 1 / seconds,
                "samples_seconds": samples[key],
            }
        )
    return rows


def share_found(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return the share of the numbers right (Q, k) that are in found (Q, k), row by row, in percent."""
    return 100 * (right[:, :, None] == found[:, None]).any(2).double().mean().item()


def title(settings: dict[str, Any]) -> str:
    return f"{settings['metric']}, {settings['queries']} queries, {settings['gallery']} clips"


def plot(rows: Sequence[Row], settings: dict[str, Any], path: Path) -> None:
    """Write the curve of `rows`, with the machine in its title."""
    facts = settings["machine"]
    plot_efficiency(rows, title=f"{title(settings)}; {facts['cpu']}, {facts['threads']} threads", path=path)


def table(rows: Sequence[Row], settings: dict[str, Any]) -> str:
    """Return a Markdown table: a line per way to search, both directions in each column."""
    by_way: dict[tuple[str, int | None], dict[str, Row]] = {}
    for row in rows:
        by_way.setdefault((row["way"], row["candidates"]), {})[row["direction"]] = row

    def cells(found: dict[str, Row], name: str, form: str) -> str:
        return " / ".join(format(found[direction][name], form) for direction in DIRECTIONS)

    lines = [
        [
            way if count is None else f"{way}, k′ = {count}",
            cells(found, "R@1", ".1f"),
            cells(found, "R@10", ".1f"),
            cells(found, "found", ".1f"),
            cells(found, "share", ".3g"),
            cells(found, "ms", ".3g"),
        ]
        for (way, count), found in by_way.items()
    ]
    facts, repeats = settings["machine"], settings["repeats"]
    rounds = "one round" if repeats == 1 else f"medians of {repeats} rounds"
    note = (
        f"*Found: share of exact search's {K} nearest. {title(settings)}, v→a / a→v, all queries at once; {rounds} on "
        f"{facts['cpu']}, {facts['threads']} threads, load {facts['load_before']:.1f} before, torch {facts['torch']}, "
        f"scav_kernels {facts['scav_kernels']}.*"
    )
    heads = ["search", "R@1, %", "R@10, %", "found, %", "pairs compared, %", "ms a query"]
    return markdown(heads, lines, names=1) + "\n\n" + note
