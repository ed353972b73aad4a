"""Distances by name, for `cdist` and `pairwise_distance`."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Metric(NamedTuple):
    """One distance: its public all-pairs function, and the same of pairs, f(x, y, x_lengths, y_lengths, **options)."""

    all_pairs: Callable[..., Tensor]
    paired: Callable[..., Tensor]
    # Whether the distance is a sum of costs along a path, which grows with the steps of both sequences.
    sums_along_path: bool = False

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments that the distance takes, and what they are unless given."""
        parameters = inspect.signature(self.all_pairs).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}

    def defaults(self) -> dict[str, Any]:
        """Those of them that change a distance, not what is returned with it."""
        return {name: value for name, value in self.keywords().items() if name != "return_convergence"}


METRICS: dict[str, Metric] = {}


def find_metric(name: str, options: dict[str, object]) -> Metric:
    """The metric of that name; raises where there is none, or where it does not take one of the options."""
    if name not in METRICS:
        raise ValueError(f"expected metric to be one of {', '.join(map(repr, METRICS))}, got {name!r}")
    metric = METRICS[name]
    known = metric.keywords()
    if unknown := [option for option in options if option not in known]:
        raise TypeError(f"metric {name!r} takes the options {', '.join(known)}, got {', '.join(map(repr, unknown))}")
    return metric
