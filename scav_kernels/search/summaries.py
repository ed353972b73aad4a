"""Summaries of sequences, which bounds compare: means of segments, in few coordinates.

Neither map lengthens a distance, so a distance between summaries is at most that between the sequences.
"""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Level(NamedTuple):
    """A bound by means of `segments` segments, in `rank` coordinates."""

    segments: int
    rank: int

    @property
    def name(self) -> str:
        return "pooled vectors" if self.segments == 1 else f"means of {self.segments} segments"


# The bounds of all pairs of a block, and the finest, of the remaining pairs. Its segments are parts of all others.
DENSE = (Level(1, 16), Level(4, 16), Level(16, 8))
LISTED = Level(32, 16)


def principal_directions(sample: Tensor, count: int) -> Tensor:
    """Return (count, D) orthonormal directions in which steps (L, D) vary most, in descending order."""
    sample = sample[sample.isfinite().all(1)].double()
    scale = sample.abs().max().clamp(min=1e-300) if sample.numel() else 1.0
    sample = sample / scale
    # Ascending.
    return torch.linalg.eigh(sample.T @ sample).eigenvectors.T.flip(0)[:count]


def project(rows: Tensor, directions: Tensor) -> Tensor:
    """Return coordinates along R − 1 directions (R − 1, D), and the length of the rest: (…, D) -> (…, R).

    If R is not less than D, return the rows.
    """
    if len(directions) + 1 >= rows.shape[-1]:
        return rows
    along = rows @ directions.T
    rest = rows - along @ directions
    return torch.cat([along, rest.norm(dim=-1, keepdim=True)], -1)


def rotate(steps: Tensor, directions: Tensor) -> Tensor:
    """Rotate each sequence into its own coordinates: (B, N, D) -> (B, N, C), C = K + N.

    The first K are along all directions (K, D). The others span the rest of the sequence's steps. Linear combinations
    of a sequence's steps keep their lengths. If C is not less than D, return the steps.
    """
    if len(directions) + steps.shape[1] >= steps.shape[2]:
        return steps
    along = steps @ directions.T
    rest = steps - along @ directions
    # The kernels read contiguous rows; `cat` would keep the strides of its inputs.
    return torch.cat([along, torch.linalg.qr(rest.mT, mode="r").R.mT.contiguous()], -1).contiguous()


def project_rotated(rows: Tensor, rank: int) -> Tensor:
    """Return `project` of linear combinations of steps that `rotate` returned: (…, C) -> (…, R)."""
    return torch.cat([rows[..., : rank - 1], rows[..., rank - 1 :].norm(dim=-1, keepdim=True)], -1)


def edges(target: int, segments: int) -> list[int]:
    """Return where each segment of `target` steps begins, and where the last one ends."""
    return [target * s // segments for s in range(segments + 1)]


@lru_cache(maxsize=1024)
def _coarser(target: int, fine: int, segments: int, squared: bool) -> Tensor:
    """Return weights (S, F) that turn means of `fine` segments into those of `segments` coarser ones."""
    ends = edges(target, fine)
    sizes = torch.tensor(ends, dtype=torch.float64).diff()
    rows = []
    for begin, end in pairwise(edges(target, segments)):
        inside = torch.tensor([begin <= first and last <= end for first, last in pairwise(ends)])
        weights = (sizes / (end - begin)).sqrt() if squared else torch.ones_like(sizes)
        rows.append(weights * inside)
    return torch.stack(rows)


def coarser_means(means: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """Return `segment_means` of fewer segments (B, S, D), from those of F segments (B, F, D).

    S divides F, or the F segments are single steps.
    """
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
    """Return weights (longest + 1, S, longest) of sequences of each length, zero beyond it."""
    padded = torch.zeros(longest + 1, segments, longest, dtype=torch.float64)
    for length in range(1, longest + 1):
        padded[length, :, :length] = _segment_means(length, target, segments, squared)
    return padded


def ragged_segment_means(steps: Tensor, lengths: Tensor, target: int, segments: int, squared: bool) -> Tensor:
    """Return `kernels.segment_means` of sequences (B, N, D) that are zero beyond their lengths (B,), by one product."""
    weights = _means_of_all_lengths(steps.shape[1], target, segments, squared)
    return torch.matmul(weights.to(steps)[lengths], steps)
