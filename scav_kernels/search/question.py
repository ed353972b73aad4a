"""What is asked of a search."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scav_kernels.ops.registry import Metric
from scav_kernels.search.index import SearchIndex
from scav_kernels.search.kernels import largest_norms


@dataclass
class Question:
    """Some queries (Q, N, D), the items, and the distance between them; `options` are all that the metric takes, and
    `candidates` are how many items a query is compared with at most, where the answer may be approximate."""

    queries: Tensor
    lengths: Tensor
    index: SearchIndex
    metric: Metric
    options: dict[str, Any]
    queries_are: str
    candidates: int | None = None

    def __post_init__(self) -> None:
        self.query_norms = largest_norms(self.queries, self.lengths)

    def sides(self, queries: Any, items: Any) -> tuple[Any, Any]:
        """Whatever belongs to the queries and to the items, as the metric's x and y."""
        return (queries, items) if self.queries_are == "x" else (items, queries)

    def all_pairs(self, chosen: Tensor, items: Tensor) -> Tensor:
        """Distances (Q, B), by the fastest way: a pair's last digits depend on what it is computed with."""
        own = (self.queries, self.lengths) if len(chosen) == len(self.queries) else None
        x, y = self.sides(
            own or (self.queries[chosen], self.lengths[chosen]), (self.index.rows(items), self.index.lengths[items])
        )
        found = self.metric.all_pairs(x[0], y[0], x[1], y[1], **self.options)
        return found if self.queries_are == "x" else found.T

    def alone(self, query: int, item: int) -> Tensor:
        """The distance () of one pair, cut to its lengths: it depends on nothing else."""
        return self._between(query, self._item(item))

    def all_alone(self, queries: Tensor, items: Tensor, _limits: Tensor) -> Tensor:
        pairs = zip(queries.tolist(), items.tolist(), strict=True)
        return torch.stack([self.alone(query, item) for query, item in pairs])

    def to_item(self, item: int) -> Tensor:
        """The distances (Q,) of all queries to one item, each computed alone; the item is read once."""
        steps = self._item(item)
        return torch.stack([self._between(query, steps) for query in range(len(self.queries))])

    def _item(self, item: int) -> Tensor:
        """(1, M, D), cut to its length."""
        rows = self.index.rows(torch.tensor([item], device=self.queries.device))
        return rows[:, : int(self.index.lengths[item])]

    def _between(self, query: int, item: Tensor) -> Tensor:
        x, y = self.sides(self.queries[query : query + 1, : int(self.lengths[query])], item)
        return self.metric.paired(x, y, None, None, **self.options)[0]
