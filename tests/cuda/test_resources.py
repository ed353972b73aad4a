"""The CUDA kernels, compiled without a GPU, are held to what they take of one."""

import json

import pytest

import scav_kernels

from .resources import TABLE, Usage, measured, with_tensor_cores

pytestmark = pytest.mark.slow

if scav_kernels.build_info()["cuda_version"] is None:
    pytest.skip("built without CUDA kernels", allow_module_level=True)

HELD_TO: dict[str, dict[str, Usage]] = json.loads(TABLE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compiled() -> dict[str, dict[str, Usage]]:
    return measured()


@pytest.mark.parametrize("architecture", HELD_TO)
def test_resources(compiled: dict[str, dict[str, Usage]], architecture: str) -> None:
    if architecture not in compiled:
        pytest.skip(f"TORCH_CUDA_ARCH_LIST left {architecture} out")
    kernels, table = compiled[architecture], HELD_TO[architecture]
    assert kernels.keys() == table.keys(), "python -m tests.cuda.resources --write"
    for name, usage in kernels.items():
        assert usage["stack"] == 0, f"{name} spills"
        # Compilers of other minor versions allocate a little differently.
        assert usage["registers"] <= table[name]["registers"] + 8, name
        assert usage["shared"] <= table[name]["shared"], name


def test_fused_sweeps_multiply_by_tensor_cores(compiled: dict[str, dict[str, Usage]]) -> None:
    found = with_tensor_cores()
    assert found
    assert "sm_80" not in found, "the fused form is sm_90's and later ones'"
    for architecture, kernels in found.items():
        assert kernels == {name for name in compiled[architecture] if name.startswith("sweep_fused")}


def test_build_info_names_the_architectures() -> None:
    assert scav_kernels.build_info()["cuda_architectures"]
