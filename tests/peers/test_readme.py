"""The lines that README.md offers in place of other libraries' compute what those compute."""

import re
from pathlib import Path

import geomloss
import ot.batch
import pysdtw
import pytest
import torch
import torchdtw
import tslearn.metrics
from torch import Tensor
from torch.nn import functional

import scav_kernels.nn

README = Path(__file__).parents[2] / "README.md"
LINES = re.findall(r"^```diff\n-(.*)\n\+(.*)\n```$", README.read_text(encoding="utf-8"), re.MULTILINE)
# Relative. Sinkhorn's stop at small errors by rules of their own, GeomLoss at larger ones.
TOLERANCES = {"F": 1e-3, "geomloss": 3e-2, "ot": 1e-3, "pysdtw": 1e-5, "torchdtw": 1e-5, "tslearn": 1e-5}
NOT_INSTALLED = ["SoftDTW", "pylate"]


def library(line: str) -> str:
    return re.split(r"[.(]", line.split(" = ")[1])[0]


def run(line: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, 20, 8, generator=generator) / 8**0.5 for _ in range(2))
    names = {
        "torch": torch,
        "F": functional,
        "scav_kernels": scav_kernels,
        "geomloss": geomloss,
        "ot": ot,
        "pysdtw": pysdtw,
        "torchdtw": torchdtw,
    }
    names |= {"tslearn": tslearn, "x": x, "y": y}
    names |= {"x_lengths": torch.tensor([20, 1, 7, 12]), "y_lengths": torch.full((4,), 20)}
    exec(line, names)
    return torch.as_tensor(names[line.split(" = ")[0]])


def test_every_peer_has_its_lines() -> None:
    assert sorted(library(theirs) for theirs, _ in LINES) == sorted([*TOLERANCES, *NOT_INSTALLED])


@pytest.mark.parametrize(
    ("theirs", "ours"),
    # pysdtw compiles for five seconds.
    [
        pytest.param(*line, id=library(line[0]), marks=[pytest.mark.slow] if library(line[0]) == "pysdtw" else [])
        for line in LINES
    ],
)
def test_lines_compute_the_same(theirs: str, ours: str) -> None:
    value = run(ours)
    assert value.isfinite().all()
    if library(theirs) not in NOT_INSTALLED:
        expected = run(theirs)
        torch.testing.assert_close(value, expected, rtol=TOLERANCES[library(theirs)], atol=0, check_dtype=False)
