"""Type checkers know the metrics and their options: a wrong name or value fails before the program runs."""

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from scav_kernels.metric_types import MetricName, MetricOptions
from scav_kernels.ops.registry import METRICS

ROOT = Path(__file__).resolve().parents[2]
CALLS = """\
from typing import assert_type

import torch

from scav_kernels import Alignment, alignment, cdist, nn, pad, pairwise_distance, topk
from scav_kernels.ops.convergence import Convergence

x = torch.randn(2, 5, 3)
assert_type(cdist(x, x), torch.Tensor)
assert_type(cdist(x, x, metric="dtw", band=2, cost="cosine"), torch.Tensor)
assert_type(pairwise_distance(x, x, metric="soft_dtw", gamma=0.5), torch.Tensor)
assert_type(cdist(x, x, metric="sinkhorn", return_convergence=True), tuple[torch.Tensor, Convergence])
assert_type(pairwise_distance(x, x, metric="sinkhorn", return_convergence=True), tuple[torch.Tensor, Convergence])
assert_type(cdist(x, x, metric="sinkhorn_divergence", return_convergence=True), tuple[torch.Tensor, Convergence])
assert_type(topk(x, x, 1, metric="interpolated_euclidean", squared=True).indices, torch.Tensor)
assert_type(cdist(x, x, metric="sinkhorn", x_weights=x[..., 0].exp(), scaling=0.5), torch.Tensor)
assert_type(alignment(x, x, metric="soft_dtw", gamma=0.5), Alignment)
assert_type(pad([x[0], x[1]]), tuple[torch.Tensor, torch.Tensor])
assert_type(pad(x, x[:, :, 0] > 0), tuple[torch.Tensor, torch.Tensor])
nn.SequenceDistance("sinkhorn_divergence", epsilon=0.1, max_iterations=10, tolerance=0.0)
nn.SequenceContrastiveLoss("interpolated_euclidean", scale=10.0, resample="y")
"""
WRONG_CALLS = [
    'cdist(x, x, metric="dwt")',
    'pairwise_distance(x, x, metric="dwt")',
    'topk(x, x, 1, metric="dwt")',
    'nn.SequenceDistance("dwt")',
    'nn.SequenceContrastiveLoss(metric="dwt")',
    'cdist(x, x, metric="dtw", bnad=2)',
    'topk(x, x, 1, metric="dtw", band="2")',
    'nn.SequenceDistance("soft_dtw", gamma="small")',
    'cdist(x, x, metric="dtw", return_convergence=True)',
    'alignment(x, x, metric="dwt")',
    "pad([x[0]], x[0] > 0)",
]


def named_options(metric: str) -> list[str]:
    """All but the one that changes the type of the result, which overloads name."""
    return [name for name in METRICS[metric].keywords() if name != "return_convergence"]


def test_every_metric_is_named() -> None:
    assert set(get_args(MetricName)) == set(METRICS)


@pytest.mark.parametrize("metric", METRICS)
def test_every_option_has_the_type_of_its_function(metric: str) -> None:
    expected = get_type_hints(METRICS[metric].all_pairs)
    declared = get_type_hints(MetricOptions)
    options = named_options(metric)
    assert {name: declared.get(name) for name in options} == {name: expected[name] for name in options}


def test_no_other_option_is_named() -> None:
    assert set(get_type_hints(MetricOptions)) == {name for metric in METRICS for name in named_options(metric)}


@pytest.mark.slow
def test_mypy_accepts_right_calls_and_refuses_wrong_ones(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(CALLS)
    wrong.write_text(CALLS + "\n".join(WRONG_CALLS) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--no-pretty", "--hide-error-context"]
    done = subprocess.run([*command, str(right), str(wrong)], cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"(\w+\.py:\d+): error: ", done.stdout)
    first = len(CALLS.splitlines()) + 1
    expected = [f"wrong.py:{first + index}" for index in range(len(WRONG_CALLS))]
    assert list(dict.fromkeys(found)) == expected, done.stdout + done.stderr
