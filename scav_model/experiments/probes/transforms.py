"""Disturbances of a clip's time: pure functions (steps (T, D), strength, random) -> (T', D), T' = T but for `crop`.

strength s runs from 0, which returns the very same values, to 1. Positions are counted in steps from 0. Shares of T are
rounded to whole steps (halves to even), as Python's `round` does. `random` is drawn from in the same way whatever the
strength, so that a clip that is warped backwards at 0.2 is warped backwards at 0.4, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

Disturb: TypeAlias = Callable[[Tensor, float, Generator], Tensor]


def shift(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """Late by k = round(s·T) steps: out[t] = x[max(0, t − k)]. The first step fills the gap; the last k are lost."""
    places = torch.arange(len(steps), device=steps.device) - round(strength * len(steps))
    return steps[places.clamp(min=0)]


def roll(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """Late by k = round(s·T / 2) steps, around the end: out[t] = x[(t − k) mod T]. No step is lost.

    Further than half a clip late is less than half a clip early, hence the 2.
    """
    return steps.roll(round(strength * len(steps) / 2), 0)


def crop(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """round(s·T) steps are cut off the two ends: T' = max(1, T − round(s·T)) in a row are left, from a random start."""
    kept = cropped_length(len(steps), strength)
    start = _start(len(steps), kept, random)
    return steps[start : start + kept]


def cropped_length(steps: int, strength: float) -> int:
    return max(1, steps - round(strength * steps))


def warp(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """A smooth, monotone change of speed, from slow to fast or, as often, from fast to slow.

    With u = (t + ½) / T, out[t] is x at the position t ± T·(s/π)·sin(πu), linear between steps and held beyond the
    outer two. The speed is 1 ± s·cos(πu) and so never negative; both ends stay in place, and the middle moves furthest,
    by s/π of the clip.
    """
    total = len(steps)
    sign = random.choice((-1.0, 1.0))
    time = torch.arange(total, dtype=torch.float64)
    moved = time + sign * total * strength / math.pi * torch.sin(math.pi * (time + 0.5) / total)
    moved = moved.clamp(0, total - 1)
    before = moved.floor().long()
    share = (moved - before).to(steps).unsqueeze(1)  # (T, 1)
    before = before.to(steps.device)
    return torch.lerp(steps[before], steps[(before + 1).clamp(max=total - 1)], share)


def reverse(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """round(s·T) steps in a row, from a random start, are played backwards where they stand."""
    turned = round(strength * len(steps))
    start = _start(len(steps), turned, random)
    return torch.cat((steps[:start], steps[start : start + turned].flip(0), steps[start + turned :]))


def permute(steps: Tensor, strength: float, random: Generator) -> Tensor:
    """In ascending order of (1 − s)·t + s·T·u[t], with u[t] uniform in [0, 1).

    Two steps that are at least s·T / (1 − s) apart keep their order, nearer ones may change it. With s = 1 all orders
    are equally likely.
    """
    total = len(steps)
    keys = (1 - strength) * np.arange(total) + strength * total * random.random(total)
    return steps[torch.from_numpy(keys.argsort(kind="stable")).to(steps.device)]


def _start(total: int, chosen: int, random: Generator) -> int:
    """Draw the start of `chosen` consecutive steps among `total`, uniformly."""
    return int(random.random() * (total - chosen + 1))


def same_length(steps: int, strength: float) -> int:
    return steps


@dataclass(frozen=True)
class Transformation:
    """A disturbance with what is needed to announce it."""

    apply: Disturb
    axis: str  # what its strength is, as a plot's axis says it
    length: Callable[[int, float], int] = same_length  # T' from T and the strength


TRANSFORMATIONS = {
    "shift": Transformation(shift, "delay, share of the clip (first step held)"),
    "roll": Transformation(roll, "delay around the end, share of half the clip"),
    "crop": Transformation(crop, "share of the clip cut off", cropped_length),
    "warp": Transformation(warp, "s in speed 1 ± s·cos(πu), u from 0 to 1"),
    "reverse": Transformation(reverse, "share of the clip played backwards"),
    "permute": Transformation(permute, "s in the order by (1 − s)·t + s·T·u, u random"),
}
