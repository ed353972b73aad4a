"""The losses of an epoch's steps. Reading one makes the host wait for the device, so they are read now and then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

TOTAL = "loss"


class EpochMetrics:
    """Losses by name, a number for each step that had it; "loss" is their sum, which every step has."""

    def __init__(self, values: Mapping[str, list[float]] | None = None) -> None:
        self.values: dict[str, list[float]] = dict(values or {})
        self.pending: list[tuple[list[str], Tensor, list[int]]] = []

    def add(self, losses: Mapping[str, Tensor], clips: list[int]) -> None:
        """Add the detached losses of one step, and the indices of its clips; a single loss has the name of the sum."""
        values = torch.stack([loss.float() for loss in losses.values()])
        names = [TOTAL]
        if len(losses) > 1:
            names += [f"{TOTAL} {name}" for name in losses]
            values = torch.cat([values.sum()[None], values])
        self.pending.append((names, values, clips))

    def read(self) -> list[tuple[dict[str, float], list[int]]]:
        """Wait for the steps added since the last call, and return the losses and clips of each."""
        if not self.pending:
            return []
        numbers = iter(torch.cat([values for _, values, _ in self.pending]).tolist())
        steps = [({name: next(numbers) for name in names}, clips) for names, _, clips in self.pending]
        self.pending.clear()
        for losses, _ in steps:
            for name, value in losses.items():
                self.values.setdefault(name, []).append(value)
        return steps

    def means(self) -> dict[str, float]:
        return {name: math.fsum(values) / len(values) for name, values in self.values.items()}


def check_finite(losses: Mapping[str, float], step: int, epoch: int, ids: list[str]) -> None:
    """Raise RuntimeError if a loss is not finite; the message names the step's clips, whose ids are `ids`."""
    bad = [f"{name} became {value}" for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        shown = ", ".join(ids[:8]) + (", …" if len(ids) > 8 else "")
        raise RuntimeError(
            f"the {' and the '.join(bad)} in step {step} (epoch {epoch}), on {len(ids)} clips: {shown}; look for NaN "
            "in their features, or lower optim.learning_rate or loss.max_scale"
        )
