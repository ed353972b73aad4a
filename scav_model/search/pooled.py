"""Search among mean steps, by FAISS."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scav_model.distances import pooled
from scav_model.search import flat
from scav_model.search.index import SearchIndex
from scav_model.search.layout import SearchIndexError
from scav_model.search.queries import Queries

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def nearest_means(index: SearchIndex, queries: Queries, k: int) -> tuple[Floats, Ints]:
    """Distances 1 − cosine (Q, k), ascending, and numbers (Q, k) of the clips with the nearest means.

    There must be k clips.
    """
    scores, numbers = best_scores(index, queries, k)
    return 1 - scores, numbers


def best_scores(index: SearchIndex, queries: Queries, k: int) -> tuple[Floats, Ints]:
    """Cosines (Q, k), descending, and numbers (Q, k) of the clips with the nearest means, of ties the lower number
    first. There must be k clips.

    Raises:
        SearchIndexError: means that are NaN or infinite.
    """
    asked = np.ascontiguousarray(pooled(queries.sequences).numpy())
    scores: list[Floats] = []
    numbers: list[Ints] = []
    for start, shard in zip(index.starts.tolist(), index.shards, strict=False):
        live = index.live[start : start + len(shard)]
        if count := min(k, int(live.sum())):
            found = flat.nearest(shard.flat(queries.target), asked, count, live)
            if (found[1] < 0).any():
                raise SearchIndexError(
                    f"{index.folder}: means of some {queries.target}s are NaN or infinite, and FAISS finds too few; "
                    "use --mode exact"
                )
            scores.append(found[0])
            numbers.append(found[1] + start)
    return best_of(scores, numbers, k)


def best_of(scores: Sequence[Floats], numbers: Sequence[Ints], k: int) -> tuple[Floats, Ints]:
    """The k best of what several shards found, (Q, C) each."""
    joined, named = np.concatenate(scores, axis=1), np.concatenate(numbers, axis=1)
    order = np.lexsort((named, -joined), axis=1)[:, :k]
    return np.take_along_axis(joined, order, axis=1), np.take_along_axis(named, order, axis=1)
