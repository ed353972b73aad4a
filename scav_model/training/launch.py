"""Devices, precision and processes, by Lightning Fabric; switches of PyTorch that hold for a whole run."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from scav_model.config import ComputeConfig, Config
from scav_model.devices import to_device

PRECISIONS: dict[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
# How long processes wait for one that searches a large gallery alone. A dead one is noticed at once, by torchrun.
PATIENCE = timedelta(hours=6)


def launch(config: Config) -> Fabric:
    """This process's device and precision; under torchrun, its place among the others, who are waited for."""
    device = to_device(config.device)
    kind = device.type
    # PyTorch types it as an int, and it is None where the name has none.
    index: int | None = device.index
    devices: Any = 1 if index is None or kind == "cpu" else [index]
    nodes, strategy = 1, "auto"
    if torch.distributed.is_torchelastic_launched():
        if index is not None:
            raise ValueError(
                f"device must be {kind} under torchrun, which gives each process its own, got {config.device}"
            )
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        strategy = DDPStrategy(timeout=PATIENCE)  # type: ignore[assignment]
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        precision=PRECISIONS[config.compute.precision],
    )
    fabric.launch()
    if torch.distributed.is_torchelastic_launched():
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    """Join gloo's threads while there is an interpreter: one that is still letting go of a tensor when that ends aborts
    the process, and with it a run that was done."""
    # A graph that is still around would hold the group, and its threads.
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def numerics(config: ComputeConfig) -> Iterator[None]:
    """The config's precision of float32 products and determinism, then again what was set before."""
    matmul = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_float32_matmul_precision(config.matmul)
    if config.deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
