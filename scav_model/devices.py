"""Devices by name."""

from __future__ import annotations

import torch


def parse_device(name: str | torch.device) -> torch.device:
    """Return the device of that name, whether this machine has it or not.

    Raises:
        ValueError: PyTorch has no device of that name, or no data can be on it.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"expected a device such as cpu, cuda or cuda:0, got {name!r}") from error
    if device.type == "meta":
        raise ValueError(f"expected a device that holds data, such as cpu, cuda or cuda:0, got {name!r}")
    return device


def to_device(name: str | torch.device) -> torch.device:
    """Return the device of that name, which this machine has.

    Raises:
        ValueError: as `parse_device`.
        RuntimeError: this machine lacks the device.
    """
    device = parse_device(name)
    if device.type == "cuda":
        _check_cuda(device)
    elif device.type != "cpu":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError) as error:
            reason = str(error).split("\n", 1)[0].split(". ", 1)[0]
            raise RuntimeError(f"device is {device}, but PyTorch cannot use it here ({reason}); use cpu") from error
    return device


def _check_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        raise RuntimeError(f"device is {device}, but PyTorch finds no CUDA GPU here; use cpu")
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise RuntimeError(f"device is {device}, but PyTorch finds {count} here; use {there}, or cpu")
