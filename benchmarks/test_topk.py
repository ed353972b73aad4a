"""Exact search beside brute force, and that beside the limit of the machine: `pytest benchmarks/test_topk.py`."""

from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks import limit
from benchmarks.cases import WORKLOADS, Workload, name_of
from benchmarks.conftest import Record
from benchmarks.timing import time_rounds
from scav_kernels import SearchIndex, cdist, topk

GALLERY = next(work for work in WORKLOADS if work.name == "gallery")
# Of DTW and transport, which compare every step with every other, as many items take as long.
ITEMS = {"interpolated_euclidean": GALLERY.b2, "dtw": 1000, "sinkhorn": 500}
# Directions in which steps vary most, as a trained model's do.
DIRECTIONS = 8
# Classes of the series that are no walks.
SHAPES = 20


def walks(batch: int, length: int, dim: int, seed: int) -> Tensor:
    """Smooth sequences near a few directions, of steps of norm about one."""
    generator = torch.Generator().manual_seed(seed)
    few = min(DIRECTIONS, dim)
    directions = torch.randn(few, dim, generator=torch.Generator().manual_seed(0))
    steps = torch.randn(batch, length, few, generator=generator).cumsum(1) @ directions
    steps += 0.1 * torch.randn(batch, length, dim, generator=generator) * steps.norm(dim=2, keepdim=True) / dim**0.5
    return steps / steps.norm(dim=2, keepdim=True)


def series(kind: str, count: int, steps: int, seed: int) -> Tensor:
    """Series (count, steps, 1): random walks, smooth shapes of a few classes with noise, or noise alone."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, steps, generator=generator)
    if kind == "shapes":
        waves = torch.randn(SHAPES, 4, 2, generator=torch.Generator().manual_seed(0))
        chosen = waves[torch.randint(SHAPES, (count,), generator=generator)]  # (count, frequencies, 2)
        shift = 0.1 * torch.rand(count, 1, generator=generator)
        angles = 2 * torch.pi * (torch.linspace(0, 1, steps) + shift)[:, None] * torch.arange(1, 5)[:, None]
        both = torch.stack([angles.sin(), angles.cos()], 2)  # (count, frequencies, 2, steps)
        return ((chosen[..., None] * both).sum((1, 2)) + 0.2 * noise)[..., None]
    return (noise.cumsum(1) if kind == "walks" else noise)[..., None]


@pytest.mark.parametrize("prune", ["none", "auto"])
@pytest.mark.parametrize("kind", ["walks", "shapes", "noise"])
def test_series(benchmark: BenchmarkFixture, record: Record, smoke: bool, kind: str, prune: str) -> None:
    """The nearest of each series, by DTW in a band of a tenth of the steps."""
    queries, items, steps = (4, 40, 20) if smoke else (1000, 5000, 128)
    x, y = series(kind, queries, steps, seed=1), series(kind, items, steps, seed=2)
    asked: dict[str, Any] = {"metric": "dtw", "cost": "sqeuclidean", "band": round(0.1 * steps)}

    def run() -> Any:
        return topk(x, y, 1, prune=prune, **asked)

    found = run()
    every = cdist(x[:4], y, **asked)
    assert torch.equal(found.indices[:4, 0], every.argmin(1))
    times = time_rounds(benchmark, run, rounds=1 if smoke else None)
    report = found.report
    facts = {
        "queries": queries,
        "items": items,
        "steps": steps,
        "scored_share": report.scored / report.pairs,
        "abandoned_share": report.abandoned / report.pairs,
    }
    record("series", f"{kind}-{prune}", **times, **facts, kind=kind, prune=prune)


@pytest.mark.parametrize("prune", ["none", "auto"])
@pytest.mark.parametrize("metric", ITEMS)
def test_topk(benchmark: BenchmarkFixture, record: Record, smoke: bool, metric: str, prune: str) -> None:
    work: Workload = GALLERY.tiny() if smoke else GALLERY
    items = work.b2 if smoke else ITEMS[metric]
    queries = walks(work.b1, work.n, work.d, seed=1).bfloat16()
    index = SearchIndex(walks(items, work.m, work.d, seed=2).bfloat16())
    k = min(10, items)

    def run() -> Any:
        return topk(queries, index, k, metric=metric, prune=prune)

    found = run()  # makes the summaries
    expected = topk(queries[:2], index, k, metric=metric, prune="none")
    assert torch.equal(found.indices[:2], expected.indices)
    rows = work.b1 if metric == "interpolated_euclidean" else work.b1 * work.n
    product = rows, items * work.m, work.d, torch.float32, "cpu"
    peak, library = limit.peak_flops(*product), limit.matmul_flops(*product)
    times = time_rounds(benchmark, run, rounds=1 if smoke else None)
    flops = 2 * rows * items * work.m * work.d
    limit_seconds, library_seconds = flops / peak, flops / library
    facts = {
        **times,
        "queries": work.b1,
        "items": items,
        "dtype": name_of(queries.dtype),
        "limit_seconds": limit_seconds,
        "efficiency": limit_seconds / times["seconds"],
        "matmul_seconds": library_seconds,
        "efficiency_of_matmul": library_seconds / times["seconds"],
        "scored_share": found.report.scored / found.report.pairs,
    }
    record("topk", f"{metric}-{prune}", **facts, metric=metric, prune=prune)
