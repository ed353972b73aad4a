"""What accuracy costs: recall against time and pairs compared, for each way to search one gallery."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

import scav_kernels
from scav_model.distances import retrieval_distance
from scav_model.experiments.probes.experiment import Experiment
from scav_model.experiments.probes.plots import plot_efficiency
from scav_model.experiments.probes.results import RESULTS
from scav_model.experiments.tables import Row, markdown
from scav_model.files import working_in, write_text
from scav_model.ranking import DIRECTIONS
from scav_model.search_methods import Found, Ways, share_found

# Items that count as found, of the true match and of exact search's nearest.
K = 10
EXACT, PRUNED, BY_BOUNDS = "exact", "exact, pruned", "by bounds"


@torch.no_grad()
def run_efficiency(
    subject: Experiment,
    *,
    candidates: Sequence[int],
    queries: int | None,
    repeats: int,
    seed: int,
    out: Path,
    overwrite: bool = False,
) -> list[Row]:
    """A row for each direction and way to search; writes results.json, table.md and curve.png.

    A row has `direction`, `way` (mean, hybrid, by bounds, exact, or exact, pruned), `candidates` (of hybrid and by
    bounds, else None), `R@1` and `R@10` (queries whose own clip is among the nearest) and `found` (share of exact
    search's ten nearest), in percent, `scored` and `abandoned` (pairs), `share` (of all pairs that were scored, in
    percent), `samples_seconds` (each repeat, for all queries at once), `ms` (a query, by the median of these) and
    `queries_per_second`.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if queries is not None and queries < 1:
        raise ValueError(f"queries must be at least 1, got {queries}")
    if min(candidates, default=K) < K:
        raise ValueError(f"candidates must be at least {K}, as many as are to be found, got {min(candidates)}")
    if len(subject.features) < K:
        raise ValueError(f"expected at least {K} clips to search among, got {len(subject.features)}")
    with working_in(out, "runs an experiment"):
        if (out / RESULTS).exists() and not overwrite:
            raise FileExistsError(f"{out / RESULTS} exists; --overwrite starts anew, or choose another --out")
        distance = retrieval_distance(subject.config)
        load = os.getloadavg()[0]
        clips = len(subject.features)
        chosen = torch.randperm(clips, generator=torch.Generator().manual_seed(seed))[:queries].sort().values
        sides = dict(zip(("video", "audio"), subject.encode(subject.features), strict=True))
        counts = sorted({min(count, clips) for count in candidates})
        rows: list[Row] = []
        with tqdm(total=len(DIRECTIONS) * (repeats + 1), desc="searches", unit="round") as bar:
            for direction, (asked, target) in zip(DIRECTIONS, (("video", "audio"), ("audio", "video")), strict=True):
                some = type(sides[asked])(*(part[chosen.to(part.device)] for part in sides[asked]))
                ways = Ways(some, sides[target], asked, distance)
                rows += measure(ways, chosen, direction, counts, repeats, lambda: bar.update())
        settings = {
            **subject.settings(),
            "metric": distance.metric,
            "options": distance.options,
            "per_step": distance.per_step,
            "queries": len(chosen),
            "seed": seed,
            "repeats": repeats,
            "machine": {**machine(), "load_before": load},
        }
        write_text(out / RESULTS, json.dumps({"format": 1, "settings": settings, "rows": rows}, indent=1) + "\n")
        write_text(out / "table.md", table(rows, settings) + "\n")
        plot(rows, settings, out / "curve.png")
        return rows


def measure(
    ways: Ways, truth: torch.Tensor, direction: str, candidates: Sequence[int], repeats: int, tick: Callable[[], object]
) -> list[Row]:
    """A row for each way; truth (Q,) are the queries' own items. Ways take turns, so that they share a busy hour."""
    tried: dict[tuple[str, int | None], Callable[[], Found]] = {("mean", None): lambda: ways.mean(K)}
    for count in candidates:
        tried["hybrid", count] = lambda count=count: ways.hybrid(count, K)  # type: ignore[misc]
    for count in candidates if ways.has_candidates else ():
        tried[BY_BOUNDS, count] = lambda count=count: ways.by_bounds(count, K)  # type: ignore[misc]
    if ways.has_bounds:
        tried[PRUNED, None] = lambda: ways.exact(K, "auto")
    tried[EXACT, None] = lambda: ways.exact(K, "none")
    # The first round makes what an index keeps.
    found = {key: search() for key, search in tried.items()}
    tick()
    samples: dict[tuple[str, int | None], list[float]] = {key: [] for key in tried}
    for _ in range(repeats):
        for key, search in tried.items():
            started = time.perf_counter()
            search()
            samples[key].append(time.perf_counter() - started)
        tick()
    right = found[EXACT, None].items
    rows: list[Row] = []
    for key, (items, _, scored, abandoned) in found.items():
        own = items == truth.to(items.device)[:, None]
        seconds = median(samples[key]) / len(truth)
        rows.append(
            {
                "direction": direction,
                "way": key[0],
                "candidates": key[1],
                "R@1": 100 * own[:, :1].any(1).double().mean().item(),
                "R@10": 100 * own.any(1).double().mean().item(),
                "found": share_found(items, right),
                "scored": scored,
                "abandoned": abandoned,
                "share": 100 * scored / ways.pairs,
                "ms": 1e3 * seconds,
                "queries_per_second": 1 / seconds,
                "samples_seconds": samples[key],
            }
        )
    return rows


def machine() -> dict[str, Any]:
    """Where times were measured, and of what."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "simd_level": scav_kernels.build_info()["simd_level"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scav_kernels": scav_kernels.__version__,
    }


def title(settings: dict[str, Any]) -> str:
    return f"{settings['metric']}, {settings['queries']} queries, {settings['gallery']} clips"


def plot(rows: Sequence[Row], settings: dict[str, Any], path: Path) -> None:
    """Write the curve of `rows`, with the machine in its title."""
    facts = settings["machine"]
    plot_efficiency(rows, title=f"{title(settings)}; {facts['cpu']}, {facts['threads']} threads", path=path)


def table(rows: Sequence[Row], settings: dict[str, Any]) -> str:
    """Markdown: a line per way to search, columns of either direction."""
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
