"""A pytest plugin, `-p tests.gpu.plugin`: CPU tensors are answered by the GPU's kernels; the op suite asks them."""

from typing import Any

import torch
from torch import Tensor

import scav_kernels  # noqa: F401  (registers what is replaced here)

OF_COSTS = ("dtw", "soft_dtw", "sinkhorn")
OPS = [
    f"{op}{suffix}"
    for op in (
        "interpolated_euclidean",
        "interpolated_cosine",
        "chamfer",
        *OF_COSTS,
        *(f"{metric}_from_cost" for metric in OF_COSTS),
    )
    for suffix in ("", "_backward")
]


def on_gpu(name: str) -> Any:
    def moved(*args: Any) -> Any:
        result = getattr(torch.ops.scav, name).default(*(a.cuda() if isinstance(a, Tensor) else a for a in args))
        return tuple(part.cpu() for part in result) if isinstance(result, tuple) else result.cpu()

    return moved


for _name in OPS:
    torch.library.impl(f"scav::{_name}", "CPU", on_gpu(_name))
