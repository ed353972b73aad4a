"""The k nearest items found so far, and scoring of pairs in the order of their bounds."""

from collections.abc import Callable

import torch
from torch import Tensor

# score(queries (P,), items (P,), limits (P,)) returns distances (P,) of pairs; those above their limit may be inf.
Score = Callable[[Tensor, Tensor, Tensor], Tensor]


class RunningTopK:
    """The k nearest items of each query among those added: ascending, ties to the lower index."""

    def __init__(self, queries: int, k: int, dtype: torch.dtype, device: torch.device) -> None:
        self.k = k
        self.distances = torch.full((queries, k), torch.inf, dtype=dtype, device=device)
        # Above the index of any item, so that items at an infinite distance come before it.
        self.items = torch.full((queries, k), torch.iinfo(torch.int64).max, device=device)

    @property
    def limits(self) -> Tensor:
        """The k-th distances (Q,), inf until there are k items. Items beyond them do not count."""
        return self.distances[:, -1]

    def add(self, queries: Tensor, items: Tensor, distances: Tensor) -> None:
        """Add pairs (P,), each once in a search."""
        within = distances <= self.limits[queries]
        queries, items, distances = queries[within], items[within], distances[within]
        rows = torch.arange(len(self.items), device=items.device).repeat_interleave(self.k)
        queries = torch.cat([rows, queries])
        items = torch.cat([self.items.flatten(), items])
        distances = torch.cat([self.distances.flatten(), distances])
        order = items.argsort()
        order = order[distances[order].argsort(stable=True)]
        order = order[queries[order].argsort(stable=True)]
        first = order[rank_among_equal(queries[order]) < self.k]
        self.items = items[first].view(-1, self.k)
        self.distances = distances[first].view(-1, self.k)

    def score_in_order(self, queries: Tensor, items: Tensor, bounds: Tensor, score: Score) -> int:
        """Score and add pairs (P,) in the order of their lower bounds, until no bound is within the limit.

        Returns the number of pairs that were scored.
        """
        order = bounds.argsort()
        order = order[queries[order].argsort(stable=True)]
        rank = rank_among_equal(queries[order])
        scored, begin, width = 0, 0, self.k
        while len(order):
            remaining = bounds[order] <= self.limits[queries[order]]
            order, rank = order[remaining], rank[remaining]
            now = rank < begin + width
            chosen = order[now]
            if len(chosen):
                limits = self.limits[queries[chosen]]
                self.add(queries[chosen], items[chosen], score(queries[chosen], items[chosen], limits))
                scored += len(chosen)
            order, rank = order[~now], rank[~now]
            begin, width = begin + width, 2 * width
        return scored


def rank_among_equal(values: Tensor) -> Tensor:
    """Return the number of equal values before each of sorted values (P,)."""
    places = torch.arange(len(values), device=values.device)
    starts = torch.ones_like(values, dtype=torch.bool)
    starts[1:] = values[1:] != values[:-1]
    return places - torch.where(starts, places, 0).cummax(0).values if len(values) else places


def no_nan(distances: Tensor) -> Tensor:
    """Replace NaN by inf: NaN counts as infinitely far."""
    return distances.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
