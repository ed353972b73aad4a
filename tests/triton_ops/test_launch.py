"""Launch parameters and chunks are plain functions of shapes, memory is bounded, and Triton stays out until needed."""

import subprocess
import sys
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scav_kernels._triton import interpolated_euclidean as kernels
from scav_kernels._triton import packing

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.parametrize(
    ("sources", "targets", "features", "size", "tensor_cores", "expected"),
    [
        (4096, 4096, 512, 2, True, packing.Tile(128, 128, 64, 8, 3)),
        (4096, 4096, 512, 4, True, packing.Tile(128, 128, 32, 8, 3)),
        (4096, 4096, 512, 4, False, packing.Tile(64, 64, 16, 8, 2)),
        (4096, 100, 512, 2, True, packing.Tile(128, 64, 64, 4, 3)),
        (32, 32, 17, 2, True, packing.Tile(32, 32, 32, 4, 3)),
        (1, 1, 1, 8, False, packing.Tile(16, 16, 16, 4, 2)),
    ],
)
def test_tiles(
    sources: int, targets: int, features: int, size: int, tensor_cores: bool, expected: packing.Tile
) -> None:
    assert packing.tile_for(sources, targets, features, size, tensor_cores) == expected


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("pass", "ieee"),
        ("torch.set_float32_matmul_precision('high')", "tf32"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "tf32"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "tf32"),
    ],
)
def test_float32_products_are_what_the_user_allows(setting: str, expected: str) -> None:
    """Of PyTorch's old and new settings a process may use only one kind."""
    code = f"import torch; {setting}\nfrom scav_kernels._triton import packing; print(packing.float32_precision())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == expected, run.stderr


@pytest.mark.parametrize("cell", [1, 1000, 3 * MIB, 40 * MIB])
@pytest.mark.parametrize(("steps", "sources"), [(1, 1), (62, 50), (7, 1000), (2048, 8)])
def test_chunks_cover_every_step_of_every_source_once(steps: int, sources: int, cell: int) -> None:
    seen = torch.zeros(steps, sources)
    for chunk in packing.chunks(steps, sources, 16, cell):
        seen[chunk.first_step : chunk.first_step + chunk.steps, chunk.first : chunk.first + chunk.sources] += 1
        assert chunk.first % 16 == 0
        bytes_needed = chunk.steps * packing.whole(chunk.sources, 16) * cell
        assert bytes_needed <= packing.SCRATCH or (chunk.steps == 1 and chunk.sources <= 16)
    assert (seen == 1).all()


class Memory(TorchDispatchMode):
    """Bytes of storages made and alive, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **kwargs or {})
        given = {value.untyped_storage()._cdata for value in args if isinstance(value, Tensor)}
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in given:
                size = made.untyped_storage().nbytes()
                self.alive += size
                self.most = max(self.most, self.alive)
                weakref.finalize(made.untyped_storage(), self.free, size)
        return result

    def free(self, size: int) -> None:
        self.alive -= size


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize(
    ("b1", "b2", "n", "m", "d"), [(15_000, 15_000, 50, 62, 512), (4096, 4096, 50, 62, 512), (8, 8, 20_000, 20_000, 64)]
)
def test_memory(b1: int, b2: int, n: int, m: int, d: int, ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta tensors: nothing is computed, and a call that waited for the device would raise."""
    x, y = (torch.empty(*shape, dtype=torch.bfloat16, device="meta") for shape in ((b1, n, d), (b2, m, d)))
    lengths = [torch.empty(batch, dtype=torch.int64, device="meta") if ragged else None for batch in (b1, b2)]
    grad = torch.empty(b1, b2, device="meta")
    inputs = sum(value.nbytes for value in (x, y))
    # Copies of x and y as packed, whole tiles of every length.
    copies = inputs * (2 if ragged else 1)
    # Not a mock, which would keep what it is called with.
    monkeypatch.setattr(packing, "launch", lambda *args, **arguments: None)
    with Memory() as forward:
        kernels.forward(x, y, *lengths, False, "x", False)
    assert forward.most <= grad.nbytes + copies + 512 * MIB
    with Memory() as backward:
        kernels.backward(grad, x, y, *lengths, False, "x", False, True, True)
    # Gradients in float32 and as returned, and a copy of the given one.
    assert backward.most <= 3 * inputs + 1.2 * grad.nbytes + copies + 512 * MIB


def test_triton_is_imported_by_the_first_cuda_call_alone() -> None:
    code = (
        "import sys, scav_kernels; assert 'triton' not in sys.modules\n"
        "sys.modules['scav_kernels.ops.interpolated_euclidean']._triton(); assert 'triton' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_triton_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    op = sys.modules["scav_kernels.ops.interpolated_euclidean"]
    monkeypatch.setitem(sys.modules, "scav_kernels._triton", None)
    with pytest.raises(RuntimeError, match="pip install triton"):
        op._triton()


@pytest.mark.parametrize("name", ["interpolated_euclidean", "interpolated_euclidean_backward"])
def test_registered_for_cuda_in_any_build(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"scav::{name}", "CUDA")
