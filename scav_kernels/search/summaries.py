"""What bounds compare in place of sequences: means over segments, in few coordinates.

Both maps shorten distances or keep them, so that a distance of summaries is at most that of what they summarise.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Level(NamedTuple):
    """A bound from the means of `segments` segments, in `rank` coordinates."""

    segments: int
    rank: int

    @property
    def name(self) -> str:
        return "pooled vectors" if self.segments == 1 else f"means of {self.segments} segments"


# Bounds of all pairs of a block, and the one of the pairs that they leave, which is the finest: its segments are parts
# of all others'.
DENSE = (Level(1, 16), Level(4, 16), Level(16, 8))
LISTED = Level(32, 16)


def principal_directions(sample: Tensor, count: int) -> Tensor:
    """(count, D) orthonormal directions, in which steps (L, D) vary most; the first matter most."""
    sample = sample[sample.isfinite().all(1)].double()
    scale = sample.abs().max().clamp(min=1e-300) if sample.numel() else 1.0
    sample = sample / scale
    # Ascending.
    return torch.linalg.eigh(sample.T @ sample).eigenvectors.T.flip(0)[:count]


def in_coordinates(rows: Tensor, directions: Tensor) -> Tensor:
    """(…, D) -> (…, R): coordinates along R − 1 directions (R − 1, D), and the length of the rest.

    Where R would not be less than D, the rows themselves.
    """
    if len(directions) + 1 >= rows.shape[-1]:
        return rows
    along = rows @ directions.T
    rest = rows - along @ directions
    return torch.cat([along, rest.norm(dim=-1, keepdim=True)], -1)


def turned(steps: Tensor, directions: Tensor) -> Tensor:
    """Sequences (B, N, D) in coordinates of their own, (B, N, C): first along all directions (K, D), then along as few
    others as hold the rest of each sequence's steps. No combination of a sequence's steps changes its length.

    Where C would not be less than D, the steps themselves.
    """
    if len(directions) + steps.shape[1] >= steps.shape[2]:
        return steps
    along = steps @ directions.T
    rest = steps - along @ directions
    # Side by side, as the kernels read them: `cat` would keep the strides of what it joins.
    return torch.cat([along, torch.linalg.qr(rest.mT, mode="r").R.mT.contiguous()], -1).contiguous()


def in_fewer(rows: Tensor, rank: int) -> Tensor:
    """`in_coordinates` of combinations of `turned` steps, (…, C) -> (…, R)."""
    return torch.cat([rows[..., : rank - 1], rows[..., rank - 1 :].norm(dim=-1, keepdim=True)], -1)


def edges(target: int, segments: int) -> list[int]:
    """Where each of the segments of `target` steps begins, and where the last one ends."""
    return [target * s // segments for s in range(segments + 1)]


@lru_cache(maxsize=1024)
def _coarser(target: int, fine: int, segments: int, squared: bool) -> Tensor:
    """(S, F) what makes means of `segments` segments of those of `fine`, each of which lies in one of the others."""
    ends = edges(target, fine)
    sizes = torch.tensor(ends, dtype=torch.float64).diff()
    rows = []
    for begin, end in pairwise(edges(target, segments)):
        inside = torch.tensor([begin <= first and last <= end for first, last in pairwise(ends)])
        weights = (sizes / (end - begin)).sqrt() if squared else torch.ones_like(sizes)
        rows.append(weights * inside)
    return torch.stack(rows)


def coarser_means(means: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """`segment_means` of fewer segments (B, S, D), from those of more (B, F, D) that S divides or that are single
    steps."""
    if segments >= means.shape[1]:
        return means
    return torch.matmul(_coarser(target, means.shape[1], segments, squared).to(means), means)


@lru_cache(maxsize=4096)
def _segment_means(length: int, target: int, segments: int, squared: bool) -> Tensor:
    steps = torch.eye(length, dtype=torch.float64)
    if length != target:
        steps = functional.interpolate(steps[None], size=target, mode="linear", align_corners=False)[0]
    rows = []
    for begin, end in pairwise(edges(target, segments)):
        share = (end - begin) / target
        rows.append(steps[:, begin:end].mean(1) * (share**0.5 if squared else share))
    return torch.stack(rows)


@lru_cache(maxsize=1024)
def _means_of_all_lengths(longest: int, target: int, segments: int, squared: bool) -> Tensor:
    """(longest + 1, S, longest): for each length, zero beyond it."""
    padded = torch.zeros(longest + 1, segments, longest, dtype=torch.float64)
    for length in range(1, longest + 1):
        padded[length, :, :length] = _segment_means(length, target, segments, squared)
    return padded


def ragged_segment_means(steps: Tensor, lengths: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """`kernels.segment_means` of sequences (B, N, D) of lengths (B,), zero beyond them, as one product of matrices."""
    weights = _means_of_all_lengths(steps.shape[1], target, segments, squared)
    return torch.matmul(weights.to(steps)[lengths], steps)
