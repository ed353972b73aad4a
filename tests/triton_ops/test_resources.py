"""The CUDA kernels compile for each architecture, within the registers and shared memory that resources.json says."""

import json

import pytest
import triton

from .resources import ARCHITECTURES, OPERANDS, TABLE, compiled, launches, measure

pytestmark = pytest.mark.slow

RECORDED = json.loads(TABLE.read_text())
TENSOR_CORES = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


@pytest.mark.skipif(triton.__version__ != RECORDED["triton"], reason="resources.json is another Triton's")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("operands", OPERANDS)
def test_shipped_kernels(operands: str, architecture: int) -> None:
    found = measure(operands, architecture)
    assert found == RECORDED["kernels"][f"{operands} sm_{architecture}"], "python -m tests.triton_ops.resources --write"


@pytest.mark.parametrize("entry", RECORDED["kernels"])
def test_nothing_spills_and_tensor_cores_multiply(entry: str) -> None:
    operands, _, architecture = entry.partition(" sm_")
    for name, kernel in RECORDED["kernels"][entry].items():
        assert kernel["stack"] == 0, name
        if name.split()[0] in ("add_distances", "find_weights", "add_products") and operands not in (
            "float32",
            "float64",
        ):
            assert TENSOR_CORES[int(architecture)] in kernel["tensor_cores"], name


@pytest.mark.parametrize(
    "options", [{"ragged": True}, {"squared": True}, {"paired": True}], ids=lambda options: next(iter(options))
)
def test_other_ways_compile(options: dict[str, bool]) -> None:
    for launch in launches("bfloat16", **options):
        assert compiled(launch, 90).stack == 0, str(launch)
