"""The request that a search answers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.checks import WEIGHTS
from scav_kernels.ops.registry import Metric
from scav_kernels.search.index import SearchIndex
from scav_kernels.search.kernels import largest_norms


@dataclass
class SearchRequest:
    """A block of queries, the items, and the distance between them.

    Attributes:
        queries: (Q, N, D).
        lengths: (Q,) int64.
        index: the items.
        metric: the distance.
        options: values of all options of the metric.
        queries_are: "x" or "y", the argument of the metric that the queries are.
        candidates: the number of items that each query is compared with; None for exact search.
        query_weights: (Q, N) weights of the queries' steps; None: the metric's default.
        item_weights: (G, M) weights of the items' steps, or None.
        query_norms: (Q,) the largest norm of each query's steps.
    """

    queries: Tensor
    lengths: Tensor
    index: SearchIndex
    metric: Metric
    options: dict[str, Any]
    queries_are: str
    candidates: int | None = None
    query_weights: Tensor | None = None
    item_weights: Tensor | None = None

    def __post_init__(self) -> None:
        self.query_norms = largest_norms(self.queries, self.lengths)

    def sides(self, queries: Any, items: Any) -> tuple[Any, Any]:
        """Return the values of the queries and of the items in the order of the metric's x and y."""
        return (queries, items) if self.queries_are == "x" else (items, queries)

    def all_pairs(self, chosen: Tensor, items: Tensor) -> Tensor:
        """Return distances (Q, B), batched: the last digits of a pair depend on the other pairs."""
        queries = (self.queries, self.lengths) if len(chosen) == len(self.queries) else None
        x, y = self.sides(
            queries or (self.queries[chosen], self.lengths[chosen]), (self.index.rows(items), self.index.lengths[items])
        )
        distances = self.metric.all_pairs(x[0], y[0], x[1], y[1], **self.options, **self.weights(chosen, items))
        return distances if self.queries_are == "x" else distances.T

    def weights(self, queries: Tensor | slice, items: Tensor | slice) -> dict[str, Tensor]:
        """Return the weights of these queries and items, as the metric's options; empty without weights."""
        of_queries = None if self.query_weights is None else self.query_weights[queries]
        of_items = None if self.item_weights is None else self.item_weights[items]
        weights = zip(WEIGHTS, self.sides(of_queries, of_items), strict=True)
        return {name: value for name, value in weights if value is not None}

    def pair_distance(self, query: int, item: int) -> Tensor:
        """Return the distance () of one pair, cut to its lengths, so that it depends on nothing else."""
        return self._distance(query, item, self._load_item(item))

    def pair_distances(self, queries: Tensor, items: Tensor, _limits: Tensor) -> Tensor:
        """Return distances (P,) of pairs, each computed alone."""
        pairs = zip(queries.tolist(), items.tolist(), strict=True)
        return torch.stack([self.pair_distance(query, item) for query, item in pairs])

    def distances_to_item(self, item: int) -> Tensor:
        """Return distances (Q,) of all queries to one item, each computed alone. The item is read once."""
        steps = self._load_item(item)
        return torch.stack([self._distance(query, item, steps) for query in range(len(self.queries))])

    def _load_item(self, item: int) -> Tensor:
        """Return one item (1, M, D), cut to its length."""
        rows = self.index.rows(torch.tensor([item], device=self.queries.device))
        return rows[:, : int(self.index.lengths[item])]

    def _distance(self, query: int, item: int, steps: Tensor) -> Tensor:
        x, y = self.sides(self.queries[query : query + 1, : int(self.lengths[query])], steps)
        side = dict(zip(WEIGHTS, (x, y), strict=True))
        weights = self.weights(slice(query, query + 1), slice(item, item + 1))
        weights = {name: value[:, : side[name].shape[1]] for name, value in weights.items()}
        return self.metric.paired(x, y, None, None, **self.options, **weights)[0]
