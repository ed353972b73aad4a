"""Search among mean steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from scav_model.distances import pooled
from scav_model.search.header import SearchIndexError
from scav_model.search.index import SearchIndex
from scav_model.search.queries import Queries

# Queries that are compared together, means that are compared with them in one step, and floats of the pairs of means
# that are compared one by one: 16 MiB each.
ROWS, BLOCK = 1024, 4096
FLOATS = 1 << 22

# Numbers (B,) and vectors (B, D) of some clips.
Block = tuple[Tensor, Tensor]


def nearest_means(index: SearchIndex, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
    """Distances 1 − cosine (Q, k), ascending, and numbers (Q, k) of the clips with the nearest means.

    There must be k clips.
    """
    scores, numbers = best_scores(index, queries, k)
    return 1 - scores, numbers


def best_scores(index: SearchIndex, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
    """Cosines (Q, k), descending, and numbers (Q, k) of the clips with the nearest means, of ties the lower number
    first. There must be k clips.

    Raises:
        SearchIndexError: means that are NaN or infinite.
    """
    found = [
        largest_products(asked, _means(index, queries.target), k) for asked in pooled(queries.sequences).split(ROWS)
    ]
    scores, numbers = (torch.cat(each) for each in zip(*found, strict=True))
    if scores.shape[1] < k or bool(scores.isneginf().any()):
        raise SearchIndexError(
            f"{index.folder}: means of some {queries.target}s are NaN or infinite, and too few others are found; "
            "use --mode exact"
        )
    return scores, numbers


def _means(index: SearchIndex, side: str) -> Iterator[Block]:
    """Numbers and means of the clips that can be found, in order, at most `BLOCK` at a time."""
    for start, shard in zip(index.starts.tolist(), index.shards, strict=False):
        means, live = shard.means(side), index.live[start : start + len(shard)]
        numbers = torch.arange(start, start + len(shard))
        if not live.all():
            kept = torch.from_numpy(live)
            means, numbers = means[kept], numbers[kept]
        yield from zip(numbers.split(BLOCK), means.split(BLOCK), strict=True)


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
        rough = torch.cat([F.linear(vectors, asked) for _, vectors in together])[:, : len(queries)].T
        if best.shape[1] < k:
            known = torch.cat((best, rough.masked_fill(rough.isnan(), -torch.inf)), dim=1)
            limits = known.topk(min(k, known.shape[1]), dim=1).values[:, -1]
        else:
            limits = best[:, -1]
        rows, columns = (rough >= (limits - slack)[:, None]).nonzero(as_tuple=True)
        if not len(rows):
            continue
        found = _products(queries, [vectors for _, vectors in together], rows, columns)
        # A row for each query, as long as the longest.
        counts = rows.bincount(minlength=len(queries))
        places = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
        scores = best.new_full((len(queries), int(counts.max())), -torch.inf)
        scores[rows, places] = found.masked_fill(found.isnan(), -torch.inf)
        ids = numbers.new_zeros(scores.shape)
        ids[rows, places] = torch.cat([listed for listed, _ in together])[columns]
        best, numbers = largest(torch.cat((best, scores), dim=1), torch.cat((numbers, ids), dim=1), k)
    return best, numbers


def _joined(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Neighboring blocks, as many together as have `BLOCK` vectors."""
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
    """(P,) inner products of queries[rows] and the vectors that have these columns in all blocks side by side."""
    found = queries.new_empty(len(rows))
    ends = torch.tensor([len(vectors) for vectors in blocks]).cumsum(0)
    owners = torch.bucketize(columns, ends, right=True)
    for owner in owners.unique().tolist():
        vectors, first = blocks[owner], int(ends[owner]) - len(blocks[owner])
        for pairs in (owners == owner).nonzero()[:, 0].split(max(1, FLOATS // queries.shape[1])):
            found[pairs] = (queries[rows[pairs]] * vectors[columns[pairs] - first]).sum(1)
    return found


def largest(scores: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row (Q, C), descending, and their numbers (Q, C); of ties those that come first."""
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return scores.gather(1, order), numbers.gather(1, order)
