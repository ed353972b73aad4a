"""Tests that need a GPU. The op suite itself runs there through tests/gpu/plugin.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import scav_kernels
from tests.ops.cases import CASES, CORE, Case
from tests.ops.inputs import Shape, answer, sequences
from tests.ops.tolerances import assert_same_up_to_rounding, assert_within, floor, magnification

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
ROOT = Path(__file__).resolve().parents[2]
MiB = 2**20


# A length out of range cannot raise on a GPU; resampled rows are rounded to the dtype of half precision that is
# multiplied.
NOT_A_GPUS = (
    "not (test_bad_input and (zero or negative or long or huge)) "
    "and not (test_half_precision and interpolated_euclidean)"
)


@pytest.mark.parametrize(
    "file",
    [
        "test_parity.py",
        "test_padding.py",
        "test_near_steps.py",
        "test_gradients.py",
        "test_from_cost.py",
        "test_blocked_ways.py",
        "test_closed_form.py",
        "test_extremes.py",
        "test_hard_numbers.py",
        "test_long_sequences.py",
        "test_errors.py",
    ],
)
def test_op_suite(file: str) -> None:
    command = [sys.executable, "-m", "pytest", f"tests/ops/{file}", "-q", "-p", "tests.gpu.plugin", "-k", NOT_A_GPUS]
    # The dispatcher warns that kernels are replaced.
    done = subprocess.run([*command, "-W", "ignore"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]


# 40,000 pairs give a thread to each; 64 a block.
@pytest.mark.parametrize(
    "shape", [Shape(b1=200, b2=200, n=20, m=18, d=16), Shape(b1=8, b2=8, n=70, m=300, d=16)], ids=str
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_on_the_cpu(case: Case, shape: Shape) -> None:
    given = sequences(shape, torch.float64)
    on_cpu = answer(case.kernel, given)
    on_gpu = answer(case.kernel, given.map(Tensor.cuda))
    assert_same_up_to_rounding(type(on_gpu)(*(part.cpu() for part in on_gpu)), on_cpu)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_two_runs_are_bit_identical(case: Case) -> None:
    given = sequences(Shape(b1=150, b2=250, n=50, m=62, d=64), torch.bfloat16).map(Tensor.cuda)
    for first, second in zip(answer(case.kernel, given), answer(case.kernel, given), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_on_another_stream(case: Case) -> None:
    given = sequences(Shape(b1=20, b2=30, n=40, m=50, d=32), torch.float32).map(Tensor.cuda)
    expected = answer(case.kernel, given)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        # Long enough that work on the default stream would come first.
        torch.cuda._sleep(10_000_000)
        actual = answer(case.kernel, given)
    stream.synchronize()
    for part, before in zip(actual, expected, strict=True):
        assert torch.equal(part, before)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_in_a_cuda_graph(case: Case) -> None:
    given = sequences(Shape(b1=20, b2=30, n=40, m=50, d=32), torch.float32).map(Tensor.cuda)
    x = given.x.detach().clone()

    def run() -> Tensor:
        return case.kernel(x, given.y.detach(), given.x_lengths, given.y_lengths)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    x.mul_(0.5)
    graph.replay()
    torch.testing.assert_close(captured, run(), rtol=0, atol=0)


class Extra:
    """The most bytes that were held at a time in the block, beyond those before it."""

    def __enter__(self) -> "Extra":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_: object) -> None:
        torch.cuda.synchronize()
        self.bytes = torch.cuda.max_memory_allocated() - self.before

    def check(self, own: int) -> None:
        """`own`: gradients as they are accumulated and returned, packed copies, the result, and what is saved of it."""
        assert self.bytes <= 512 * MiB + own, f"{self.bytes / MiB:.0f} MiB, of which {own / MiB:.0f} in and out"


@pytest.mark.parametrize("case", CORE, ids=str)
@pytest.mark.parametrize("shape", [(512, 512, 50, 62, 128), (2048, 512, 50, 62, 64), (8, 8, 2048, 2048, 64)], ids=str)
def test_extra_memory(case: Case, shape: tuple[int, ...]) -> None:
    b1, b2, n, m, d = shape
    x = torch.randn(b1, n, d, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    y = torch.randn(b2, m, d, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    case.kernel(x[:1, :2], y[:1, :2]).sum().backward()
    with Extra() as extra:
        out = case.kernel(x, y)
        out.sum().backward()
    extra.check(12 * (x.numel() + y.numel()) + (16 + 4 * n + n + m) * out.numel())


# A pair of which float64 costs alone do not fit the scratch. Few iterations: memory does not depend on them.
LONGEST = 8192
FEW = {"sinkhorn": {"max_iterations": 3}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CORE, ids=str)
def test_extra_memory_of_one_long_pair(case: Case, dtype: torch.dtype) -> None:
    x, y = (torch.randn(1, LONGEST, 64, device="cuda", dtype=dtype, requires_grad=True) for _ in range(2))
    options = FEW.get(case.metric, {})
    case.kernel(x[:, :2], y[:, :2], **options).sum().backward()
    x.grad = y.grad = None
    own = 4 * (x.nbytes + y.nbytes) + 8 * LONGEST
    if dtype.itemsize == 2:
        own *= 2
    with Extra() as forward:
        out = case.kernel(x, y, **options)
    forward.check(own)
    with Extra() as backward:
        out.sum().backward()
    backward.check(own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_extra_memory_of_long_costs(metric: str, dtype: torch.dtype) -> None:
    cost = torch.rand(1, 1, LONGEST, LONGEST, device="cuda", dtype=dtype, requires_grad=True)
    distance = getattr(scav_kernels, f"{metric}_from_cost")
    with Extra() as forward:
        out = distance(cost, **FEW.get(metric, {}))
    forward.check(0)
    with Extra() as backward:
        out.sum().backward()
    backward.check(cost.nbytes)


@pytest.mark.parametrize("case", CORE, ids=str)
def test_one_long_pair_as_on_the_cpu(case: Case) -> None:
    given = sequences(Shape(b1=1, b2=1, n=7400, m=7000, d=8, ragged=False), torch.float64)
    options = {"epsilon": 1.0, "max_iterations": 10, "tolerance": 0.0} if case.metric == "sinkhorn" else {}

    def distance(*of: Tensor | None) -> Tensor:
        return case.kernel(*of, **options)

    on_cpu, on_gpu = answer(distance, given), answer(distance, given.map(Tensor.cuda))
    allowed = floor(torch.float64, 7400, magnification(case, on_cpu))
    for part, on, expected in zip(on_cpu._fields, on_gpu, on_cpu, strict=True):
        assert_within(part, on.cpu(), expected, allowed, torch.float64)


def test_a_long_pair_in_a_cuda_graph() -> None:
    """Forward and backward, with parts and, of Sinkhorn, iterations that the host launches."""
    for metric in ("dtw", "soft_dtw", "sinkhorn"):
        x, y = (torch.randn(1, 7400, 8, device="cuda", dtype=torch.float64, requires_grad=True) for _ in range(2))

        def run(metric: str = metric, x: Tensor = x, y: Tensor = y) -> tuple[Tensor, ...]:
            out = scav_kernels.cdist(x, y, metric=metric, **FEW.get(metric, {}))
            return out.detach(), *torch.autograd.grad(out.sum(), (x, y))

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run()
        with torch.no_grad():
            x.mul_(0.5)
        graph.replay()
        for part, expected in zip(captured, run(), strict=True):
            assert torch.equal(part, expected), metric


@pytest.mark.parametrize("case", CORE, ids=str)
def test_more_than_2_to_the_31_cells(case: Case) -> None:
    x = torch.randn(1024, 50, 16, device="cuda", dtype=torch.bfloat16)
    y = torch.randn(1024, 62, 16, device="cuda", dtype=torch.bfloat16)
    assert len(x) * len(y) * x.shape[1] * y.shape[1] > 2**31
    out = case.kernel(x, y)
    for rows, columns in ((slice(0, 4), slice(0, 4)), (slice(-4, None), slice(-4, None))):
        torch.testing.assert_close(out[rows, columns], case.kernel(x[rows], y[columns]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_more_than_2_to_the_31_given_costs(metric: str) -> None:
    cost = torch.rand(4, 4, 12_000, 12_000, device="cuda")
    assert cost.numel() > 2**31
    distance = getattr(scav_kernels, f"{metric}_from_cost")
    options = FEW.get(metric, {})
    torch.testing.assert_close(distance(cost, **options)[-1:, -1:], distance(cost[-1:, -1:], **options))


def test_lengths_out_of_range_are_nan() -> None:
    x, y = torch.randn(3, 5, 4, device="cuda"), torch.randn(2, 6, 4, device="cuda")
    for metric in ("interpolated_euclidean", "interpolated_cosine", "dtw", "soft_dtw", "sinkhorn", "chamfer"):
        out = scav_kernels.cdist(x, y, torch.tensor([5, 6, 0], device="cuda"), metric=metric)
        assert out.isnan().tolist() == [[False] * 2, [True] * 2, [True] * 2]


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck"])
def test_compute_sanitizer(tool: str) -> None:
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("no compute-sanitizer")
    code = """
import torch, scav_kernels
for b in (3, 200):
    x, y = torch.randn(b, 40, 8, device="cuda", requires_grad=True), torch.randn(b, 35, 8, device="cuda")
    for metric in ("dtw", "soft_dtw", "sinkhorn", "chamfer"):
        scav_kernels.cdist(x, y, metric=metric).sum().backward()
    ends = {"open_begin": True, "open_end": True}
    scav_kernels.dtw(x, y, normalize="path", **ends).sum().backward()
    scav_kernels.soft_dtw(x, y, **ends).sum().backward()
    scav_kernels.sinkhorn(x, y, x_weights=torch.rand_like(x[..., 0]), scaling=0.5).sum().backward()
# Pairs that are cut into parts.
x = torch.randn(1, 5200, 1, device="cuda", dtype=torch.float64, requires_grad=True)
scav_kernels.soft_dtw(x, x[:, :3000].detach()).sum().backward()
scav_kernels.sinkhorn(x, x.detach(), max_iterations=2).sum().backward()
torch.cuda.synchronize()
"""
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    # Memory that torch keeps and gives again would hide what reads beyond its own.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if "not supported" in done.stdout:
        pytest.skip("compute-sanitizer does not support this device")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
