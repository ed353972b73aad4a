"""benchmarks/systems.py: its gallery, its systems on a small one, and its table in the page."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from benchmarks import systems_page
from benchmarks.systems import SYSTEMS, System, measure, queries_of, share_within, walks
from scav_model.distances import Sequences

BLIND = ("pooled, flat", "Sinkhorn", "chamfer", "MaxSim", "fast-plaid")  # to the order of steps


@pytest.fixture(scope="module")
def gallery() -> tuple[Sequences, Sequences, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clips = walks(300, generator)
    return clips, *queries_of(clips, 12, 1.0, generator)


def test_the_second_of_a_pair_has_the_same_steps_in_another_order(
    gallery: tuple[Sequences, Sequences, torch.Tensor],
) -> None:
    clips, queries, _ = gallery
    for first, length in zip(clips.steps[:20], clips.lengths[:20].tolist(), strict=True):
        assert first[:length].float().norm(dim=1).sub(1).abs().max() < 0.01
        assert not first[length:].any()
    one, other = clips.steps[0].float(), clips.steps[1].float()
    assert not torch.equal(one, other)
    assert sorted(one.tolist()) == sorted(other.tolist())
    assert len(queries.lengths) == 12


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_systems_find_the_clip(system: System, gallery: tuple[Sequences, Sequences, torch.Tensor]) -> None:
    if system.name.startswith("fast-plaid") and importlib.util.find_spec("fast_plaid") is None:
        pytest.skip("fast-plaid is not installed: pip install fast-plaid")
    found = measure(system, *gallery, rounds=1)
    assert found["recall_at_10"] == 1
    if not system.name.startswith(BLIND):
        assert found["recall_at_1"] == 1
    assert found["index_bytes"] > 0
    json.dumps(found)


def test_share_within() -> None:
    found, right = torch.tensor([[3, 1], [2, 0]]), torch.tensor([1, 2])
    assert (share_within(found, right, 1), share_within(found, right, 2)) == (0.5, 1.0)


def test_the_page_is_written(tmp_path: Path) -> None:
    page = tmp_path / systems_page.PAGE
    page.write_text(f"before\n{systems_page.BEGIN}old\n{systems_page.END}after\n", encoding="utf-8")
    machine = {
        "cpu": "a", "threads": 2, "torch": "2", "scav_kernels": "1", "commit": "0123456789abcdef", "fast_plaid": None
    }  # fmt: skip
    row = {
        "system": "pooled", "recall_at_1": 0.5, "recall_at_10": 1.0, "queries_per_second": 200.0, "index_bytes": 2e6,
        "extra_bytes": 3e6, "seconds_build": 1.0, "seconds_first": 0.5,
    }  # fmt: skip
    record = {
        "machine": machine, "beside_other_work": True, "clips": 100_000, "queries": 10, "dim": 8,
        "systems": [row, {"system": "other", "skipped": "no such module"}],
    }  # fmt: skip
    (tmp_path / "synthetic.json").write_text(json.dumps(record), encoding="utf-8")
    systems_page.write(tmp_path, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "100,000 synthetic clips, 10 queries, D = 8:" in text
    assert "| pooled | 50 | 100 | 200 | 5 | 2 | 3 | 1.5 |" in text
    assert "| other: no such module | – |" in text
    assert "no fast-plaid" in text
    assert "other work" in text
