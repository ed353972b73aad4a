"""The CUDA sources, run on the CPU by the shim of simt.h: the op suite asks them what it asks the CPU's kernels.

Products are the CPU's; where a GPU would multiply bfloat16 into float32, both are widened first. Everything else is the
kernels' own code and that of their launches. AddressSanitizer and UndefinedBehaviorSanitizer watch.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simt.build import ROOT, build

pytestmark = pytest.mark.slow

# Of the shim's settings: the first gives every pair a thread, the second every pair a block, in several tiles.
LANES = {"MULTIPROCESSORS": "0"}
WAVEFRONT = {"MULTIPROCESSORS": "1000000", "SCRATCH_BYTES": "20000"}
NOT_OURS = "not interpolated_euclidean and not interpolated_cosine and not divergence"
# Lengths out of range cannot raise on a GPU without waiting for it.
NO_LENGTHS = "not zero and not negative and not long and not huge"


@pytest.fixture(scope="module")
def library() -> Path:
    return build()


def preload() -> str:
    """The sanitizers' runtime, which must come before everything else."""
    names = ("libasan.so", "libstdc++.so.6")
    return " ".join(
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in names
    )


def run(*command: str, **settings: str) -> str:
    return run_python("-m", *command, **settings)


def run_python(*arguments: str, **settings: str) -> str:
    environment = {
        **os.environ,
        **{f"SCAV_SIMT_{name}": value for name, value in settings.items()},
        "LD_PRELOAD": preload(),
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # The plugins that the outer run had asked for.
        "PYTEST_ADDOPTS": "",
    }
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return done.stdout


def run_suite(files: str, select: str, **settings: str) -> None:
    paths = [f"tests/ops/{file}.py" for file in files.split()]
    # The dispatcher warns, once, that kernels are replaced.
    run("pytest", *paths, "-q", "-p", "tests.simt.plugin", "-W", "ignore", "-k", select, **settings)


PARITY = (
    "(test_every_size or test_paired) and float32 or test_every_option and float64 or test_half_precision "
    "or test_near_steps and not float64"
)
REST = "test_padding and float32 or test_gradcheck"
OPTIONS = "test_given_costs or test_sequences or test_soft_dtw or test_paths or forbidden"
# Weights out of range cannot raise; the rest is not the kernels'.
WEIGHTS = " and ".join(
    f"not {name}"
    for name in ("bad", "zeros_in", "opcheck", "compile", "export", "topk", "vmap", "jacobians", "made_anew")
)


# Few processes, as each takes seconds to start.
@pytest.mark.parametrize(
    ("files", "select"),
    [
        ("test_parity test_near_steps", PARITY),
        ("test_padding test_gradients", REST),
        ("test_sinkhorn_convergence test_short_steps", "not made_anew and not compiled and not float64"),
        ("test_dtw_options", OPTIONS),
        ("test_sinkhorn_weights", WEIGHTS),
    ],
    ids=["parity", "rest", "convergence", "options", "weights"],
)
def test_op_suite(library: Path, files: str, select: str) -> None:
    run_suite(files, f"{NOT_OURS} and ({select})", **WAVEFRONT)


def test_op_suite_of_lanes(library: Path) -> None:
    select = f"{NOT_OURS} and not sinkhorn and not paired and ({PARITY} or {REST})"
    run_suite("test_parity test_near_steps test_padding test_gradients", select, **LANES)


@pytest.mark.parametrize("files", ["test_from_cost", "test_blocked_ways test_errors test_extremes"])
def test_op_suite_of_one_path(library: Path, files: str) -> None:
    run_suite(files, f"{NOT_OURS} and {NO_LENGTHS} and not float64 and not opcheck and not threads", **WAVEFRONT)


def test_op_suite_of_fused_sweeps(library: Path) -> None:
    run_suite(
        "test_parity", f"{NOT_OURS} and not sinkhorn and test_half_precision", MULTIPROCESSORS="0", BLOCK_PAIRS="0"
    )


def test_lengths_out_of_range_are_nan(library: Path) -> None:
    code = """
import torch
import tests.simt.plugin
import scav_kernels
x, y, cost = torch.randn(3, 5, 4), torch.randn(2, 6, 4), torch.rand(3, 2, 5, 6)
lengths = torch.tensor([5, 6, 0])
for metric in ("dtw", "soft_dtw", "sinkhorn", "chamfer"):
    results = [scav_kernels.cdist(x, y, lengths, metric=metric)]
    if metric != "chamfer":
        results.append(getattr(scav_kernels, f"{metric}_from_cost")(cost, lengths))
    for out in results:
        assert out.isnan().tolist() == [[False] * 2, [True] * 2, [True] * 2], (metric, out)
"""
    run_python("-W", "ignore", "-c", code)


def test_weights_out_of_range_are_nan(library: Path) -> None:
    code = """
import torch
import tests.simt.plugin
import scav_kernels
x, y, cost = torch.randn(4, 5, 4), torch.randn(2, 6, 4), torch.rand(4, 2, 5, 6)
weights = torch.ones(4, 5)
weights[0, 1], weights[1, 2], weights[2] = -1, torch.inf, 0
for out in (scav_kernels.sinkhorn(x, y, x_weights=weights), scav_kernels.sinkhorn_from_cost(cost, x_weights=weights)):
    assert out.isnan().tolist() == [[True] * 2] * 3 + [[False] * 2], out
"""
    run_python("-W", "ignore", "-c", code)


@pytest.mark.parametrize("settings", [LANES, WAVEFRONT], ids=["lanes", "wavefront"])
def test_the_order_of_threads_changes_nothing(library: Path, settings: dict[str, str]) -> None:
    """Threads that wait for nobody run in any order."""
    run("tests.simt.answers", **settings)


@pytest.mark.parametrize("module", ["fused", "packed"])
def test_against_the_reference(library: Path, module: str) -> None:
    run(f"tests.simt.{module}")


@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn", "chamfer"])
def test_parts_against_the_reference(library: Path, metric: str) -> None:
    run("tests.simt.parts", metric)


def test_choices(library: Path) -> None:
    """The kernel chosen for each shape is the one that docs/engineering/kernels.md names."""
    h200, a100, rtx = (132, 227 << 10), (108, 163 << 10), (128, 99 << 10)
    values, paths = 0, 4
    # B1, B2, N, M, D, paired, 16 bits, bytes saved of a column; multiprocessors, shared memory of a block
    sweeps = {
        (32, 32, 50, 62, 512, False, False, values, *h200): "wavefront",
        (8, 8, 50, 62, 512, False, False, values, *h200): "wavefront",
        (128, 132, 50, 62, 512, False, False, values, *h200): "lanes",
        (128, 131, 50, 62, 512, False, False, values, *h200): "wavefront",
        (1024, 1024, 50, 62, 512, False, False, values, *h200): "lanes",
        (1024, 1024, 50, 62, 512, True, True, values, *h200): "wavefront",
        # Fused: of 16 bits,
        (1024, 1024, 50, 62, 512, False, True, values, *h200): "fused",
        (4096, 4096, 50, 62, 512, False, True, paths, *h200): "fused",
        (4096, 4096, 50, 62, 4096, False, True, paths, *h200): "fused",
        # on Hopper and later, by their shared memory,
        (4096, 4096, 50, 62, 512, False, True, values, *a100): "lanes",
        (4096, 4096, 50, 62, 512, False, True, values, *rtx): "lanes",
        # a block for each multiprocessor,
        (256, 256, 50, 62, 512, False, True, values, *h200): "lanes",
        (1056, 128, 50, 62, 512, False, True, values, *h200): "fused",
        (1048, 128, 50, 62, 512, False, True, values, *h200): "lanes",
        # at a time, with what it saves,
        (4096, 4096, 128, 128, 512, False, True, values, *h200): "fused",
        (4096, 4096, 128, 128, 512, False, True, paths, *h200): "wavefront",
        # and pairs in most of it.
        (100_000, 64, 50, 62, 512, False, True, values, *h200): "fused",
        (100_000, 63, 50, 62, 512, False, True, values, *h200): "lanes",
    }
    # N, M, bytes of a number and of what a cell takes beside K
    places = {
        (1, 32, 4, 4): "registers_32",
        (32, 32, 8, 8): "registers_32",
        (33, 1, 4, 4): "registers_64",
        (33, 1, 8, 8): "memory",
        (50, 62, 4, 4): "registers_64",
        (64, 65, 4, 4): "registers_128",
        (128, 128, 4, 4): "registers_128",
        (129, 1, 4, 4): "memory",
        (7000, 7000, 4, 4): "memory",
        (8192, 8192, 4, 4): "none",
        (8192, 8192, 4, 0): "memory",
        (8192, 8192, 8, 0): "none",
    }
    code = f"""
import torch
torch.ops.load_library({str(library)!r})
print([torch.ops.scav_simt.sweep(*shape) for shape in {list(sweeps)}])
print([torch.ops.scav_simt.kernel_place(*shape) for shape in {list(places)}])
"""
    lines = run_python("-W", "ignore", "-c", code).splitlines()
    assert lines == [str(list(sweeps.values())), str(list(places.values()))]


def test_no_pair_takes_more_than_the_scratch(library: Path) -> None:
    """Pairs of up to 8192 steps on a side, in any dtype; pairs that fit are not cut."""
    budget = 384 << 20
    # Bytes of a cell's cost and, backward, weight.
    passes = {"dtw": 1, "soft_dtw": 1, "soft_dtw_backward": 2, "sinkhorn": 1, "sinkhorn_backward": 2}
    cells = [(kind, element, parts * element) for kind, parts in passes.items() for element in (4, 8)]
    # Of 16-bit inputs, weights have 2 bytes, or 4.
    cells += [("soft_dtw_backward_of_16_bits", 4, 4 + weight) for weight in (2, 4)]
    shapes = [
        (kind, n, m, element, cell)
        for kind, element, cell in cells
        for n, m in ((8192, 8192), (8192, 100), (100, 8192), (4000, 8192), (8191, 8191), (1, 1))
    ]
    code = f"""
import torch
torch.ops.load_library({str(library)!r})
print([torch.ops.scav_simt.part(*shape) for shape in {shapes}])
"""
    parts = ast.literal_eval(run_python("-W", "ignore", "-c", code).splitlines()[-1])
    for shape, (rows, held) in zip(shapes, parts, strict=True):
        _, n, m, _, cell = shape
        assert held <= budget, shape
        assert rows >= n or n * m * cell > budget // 3, shape
    cut = {shape[0] for shape, (rows, _) in zip(shapes, parts, strict=True) if rows < shape[1]}
    assert cut == {kind for kind, _, _ in cells}, "of everything, some pairs of 8192 x 8192 steps take parts"
