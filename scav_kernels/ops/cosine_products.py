"""Interpolated cosine distances on CUDA, of PyTorch's operations: products of unit steps by cuBLAS.

The distance of a pair is 1 − ⟨u, v⟩ / m over m steps and all features, with the unit steps u of the resampled sequence,
the source, and v of the other one, the target. So the distances from targets of one length are one product. Targets of
several lengths take a product for each possible length, or for each target if these are fewer, because no length is
read back from the device. With k possible lengths, products cost k times as much.

A few steps of a few sources exist at a time, in `SCRATCH` bytes beyond copies of both sides and their gradients in
the dtype of accumulation. The adjoint of resampling is a product with the matrix of resampling: there are no atomics,
and two runs give the same bits.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype

SCRATCH = 256 * 2**20  # bytes
# A step of a smaller norm has no direction: kSmallestNorm of csrc/shared/constants.h.
SMALLEST_NORM = 1e-8


class Side(NamedTuple):
    """One batch of sequences."""

    steps: Tensor  # (B, N, D) in the dtype of accumulation, 0 beyond the lengths and in sequences that hold inf or NaN
    lengths: Tensor  # (B,) int64, in [1, N]
    nonfinite: Tensor  # (B,) bool: holds inf or NaN, or its length is out of range
    full: bool  # all lengths are known to be N


class Pass(NamedTuple):
    """One direction of resampling."""

    source: Side
    target: Side
    takes: str  # "all" pairs, those with "not_longer" or those with "shorter" sources
    nearest: bool

    def taken(self, n: Tensor, m: Tensor) -> Tensor | None:
        """Return which pairs of n and m steps are resampled in this pass; None: all."""
        return {"all": None, "not_longer": n <= m, "shorter": n < m}[self.takes]


class Targets(NamedTuple):
    """Targets that share a product."""

    columns: slice
    length: int | Tensor  # the one that the product is for, () if it is only known on the device
    steps: int  # at least the length
    have_length: Tensor | None  # (columns,); None: all


def forward(
    x: Tensor, y: Tensor, x_lengths: Tensor | None, y_lengths: Tensor | None, resample: str, mode: str, paired: bool
) -> Tensor:
    """Return distances, (B1, N, D), (B2, M, D) -> (B1, B2) or, `paired`, (B,)."""
    of_x, of_y = side(x, x_lengths), side(y, y_lengths)
    means = of_x.steps.new_zeros((len(x),) if paired else (len(x), len(y)))
    for each in passes(of_x, of_y, resample, mode):
        if paired:
            add_means_of_pairs(each, means)
        else:
            add_means(each, means if each.source is of_x else means.T)
    return (1 - means).masked_fill_(nonfinite_pairs(of_x, of_y, paired), torch.nan)


def backward(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    x_lengths: Tensor | None,
    y_lengths: Tensor | None,
    resample: str,
    mode: str,
    paired: bool,
    need_x: bool,
    need_y: bool,
) -> tuple[Tensor, Tensor]:
    """Return gradients like x and like y, empty where not needed."""
    of_x, of_y = side(x, x_lengths), side(y, y_lengths)
    grad = grad.detach().to(of_x.steps.dtype)
    nonfinite = nonfinite_pairs(of_x, of_y, paired) & (grad != 0)
    given = -grad.masked_fill(nonfinite, 0)
    dx, dy = (torch.zeros_like(of.steps) if needed else None for of, needed in ((of_x, need_x), (of_y, need_y)))
    for each in passes(of_x, of_y, resample, mode):
        from_x = each.source is of_x
        gradients = (dx, dy) if from_x else (dy, dx)
        if paired:
            add_gradients_of_pairs(each, given, *gradients)
        else:
            add_gradients(each, given if from_x else given.T, *gradients)
    marks = (nonfinite, nonfinite) if paired else (nonfinite.any(1), nonfinite.any(0))
    return finish_gradient(dx, x, of_x, marks[0]), finish_gradient(dy, y, of_y, marks[1])


def finish_gradient(gradient: Tensor | None, like: Tensor, of: Side, marks: Tensor) -> Tensor:
    """Return a gradient in the dtype of `like`, NaN at the valid steps of sequences with `marks` (B,); None: empty."""
    if gradient is None:
        return like.new_empty(0)
    valid = torch.arange(gradient.shape[1], device=marks.device) < of.lengths[:, None]
    return gradient.masked_fill_((valid & marks[:, None])[..., None], torch.nan).to(like.dtype)


def side(given: Tensor, lengths: Tensor | None) -> Side:
    """Return a batch (B, N, D) and its lengths (B,) as a `Side`, a copy."""
    steps = given.detach().to(accumulation_dtype(given), copy=True)
    batch, count, _ = steps.shape
    full = lengths is None
    if lengths is None:
        lengths = torch.full((batch,), count, dtype=torch.int64, device=steps.device)
    inside = lengths.clamp(1, count)
    steps.masked_fill_((torch.arange(count, device=steps.device) >= inside[:, None])[..., None], 0)
    # Of a row that holds inf or NaN, the sum of what is 0 otherwise is NaN.
    nonfinite = ((steps - steps).sum((1, 2)) != 0) | (lengths != inside)
    return Side(steps.masked_fill_(nonfinite[:, None, None], 0), inside, nonfinite, full)


def nonfinite_pairs(x: Side, y: Side, paired: bool) -> Tensor:
    """Return which pairs hold inf or NaN, (B1, B2) or, `paired`, (B,)."""
    return x.nonfinite | y.nonfinite if paired else x.nonfinite[:, None] | y.nonfinite


def passes(x: Side, y: Side, resample: str, mode: str) -> list[Pass]:
    """Return the directions of resampling that the pairs need: two for `resample="shorter"` of unequal lengths."""
    nearest = mode == "nearest"
    if resample == "shorter" and x.full and y.full:
        resample = "x" if x.steps.shape[1] <= y.steps.shape[1] else "y"
    if resample == "shorter":
        return [Pass(x, y, "not_longer", nearest), Pass(y, x, "shorter", nearest)]
    return [Pass(y, x, "all", nearest) if resample == "y" else Pass(x, y, "all", nearest)]


def products(target: Side) -> Iterator[Targets]:
    """Yield the targets of each product."""
    batch, steps, _ = target.steps.shape
    every = slice(0, batch)
    if target.full:
        yield Targets(every, steps, steps, None)
    elif steps <= batch:
        for length in range(1, steps + 1):
            yield Targets(every, length, length, target.lengths == length)
    else:
        for column in range(batch):
            yield Targets(slice(column, column + 1), target.lengths[column], steps, None)


class Chunk(NamedTuple):
    """Some steps of the targets, and blocks of sources."""

    first: int
    end: int
    blocks: list[slice]


def chunks(each: Pass, steps: int, columns: int) -> Iterator[Chunk]:
    """Yield chunks of at most SCRATCH bytes, or of one step of one source, that cover `steps` of so many targets."""
    sources, source_steps, features = each.source.steps.shape
    size = each.source.steps.itemsize
    # A step of a source: itself, its gradient, what they are made of, and its row of the matrix of resampling.
    of_source, of_targets = (6 * features + 3 * source_steps) * size, 4 * columns * features * size
    rows = max(1, min(sources, SCRATCH // 2 // of_source))
    at_once = max(1, min(steps, SCRATCH // (rows * of_source + of_targets)))
    blocks = [slice(row, min(row + rows, sources)) for row in range(0, sources, rows)]
    for first in range(0, steps, at_once):
        yield Chunk(first, min(first + at_once, steps), blocks)


class Resampled(NamedTuple):
    """Steps of sources, resampled, and the matrix that does it."""

    left: Tensor  # (B, c) int64
    right: Tensor
    weight: Tensor  # (B, c) of `right`
    lengths: Tensor  # (B,)

    @classmethod
    def to(cls, lengths: Tensor, m: int | Tensor, t: Tensor, nearest: bool, dtype: torch.dtype) -> "Resampled":
        """Places of steps t (c,) of sequences of so many steps (B,), resampled to m steps, () or (B, 1)."""
        n = lengths[:, None]
        t = torch.minimum(t, torch.as_tensor(m - 1, device=t.device))
        if nearest:
            # PyTorch computes the place in the dtype of the features, then rounds it to float32.
            places = (t.to(dtype) * (n.to(dtype) / m)).float()
            left = torch.minimum(places.floor().long(), n - 1)
            return cls(left, left, torch.zeros_like(left, dtype=dtype), lengths)
        # In integers, (2t + 1) n / 2m − 1/2 is exact.
        twice = ((2 * t + 1) * n - m).clamp(min=0)
        left = twice // (2 * m)
        rest = twice - left * 2 * m
        weight = rest.to(dtype) / (2 * torch.as_tensor(m, device=t.device)).to(dtype)
        return cls(left, torch.minimum(left + (rest > 0), n - 1), weight, lengths)

    def of(self, steps: Tensor) -> Tensor:
        """(B, N, D) -> (B, c, D)"""
        sequence = torch.arange(len(steps), device=steps.device)[:, None]
        return torch.lerp(steps[sequence, self.left], steps[sequence, self.right], self.weight[..., None])

    def adjoint(self, grad: Tensor, count: int) -> Tensor:
        """(B, c, D) -> (B, N, D), of N = `count` steps."""
        s = torch.arange(count, device=grad.device)[:, None]
        left, right, weight = (of[:, None] for of in (self.left, self.right, self.weight))
        return ((left == s) * (1 - weight) + (right == s) * weight) @ grad


class Units(NamedTuple):
    """Unit steps (B, c, D) and the norms (B, c, 1) that they had."""

    steps: Tensor
    norms: Tensor

    @classmethod
    def of(cls, steps: Tensor) -> "Units":
        # The squares of large features overflow, and those of small ones vanish.
        largest = steps.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(steps.dtype).tiny)
        scaled = steps / largest
        norms = scaled.norm(dim=-1, keepdim=True)
        return cls(scaled / torch.maximum(norms, SMALLEST_NORM / largest), norms * largest)

    def adjoint(self, grad: Tensor) -> Tensor:
        """Return the gradient of the steps from that of the unit steps; a step without a direction has none."""
        across = grad - (grad * self.steps).sum(-1, keepdim=True) * self.steps
        return torch.where(self.norms < SMALLEST_NORM, 0, across / self.norms)


def add_means(each: Pass, means: Tensor) -> None:
    """Add the mean cosines of all pairs of a pass, by source and target (S, T)."""
    source, target = each.source, each.target
    for of in products(target):
        chosen = taken(each, of)
        for chunk in chunks(each, of.steps, len(target.steps[of.columns])):
            t = torch.arange(chunk.first, chunk.end, device=means.device)
            v = Units.of(target.steps[of.columns, chunk.first : chunk.end]).steps.flatten(1)
            for rows in chunk.blocks:
                u = Units.of(resampled(each, rows, of.length, t).of(source.steps[rows])).steps.flatten(1)
                share = u @ v.T / of.length
                means[rows, of.columns] += share if chosen is None else share.masked_fill_(~chosen[rows], 0)


def add_gradients(each: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Add to the gradients, which are None where not needed, those of the mean cosines; `grad` (S, T)."""
    source, target = each.source, each.target
    for of in products(target):
        chosen = taken(each, of)
        weights = grad[:, of.columns] / of.length
        weights = weights if chosen is None else weights.masked_fill_(~chosen, 0)
        for chunk in chunks(each, of.steps, weights.shape[1]):
            t = torch.arange(chunk.first, chunk.end, device=grad.device)
            steps = slice(chunk.first, chunk.end)
            v = Units.of(target.steps[of.columns, steps])
            dv = torch.zeros_like(v.steps)
            for rows in chunk.blocks:
                places = resampled(each, rows, of.length, t)
                u = Units.of(places.of(source.steps[rows]))
                if d_source is not None:
                    du = (weights[rows] @ v.steps.flatten(1)).view_as(u.steps)
                    d_source[rows] += places.adjoint(u.adjoint(du), source.steps.shape[1])
                if d_target is not None:
                    dv += (weights[rows].T @ u.steps.flatten(1)).view_as(dv)
            if d_target is not None:
                d_target[of.columns, steps] += v.adjoint(dv)


def taken(each: Pass, of: Targets) -> Tensor | None:
    """Return which pairs (S, columns) of a product are the pass's own; None: all."""
    chosen = each.taken(each.source.lengths[:, None], each.target.lengths[of.columns])
    if of.have_length is None:
        return chosen
    own = of.have_length.expand(len(each.source.steps), -1)
    return own if chosen is None else own & chosen


def resampled(each: Pass, rows: slice, length: int | Tensor, t: Tensor) -> Resampled:
    source = each.source
    return Resampled.to(source.lengths[rows], length, t, each.nearest, source.steps.dtype)


class Pairs(NamedTuple):
    """Some steps of some pairs."""

    rows: slice
    steps: slice
    m: Tensor  # (rows,) lengths of the targets
    chosen: Tensor | None  # (rows,) which are the pass's own; None: all
    u: Units
    v: Units
    places: Resampled

    @classmethod
    def of(cls, each: Pass) -> "Iterator[Pairs]":
        source, target = each.source, each.target
        for chunk in chunks(each, target.steps.shape[1], 0):
            t = torch.arange(chunk.first, chunk.end, device=target.steps.device)
            steps = slice(chunk.first, chunk.end)
            for rows in chunk.blocks:
                m = target.lengths[rows]
                places = resampled(each, rows, m[:, None], t)
                u, v = Units.of(places.of(source.steps[rows])), Units.of(target.steps[rows, steps])
                yield cls(rows, steps, m, each.taken(source.lengths[rows], m), u, v, places)

    def own(self, values: Tensor) -> Tensor:
        """(rows,) -> (rows,), 0 for pairs that are not the pass's own."""
        return values if self.chosen is None else values.masked_fill(~self.chosen, 0)


def add_means_of_pairs(each: Pass, means: Tensor) -> None:
    """Add the mean cosines of pairs (B,)."""
    for some in Pairs.of(each):
        means[some.rows] += some.own((some.u.steps * some.v.steps).sum((1, 2)) / some.m)


def add_gradients_of_pairs(each: Pass, grad: Tensor, d_source: Tensor | None, d_target: Tensor | None) -> None:
    """Add to the gradients, which are None where not needed, those of the mean cosines of pairs; `grad` (B,)."""
    for some in Pairs.of(each):
        weights = some.own(grad[some.rows] / some.m)[:, None, None]
        if d_source is not None:
            of_u = some.u.adjoint(weights * some.v.steps)
            d_source[some.rows] += some.places.adjoint(of_u, d_source.shape[1])
        if d_target is not None:
            d_target[some.rows, some.steps] += some.v.adjoint(weights * some.u.steps)
