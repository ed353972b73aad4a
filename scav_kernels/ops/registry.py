"""Distances by name, for `cdist` and `pairwise_distance`."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.checks import WEIGHTS


class SearchMethod(NamedTuple):
    """The search method of `topk` for one metric, which `scav_kernels/search/<distance>.py` registers.

    Attributes:
        find: find(request, prune, report, top_k) adds items to `top_k`, a RunningTopK, until it has the nearest of each
            query.
        has_bounds: whether lower bounds skip pairs.
        takes_candidates: whether bounds can choose the items of an approximate search.
    """

    find: Callable[..., None]
    has_bounds: bool = False
    takes_candidates: bool = False


class AlignmentMethod(NamedTuple):
    """The alignment of pairs by one metric, which `scav_kernels/ops/<distance>.py` brings.

    Attributes:
        align: align(x, y, x_lengths, y_lengths, **options) returns the distances of pairs, (B,), and the weights of
            their steps, (B, N, M), which are 0 beyond the lengths.
        title: name of the alignment, e.g. "Sinkhorn plan".
        weight: meaning of a weight, e.g. "mass moved, of 1". None: 1 on a path, and 0 elsewhere.
    """

    align: Callable[..., tuple[Tensor, Tensor]]
    title: str
    weight: str | None = None


def with_closed_ends(lengths: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return True unless a path may start or end within y: else the distance of x from y is that of y from x."""
    return not (options.get("open_begin") or options.get("open_end"))


def never(lengths: Tensor | None, options: Mapping[str, Any]) -> bool:
    """Return False: the distance of x from y may be another than that of y from x."""
    return False


class Metric(NamedTuple):
    """One distance, by its functions f(x, y, x_lengths, y_lengths, **options).

    Attributes:
        all_pairs: the public function, which returns (B1, B2).
        paired: the function of pairs, which returns (B,).
        sums_along_path: whether the distance is a sum of costs along a path, which grows with the steps of both
            sequences.
        is_symmetric: is_symmetric(lengths, options) is true if, within sequences of these lengths, x's distance from y
            is y's from x.
        alignment: the alignment of pairs, if there is one.
        search: the search method; None: `topk` computes all pairs, each alone.
    """

    all_pairs: Callable[..., Tensor]
    paired: Callable[..., Tensor]
    sums_along_path: bool = False
    is_symmetric: Callable[[Tensor | None, Mapping[str, Any]], bool] = never
    alignment: AlignmentMethod | None = None
    search: SearchMethod | None = None

    @property
    def has_bounds(self) -> bool:
        """True if `topk` skips pairs by lower bounds."""
        return self.search is not None and self.search.has_bounds

    @property
    def takes_candidates(self) -> bool:
        """True if `topk` takes `candidates`."""
        return self.search is not None and self.search.takes_candidates

    def keywords(self) -> dict[str, Any]:
        """Return the keyword arguments of the distance, with their defaults."""
        return dict(_keywords(self.all_pairs))

    def defaults(self) -> dict[str, Any]:
        """Return the options of the distance alone, with their defaults: not `return_convergence` nor weights."""
        return {name: value for name, value in self.keywords().items() if name not in ("return_convergence", *WEIGHTS)}


def _keywords(function: Callable[..., Tensor]) -> dict[str, Any]:
    """Return the keyword-only arguments of a function, with their defaults, which no call may change."""
    # torch.compile looks into a cached function, and warns.
    return _read_keywords(function) if torch.compiler.is_compiling() else _known_keywords(function)


def _read_keywords(function: Callable[..., Tensor]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


_known_keywords = cache(_read_keywords)


METRICS: dict[str, Metric] = {}


def find_alignment(name: str, options: Mapping[str, object]) -> AlignmentMethod:
    """Return the alignment of a metric, as `find_metric` finds it; raise an error if it has none."""
    metric = find_metric(name, options)
    if metric.alignment is None:
        having = [name for name, metric in METRICS.items() if metric.alignment is not None]
        raise ValueError(
            f"alignment: expected a metric with an alignment, {', '.join(map(repr, having))}, got {name!r}; "
            "pairwise_distance returns its distances"
        )
    if "return_convergence" in options:
        raise TypeError(
            "alignment: expected options that change the alignment, got 'return_convergence'; pass it to "
            "pairwise_distance"
        )
    return metric.alignment


def register_search(metric: str, search: SearchMethod) -> None:
    """Give a metric its search method."""
    METRICS[metric] = METRICS[metric]._replace(search=search)


# Names that other libraries give to a distance, and ours.
_OTHER_NAMES = {
    "wasserstein": "sinkhorn",
    "earth_mover": "sinkhorn",
    "emd": "sinkhorn",
    "ot": "sinkhorn",
    "optimal_transport": "sinkhorn",
    "euclidean": "interpolated_euclidean",
    "cosine": "interpolated_cosine",
    "maxsim": "chamfer",
    "colbert": "chamfer",
    "late_interaction": "chamfer",
}


def find_metric(name: str, options: Mapping[str, object]) -> Metric:
    """Return the metric of that name; raise an error for an unknown name, or for an option that it does not take."""
    if not isinstance(name, str):
        raise TypeError(f"expected metric to be a str, e.g. 'dtw', got {name!r} of type {type(name).__name__}")
    if name not in METRICS:
        near = _OTHER_NAMES.get(name.lower()) or _nearest(name.lower(), METRICS)
        raise ValueError(
            f"expected metric to be one of {', '.join(map(repr, METRICS))}, got {name!r}{_did_you_mean(near)}"
        )
    metric = METRICS[name]
    known = _keywords(metric.all_pairs)
    if unknown := [option for option in options if option not in known]:
        raise TypeError(
            f"metric {name!r} takes the options {', '.join(known)}, got {', '.join(map(repr, unknown))}"
            f"{_did_you_mean(_nearest(unknown[0], known)) or _others_with(unknown[0])}"
        )
    return metric


def grows_with_steps(name: str, options: Mapping[str, object]) -> bool:
    """Return True if a distance is a sum of costs along a path that is not normalized."""
    return find_metric(name, options).sums_along_path and not options.get("normalize")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    return next(iter(get_close_matches(name, known, n=1)), None)


def _did_you_mean(name: str | None) -> str:
    return f"; did you mean {name!r}?" if name else ""


def _others_with(option: str) -> str:
    """Return the end of an error: the metrics that take an option, if there are any."""
    names = [repr(name) for name, metric in METRICS.items() if option in metric.keywords()]
    return f"; {option!r} is an option of metric {' and '.join(names)}" if names else ""
