"""Search among mean steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scav_model.distances import Sequences, pooled

# Clips that are pooled together, queries that are compared together, and means that are compared with them in one step:
# 16 MiB each. Floats of the pairs of means that are compared one by one: they stay in cache.
CLIPS, ROWS, BLOCK = 256, 1024, 4096
FLOATS = 1 << 17
# Products beyond the k largest that are looked at first: of most queries, no more are within rounding of the k-th.
SPARE = 8
# Queries below which a product with the means on its left is quicker.
FEW = 16

# Numbers (B,) and vectors (B, D) of some clips.
Block = tuple[Tensor, Tensor]


def mean_steps(clips: Sequences) -> Tensor:
    """Return the mean step of each clip (G, D), float32, scaled to length 1."""
    parts = zip(clips.steps.split(CLIPS), clips.lengths.split(CLIPS), strict=True)
    return torch.cat([pooled(Sequences(steps.float(), lengths)) for steps, lengths in parts])


def mean_scores(queries: Sequences, means: Callable[[], Iterable[Block]], k: int) -> tuple[Tensor, Tensor]:
    """Find the clips whose means are nearest to the queries' means: cosines (Q, k), descending, and numbers (Q, k).

    Of ties, the first are found; means that are NaN or infinite never are. Where there are fewer than k others, −inf
    and −1 come last.

    Args:
        means: returns numbers and means of all clips, block by block; called once for each `ROWS` queries.
    """
    found = [largest_products(vectors, means(), k) for vectors in mean_steps(queries).split(ROWS)]
    scores, numbers = (
        torch.cat([F.pad(part, (0, k - part.shape[1]), value=value) for part in each])
        for each, value in zip(zip(*found, strict=True), (-torch.inf, -1), strict=True)
    )
    return scores, numbers.masked_fill(scores.isneginf(), -1)


def largest_products(queries: Tensor, blocks: Iterable[Block], k: int) -> tuple[Tensor, Tensor]:
    """Find the vectors that have the k largest inner products with each query (Q, D): products (Q, k), descending, and
    numbers (Q, k), of ties those that come first.

    The product of a pair is the same whatever other vectors and queries there are. NaN is never found. Where there are
    fewer than k, there are fewer columns, or places that hold −inf.

    Args:
        queries: of length 1 at most.
        blocks: numbers and vectors, of length 1 at most.
    """
    best = queries.new_empty(len(queries), 0)
    numbers = best.long()
    # A product in a matrix and the product of the pair alone each differ from the true one by at most D roundings.
    slack = 4 * queries.shape[1] * torch.finfo(queries.dtype).eps
    # The product of a matrix and one vector takes as long as that with three.
    asked = torch.cat((queries, queries)) if len(queries) == 1 else queries
    for together in _joined(blocks):
        products = [
            F.linear(vectors, asked).T if len(asked) < FEW else F.linear(asked, vectors) for _, vectors in together
        ]
        rough = (torch.cat(products, dim=1) if len(products) > 1 else products[0])[: len(queries)]
        limits = best[:, -1] - slack if best.shape[1] == k else best.new_full((len(queries),), -torch.inf)
        rows, columns = _near(rough, limits, slack, k)
        if not len(rows):
            continue
        found = _products(queries, [vectors for _, vectors in together], rows, columns)
        # A row for each query, as long as the longest.
        counts = rows.bincount(minlength=len(queries))
        places = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        scores = best.new_full((len(queries), int(counts.max())), -torch.inf)
        scores[rows, places] = found
        ids = numbers.new_zeros(scores.shape)
        ids[rows, places] = torch.cat([listed for listed, _ in together])[columns]
        best, numbers = largest(torch.cat((best, scores), dim=1), torch.cat((numbers, ids), dim=1), k)
    return best, numbers


def _near(rough: Tensor, limits: Tensor, slack: float, k: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns, ascending, of all products (Q, C) above the limits (Q,) that may be among the k largest
    of their row, though they are wrong by half the slack. NaN is left out."""
    width = rough.shape[1]
    largest_first, columns = rough.topk(min(k + SPARE, width), dim=1)
    if largest_first[:, 0].isnan().any():  # NaN is sorted as the largest
        rough = rough.nan_to_num(nan=-torch.inf)
        largest_first, columns = rough.topk(min(k + SPARE, width), dim=1)
    limits = torch.maximum(limits, largest_first[:, min(k, width) - 1] - slack)[:, None]
    near = (largest_first >= limits) & ~largest_first.isneginf()
    pairs = (torch.arange(len(rough), device=rough.device)[:, None] * width + columns)[near]
    if width > k + SPARE and len(more := near[:, -1].nonzero()[:, 0]):
        # Of these rows, others are as near.
        rest = rough[more].scatter(1, columns[more], -torch.inf)
        row, column = ((rest >= limits[more]) & ~rest.isneginf()).nonzero(as_tuple=True)
        pairs = torch.cat((pairs, more[row] * width + column))
    pairs = pairs.sort().values
    return pairs // width, pairs % width


def _joined(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Join neighboring blocks, up to `BLOCK` vectors together."""
    together: list[Block] = []
    count = 0
    for block in blocks:
        if together and count + len(block[0]) > BLOCK:
            yield together
            together, count = [], 0
        together.append(block)
        count += len(block[0])
    if count:
        yield together


def _products(queries: Tensor, blocks: list[Tensor], rows: Tensor, columns: Tensor) -> Tensor:
    """Return the inner products (P,) of queries[rows] and the vectors in these columns of all blocks side by side."""
    found = queries.new_empty(len(rows))
    ends = torch.tensor([len(vectors) for vectors in blocks], device=rows.device).cumsum(0)
    owners = torch.bucketize(columns, ends, right=True)
    for owner in owners.unique().tolist():
        vectors, first = blocks[owner], int(ends[owner]) - len(blocks[owner])
        for pairs in (owners == owner).nonzero()[:, 0].split(max(1, FLOATS // queries.shape[1])):
            found[pairs] = vectors[columns[pairs] - first].mul_(queries[rows[pairs]]).sum(1)
    return found


def largest(scores: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row (Q, C), descending, and their numbers (Q, C); of ties those that come first."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, order), numbers.gather(1, order)
