"""A database, and its summaries, which searches share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import NamedTuple, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.checks import check_tensors
from scav_kernels.search.kernels import largest_norms, segment_means, to_panels
from scav_kernels.search.summaries import DENSE, LISTED, coarser_means, principal_directions, project

# Numbers of a database that are converted at a time, 64 MiB of float32; and means, which stay in cache.
_BLOCK_NUMBERS = 1 << 24
_BLOCK_MEANS = 1 << 20
# Steps that principal directions are computed from, and the number of directions.
_SAMPLED_STEPS = 4096
_DIRECTIONS = 63
_LEVELS = (*DENSE, LISTED)

P = ParamSpec("P")
R = TypeVar("R")


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Turn torch.autocast off inside a function: its products are for bounds, which allow for no coarser rounding."""

    @wraps(function)
    def exact(*args: P.args, **options: P.kwargs) -> R:
        with ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **options)

    return exact


def check_lengths(op: str, name: str, lengths: Tensor | None, count: int, steps: int) -> None:
    """Check lengths of `count` sequences of at most `steps` steps."""
    if lengths is None:
        return
    if lengths.dtype != torch.int64:
        raise TypeError(f"{op}: expected {name} of dtype int64, got {lengths.dtype}; convert them with {name}.long()")
    if lengths.shape != (count,):
        raise ValueError(
            f"{op}: expected {name} of shape ({count},), one length per sequence, got shape {tuple(lengths.shape)}"
        )
    if count and not (lengths.min() >= 1 and lengths.max() <= steps):
        raise ValueError(
            f"{op}: expected {name} from 1 to {steps}, got {int(lengths.min())} to {int(lengths.max())}; "
            "every sequence has at least one step and no more than the tensor has"
        )


@runtime_checkable
class Reader(Protocol):
    """G sequences that are read in batches, e.g. from a file.

    Attributes:
        lengths: (G,) int64 steps, on the device of the sequences.
        dim: D.
        dtype: of the sequences.
    """

    lengths: Tensor
    dim: int
    dtype: torch.dtype

    def read(self, items: Tensor) -> Tensor:
        """Return items (B,) int64 as (B, M, D), M the largest length of all G; values beyond a length are ignored.

        The next call may overwrite the result.
        """


class Summaries(NamedTuple):
    """Summaries for lower bounds of interpolated Euclidean distances. A search reads nothing else of most items.

    Attributes:
        directions: (K, D), orthonormal, the same for all items.
        norms: (G,) the largest norm of each item's steps.
        targets: (G,) int64 steps that each item was resampled to.
        squared: whether the summaries are for squared distances.
        means: (G, W) means of segments in few coordinates, the levels of bounds side by side.
    """

    directions: Tensor
    norms: Tensor
    targets: Tensor
    squared: bool
    means: Tensor


class Panels(NamedTuple):
    """Means of B items: panels (⌈B / LANES⌉, S, R, LANES) for each level of DENSE, and (B, S, R) for LISTED."""

    dense: tuple[Tensor, ...]
    listed: Tensor


class SearchIndex:
    """A database (G, M, D) for repeated ``topk``. The database is neither copied nor changed.

    The first search that needs summaries makes them, and the index keeps them. A bound over S segments in R coordinates
    takes 4·S·R bytes an item, one over all M steps 4·M·R. If the database is the side that is resampled, there is one
    set for each length of a query. ``database`` may be memory-mapped: items are read by block for summaries, and one
    by one for distances.

    Args:
        database: (G, M, D), float32, float64, bfloat16 or float16; or a Reader, which brings its own lengths.
        lengths: (G,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        summaries: summaries of these items, from ``summarize``. A search that needs others makes them.

    Raises:
        ValueError, TypeError: for inputs of the wrong shape, dtype or range.
    """

    def __init__(
        self, database: Tensor | Reader, lengths: Tensor | None = None, summaries: Summaries | None = None
    ) -> None:
        self._reader: Reader | None = None
        if isinstance(database, Reader):
            if lengths is not None:
                raise ValueError("SearchIndex: expected no lengths beside a Reader, which has its own")
            self._reader, lengths = database, database.lengths
            longest = max(1, int(lengths.max())) if len(lengths) else 1
            # An empty tensor of the shape and dtype that the Reader returns.
            self._steps = torch.empty(0, longest, database.dim, dtype=database.dtype, device=lengths.device)
            torch.ops.scav.check_pairs("SearchIndex", self._steps, self._steps, None, None, False)
        else:
            check_tensors("SearchIndex", database=database, lengths=lengths)
            torch.ops.scav.check_pairs("SearchIndex", database, database, None, None, False)
            self._steps = database.detach()
            if lengths is None:
                lengths = torch.full((len(database),), database.shape[1], device=database.device)
        # A Reader is as long as its lengths.
        count = len(lengths) if self.is_read else len(self._steps)
        check_lengths("SearchIndex", "lengths", lengths, count, self._steps.shape[1])
        self.lengths = lengths
        self.dtype = accumulation_dtype(self._steps)
        # Sorted by length.
        self.order = self.lengths.argsort(stable=True)
        self._sorted = self.lengths[self.order].contiguous()
        self._stored = None if summaries is None else _check_summaries(summaries, self)
        # Items whose stored summaries have not become panels; at 0 the summaries are released.
        self._stored_left = len(self)
        self._norms = None if summaries is None else summaries.norms
        self._directions = None if summaries is None else summaries.directions
        self._panels: dict[tuple[int, int, int, bool], Panels] = {}
        self._coordinates: dict[tuple[int, bool], Tensor] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def like(self) -> Tensor:
        """An empty tensor (0, M, D) of the database's shape, dtype and device."""
        return self._steps[:0]

    @property
    def device(self) -> torch.device:
        return self._steps.device

    @property
    def is_read(self) -> bool:
        """True if a Reader reads the items."""
        return self._reader is not None

    def load(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sequences (B, M, D), their lengths (B,), and the places (P,) of the items (P,) among them.

        A tensor is returned as it is; of a Reader, each of these items is read once.
        """
        if self._reader is None:
            return self._steps, self.lengths, items
        distinct, places = items.unique(return_inverse=True)
        return self._reader.read(distinct), self.lengths[distinct], places

    def rows(self, items: Tensor) -> Tensor:
        """Return a copy of items (B,), (B, M, D)."""
        steps, _, places = self.load(items)
        return steps[places]

    @property
    def block(self) -> int:
        """The number of items that are converted or read at a time."""
        return max(1, _BLOCK_NUMBERS // max(1, self._steps.shape[1] * self._steps.shape[2]))

    def _blocks(self) -> Iterator[Tensor]:
        return iter(torch.arange(len(self), device=self.device).split(self.block))

    @property
    def norms(self) -> Tensor:
        """The largest norms (G,) of the items' valid steps, inf for an item that is not finite."""
        if self._norms is None:
            if self.is_read:
                self._norms = torch.cat([largest_norms(*self.load(items)[:2]) for items in self._blocks()])
            else:
                self._norms = largest_norms(self._steps, self.lengths)
        return self._norms

    @property
    def directions(self) -> Tensor:
        """At most 63 directions (K, D) in which the database's steps vary most."""
        if self._directions is None:
            chosen = torch.linspace(0, len(self) - 1, min(len(self), _SAMPLED_STEPS), device=self.device).long()
            place = torch.arange(len(chosen), device=self.device) * 7919 % self.lengths[chosen]
            sample = []
            for items, steps in zip(chosen.split(self.block), place.split(self.block), strict=True):
                loaded, _, places = self.load(items)
                sample.append(loaded[places, steps])
            self._directions = principal_directions(torch.cat(sample), _DIRECTIONS).to(self.dtype)
        return self._directions

    def range_of_lengths(self, shortest: int, longest: int) -> tuple[int, int]:
        """Return the range of `order` with items from the shortest to the longest of these lengths, both included."""
        edges = torch.tensor([shortest, longest + 1], device=self._sorted.device)
        first, end = torch.searchsorted(self._sorted, edges).tolist()
        return first, end

    def distinct_lengths(self) -> list[int]:
        """Return the lengths of items, ascending, each once."""
        return self._sorted.unique_consecutive().tolist()

    def panels(self, first: int, end: int, target: int, squared: bool) -> Panels:
        """Return the panels of items order[first:end], resampled to `target` steps."""
        key = (first, end, target, squared)
        if key not in self._panels:
            chosen = self.order[first:end]
            stored = self._stored
            if stored is not None and stored.squared == squared and bool((stored.targets[chosen] == target).all()):
                # One level at a time: each is a copy.
                *dense, listed = _split_levels(stored.means, target, self._steps.shape[2])
                self._panels[key] = Panels(tuple(to_panels(means[chosen]) for means in dense), listed[chosen])
                self._stored_left -= end - first
                if self._stored_left <= 0:
                    self._stored = None
            else:
                *dense, listed = (
                    torch.cat(part) for part in zip(*self._level_means(chosen, target, squared), strict=True)
                )
                self._panels[key] = Panels(tuple(map(to_panels, dense)), listed)
        return self._panels[key]

    def _level_means(self, items: Tensor, target: int, squared: bool) -> Iterator[list[Tensor]]:
        """Yield the means (B, S, R) of each level, for batches of the items."""
        segments = min(LISTED.segments, target)
        size = max(1, _BLOCK_MEANS // max(1, segments * self._steps.shape[2]))
        for chosen in items.split(min(size, self.block)):
            steps, lengths, places = self.load(chosen)
            finest = segment_means(steps, lengths, places, target, segments, squared)
            yield [
                project(coarser_means(finest, target, level.segments, squared), self.directions[: level.rank - 1])
                for level in _LEVELS
            ]

    def coordinates(self, rank: int, unit: bool) -> Tensor:
        """Return all steps in few coordinates, (G, M, R).

        With `unit`, steps are first scaled to length 1/√2, so that their squared distances are 1 − cos.
        """
        key = (rank, unit)
        if key not in self._coordinates:
            directions = self.directions[: rank - 1]
            self._coordinates[key] = torch.cat(
                [step_coordinates(self.rows(items).to(self.dtype), directions, unit) for items in self._blocks()]
            )
        return self._coordinates[key]


def step_coordinates(rows: Tensor, directions: Tensor, unit: bool) -> Tensor:
    """Return steps in few coordinates; with `unit`, of steps that are scaled to length 1/√2."""
    if unit:
        rows = rows / (rows.norm(dim=2, keepdim=True).clamp(min=1e-8) * 2**0.5)
    return project(rows, directions)


@without_autocast
def summarize(
    database: Tensor | Reader,
    lengths: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    squared: bool = False,
    directions: Tensor | None = None,
) -> Summaries:
    """Summarize a database for lower bounds, as ``SearchIndex`` would, to store the summaries with it.

    Args:
        database: (B, M, D), as for ``SearchIndex``.
        lengths: (B,) int64 valid steps, likewise.
        targets: (G,) int64 steps to resample each item to: its own length if searches resample the queries, the
            queries' length if they resample the items. None: its own.
        squared: whether the summaries are for squared distances.
        directions: (K, D), orthonormal, of the coordinates of means, e.g. those of other items that are searched
            together with these. Any are valid; bounds are tightest along the directions in which items vary most.
            None: compute them from these items.

    Returns:
        the summaries, for ``SearchIndex(database, lengths, summaries)``.

    Raises:
        ValueError, TypeError: for inputs of the wrong shape, dtype or range.
    """
    index = SearchIndex(database, lengths)
    targets = index.lengths if targets is None else targets
    if targets.shape != index.lengths.shape or targets.dtype != torch.int64 or bool((targets < 1).any()):
        raise ValueError(
            f"summarize: expected targets ({len(index)},) int64, each at least 1, got {tuple(targets.shape)} of "
            f"{targets.dtype}"
        )
    dim = index.like.shape[2]
    if directions is not None:
        _check_directions("summarize: expected directions", directions, dim)
        index._directions = directions.to(index.dtype)
    means = torch.zeros(len(index), sum(_level_sizes(dim)), dtype=index.dtype, device=index.device)
    for target in targets.unique().tolist():
        chosen = (targets == target).nonzero()[:, 0]
        first = 0
        for levels in index._level_means(chosen, target, squared):
            part = chosen[first : first + len(levels[0])]
            first += len(part)
            begin = 0
            for size, level in zip(_level_sizes(dim), levels, strict=True):
                flat = level.flatten(1)
                means[part, begin : begin + flat.shape[1]] = flat
                begin += size
    return Summaries(index.directions, index.norms, targets, squared, means)


def _level_sizes(dim: int) -> list[int]:
    """Return how many numbers of an item each level stores. An item with few steps uses the first ones."""
    return [level.segments * min(level.rank, dim) for level in _LEVELS]


def _split_levels(means: Tensor, target: int, dim: int) -> list[Tensor]:
    """Split means of items that were resampled to `target` steps into levels: (G, W) -> (G, S, R) each."""
    parts = means.split(_level_sizes(dim), 1)
    return [
        part[:, : min(level.segments, target) * min(level.rank, dim)].unflatten(1, (-1, min(level.rank, dim)))
        for level, part in zip(_LEVELS, parts, strict=True)
    ]


def _check_summaries(summaries: Summaries, index: SearchIndex) -> Summaries:
    dim, count = index.like.shape[2], len(index)
    expected = {"norms": (count,), "targets": (count,), "means": (count, sum(_level_sizes(dim)))}
    for name, shape in expected.items():
        value = getattr(summaries, name)
        dtype = torch.int64 if name == "targets" else index.dtype
        if (tuple(value.shape), value.dtype, value.device) != (shape, dtype, index.device):
            raise ValueError(
                f"SearchIndex: expected summaries.{name} {shape} of {dtype} on {index.device}, as summarize returns "
                f"them for these items, got {tuple(value.shape)} of {value.dtype} on {value.device}"
            )
    _check_directions("SearchIndex: expected summaries.directions", summaries.directions, dim)
    return summaries


def _check_directions(expected: str, directions: Tensor, dim: int) -> None:
    if directions.ndim != 2 or directions.shape[1] != dim:
        raise ValueError(f"{expected} (K, {dim}), got {tuple(directions.shape)}")
