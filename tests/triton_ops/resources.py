"""Registers and shared memory of the Triton kernels, compiled without a GPU.

`python -m tests.triton_ops.resources --write` rewrites resources.json, which test_resources.py holds the kernels to.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
import triton.backends.nvidia
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from scav_kernels._triton import interpolated_euclidean as kernels
from scav_kernels._triton import packing

TABLE = Path(__file__).parent / "resources.json"
CUOBJDUMP = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
ARCHITECTURES = (80, 90, 100)
# Operands by name: dtype, and what float32 products may be.
OPERANDS = {
    "bfloat16": (torch.bfloat16, "ieee"),
    "float16": (torch.float16, "ieee"),
    "tf32": (torch.float32, "tf32"),
    "float32": (torch.float32, "ieee"),
    "float64": (torch.float64, "ieee"),
}
TENSOR_CORES = re.compile(r"\b(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\b")
POINTERS = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int8: "i8",
}
WAYS = ("CAREFUL", "OF_TARGETS", "OWN", "SORTED", "SQUARED")


class Launch(NamedTuple):
    kernel: Any
    arguments: dict[str, Any]

    def __str__(self) -> str:
        ways = [name.lower() for name in WAYS if self.arguments.get(name)]
        return " ".join([self.kernel.__name__, *ways])


class Compiled(NamedTuple):
    registers: int  # of a thread
    stack: int  # bytes of a thread: what does not fit into registers
    shared: int  # bytes of a program
    tensor_cores: list[str]  # instructions


def launches(operands: str, ragged: bool = False, squared: bool = False, paired: bool = False) -> Iterator[Launch]:
    """Of a forward and a backward call of the design's `batch`, each way once. Meta tensors: nothing is computed, and
    a call that waited for the device to answer would raise."""
    dtype, precision = OPERANDS[operands]
    x, y = torch.empty(256, 50, 512, dtype=dtype, device="meta"), torch.empty(256, 62, 512, dtype=dtype, device="meta")
    lengths = torch.empty(256, dtype=torch.int64, device="meta") if ragged else None
    made: dict[str, Launch] = {}

    def record(kernel: Any, programs: tuple[int, ...], **arguments: Any) -> None:
        launch = Launch(kernel, arguments)
        made.setdefault(str(launch), launch)

    with (
        mock.patch.object(packing, "launch", record),
        mock.patch.object(packing, "float32_precision", return_value=precision),
    ):
        result = kernels.forward(x, y, lengths, lengths, squared, "x", paired)
        kernels.backward(result, x, y, lengths, lengths, squared, "x", paired, True, True)
    yield from made.values()


def compiled(launch: Launch, architecture: int) -> Compiled:
    """Compile as Triton does at a launch: integers of 1 are constants, multiples of 16 known to be such."""
    options = {name: value for name, value in launch.arguments.items() if name in ("num_warps", "num_stages")}
    constants = {p.name: launch.arguments[p.name] for p in launch.kernel.params if p.is_constexpr}
    signature, attributes = {}, {}
    for place, name in enumerate(launch.kernel.arg_names):
        value = launch.arguments[name]
        if isinstance(value, Tensor):
            signature[name] = "*" + POINTERS[value.dtype]
        elif name in constants or value == 1:
            constants[name] = value
            signature[name] = "constexpr"
            continue
        else:
            signature[name] = "i32" if value < 2**31 else "i64"
        if isinstance(value, Tensor) or value % 16 == 0:
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    binary = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK"))
    instructions = sorted(set(TENSOR_CORES.findall(binary.asm["ptx"])))
    return Compiled(registers, stack, binary.metadata.shared, instructions)


# The kernels whose loops multiply.
HOT = ("add_distances", "find_weights", "add_products")


def shipped(operands: str, architecture: int) -> Iterator[Launch]:
    """Every kernel in bfloat16 and float64 on Hopper, where they are measured; elsewhere those that matter most."""
    for launch in launches(operands):
        everywhere = launch.kernel.__name__ in HOT and not launch.arguments.get("CAREFUL")
        if everywhere or (architecture == 90 and operands in ("bfloat16", "float64")):
            yield launch


def measure(operands: str, architecture: int) -> dict[str, dict[str, Any]]:
    return {str(launch): compiled(launch, architecture)._asdict() for launch in shipped(operands, architecture)}


def write() -> None:
    found = {
        f"{operands} sm_{architecture}": measure(operands, architecture)
        for operands in OPERANDS
        for architecture in ARCHITECTURES
    }
    TABLE.write_text(json.dumps({"triton": triton.__version__, "kernels": found}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
