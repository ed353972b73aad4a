"""A database, and the summaries of it that searches share."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from scav_kernels.dtypes import accumulation_dtype
from scav_kernels.ops.common import check_tensors
from scav_kernels.search.kernels import largest_norms, segment_means, to_panels
from scav_kernels.search.summaries import DENSE, LISTED, coarser_means, in_coordinates, principal_directions

# Numbers of a database that are converted at a time: 64 MiB of float32; and means that are, which stay in cache.
_CONVERTED = 1 << 24
_AVERAGED = 1 << 20
# Steps from which principal directions are found, and directions that are kept.
_SAMPLED_STEPS = 4096
_DIRECTIONS = 63
_LEVELS = (*DENSE, LISTED)


def check_range(op: str, name: str, lengths: Tensor | None, steps: int) -> None:
    if lengths is not None and len(lengths) and not (lengths.min() >= 1 and lengths.max() <= steps):
        raise ValueError(
            f"{op}: expected {name} from 1 to {steps}, got {int(lengths.min())} to {int(lengths.max())}; "
            "every sequence has at least one step and no more than the tensor holds"
        )


@runtime_checkable
class Reader(Protocol):
    """G sequences that are read some at a time, such as from a file.

    Attributes:
        lengths: (G,) int64 steps, on the device of what is read.
        dim: D.
        dtype: of what is read.
    """

    lengths: Tensor
    dim: int
    dtype: torch.dtype

    def read(self, items: Tensor) -> Tensor:
        """(B, M, D) of items (B,) int64, M the most steps of any of the G; what lies beyond a length counts for
        nothing. The next reading may overwrite it."""


class Summaries(NamedTuple):
    """What lower bounds of interpolated Euclidean distances are made of: all that a search reads of most items.

    Attributes:
        directions: (K, D) of all items, orthonormal.
        norms: (G,) the largest norm of each item's steps.
        targets: (G,) int64 steps that each item was resampled to.
        squared: whether they are of squared distances.
        means: (G, W) of each level of bounds the means of segments, in few coordinates, side by side.
    """

    directions: Tensor
    norms: Tensor
    targets: Tensor
    squared: bool
    means: Tensor


class Panels(NamedTuple):
    """Of B items: panels (⌈B / LANES⌉, S, R, LANES) of each level of DENSE, and (B, S, R) of LISTED."""

    dense: tuple[Tensor, ...]
    listed: Tensor


class SearchIndex:
    """A database (G, M, D), which is neither copied nor changed, for repeated ``topk``.

    Summaries are made when a search first asks for them and kept. A bound over S segments in R coordinates takes
    4·S·R bytes an item, one over all M steps 4·M·R; where the database is the side that is resampled, one such set for
    each length of a query. ``database`` may be memory-mapped: items are read by block for summaries and one by one for
    distances.

    Args:
        database: (G, M, D), float32, float64, bfloat16 or float16; or a Reader, which brings its own lengths.
        lengths: (G,) int64 valid steps, 1 ≤ length ≤ M; None: all.
        summaries: of these items, made by ``summarise``, which no search has to make then where it is of their kind
            and their targets are those that the search asks for; others are made.

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
            # Of the shape and dtype of what is read.
            self._steps = torch.empty(0, longest, database.dim, dtype=database.dtype, device=lengths.device)
            torch.ops.scav.check_pairs("SearchIndex", self._steps, self._steps, None, None, False)
        else:
            check_tensors("SearchIndex", database=database, lengths=lengths)
            torch.ops.scav.check_pairs("SearchIndex", database, database, lengths, lengths, False)
            self._steps = database.detach()
            if lengths is None:
                lengths = torch.full((len(database),), database.shape[1], device=database.device)
        check_range("SearchIndex", "lengths", lengths, self._steps.shape[1])
        self.lengths = lengths
        self.dtype = accumulation_dtype(self._steps)
        # Items of one length lie together.
        self.order = self.lengths.argsort(stable=True)
        self._sorted = self.lengths[self.order].contiguous()
        self._given = None if summaries is None else _checked(summaries, self)
        # Items of which it has not yet been used: when there are none, panels are all that is needed of it.
        self._given_left = len(self)
        self._norms = None if summaries is None else summaries.norms
        self._directions = None if summaries is None else summaries.directions
        self._panels: dict[tuple[int, int, int, bool], Panels] = {}
        self._coordinates: dict[tuple[int, bool], Tensor] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def like(self) -> Tensor:
        """(0, M, D): a database of this kind without items."""
        return self._steps[:0]

    @property
    def device(self) -> torch.device:
        return self._steps.device

    @property
    def is_read(self) -> bool:
        """Whether items have to be read before they are there."""
        return self._reader is not None

    def held(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sequences (B, M, D) and lengths (B,) among which the items (P,) have places (P,): of a tensor all of it, as
        it is; of a Reader these items, once each."""
        if self._reader is None:
            return self._steps, self.lengths, items
        distinct, places = items.unique(return_inverse=True)
        return self._reader.read(distinct), self.lengths[distinct], places

    def rows(self, items: Tensor) -> Tensor:
        """(B, M, D) of items (B,), a copy."""
        steps, _, places = self.held(items)
        return steps[places]

    @property
    def block(self) -> int:
        """Items that are converted, or read, at a time."""
        return max(1, _CONVERTED // max(1, self._steps.shape[1] * self._steps.shape[2]))

    def _blocks(self) -> Iterator[Tensor]:
        return iter(torch.arange(len(self), device=self.device).split(self.block))

    @property
    def norms(self) -> Tensor:
        """(G,) the largest norm of each item's valid steps, inf where one is not finite."""
        if self._norms is None:
            if self.is_read:
                self._norms = torch.cat([largest_norms(*self.held(items)[:2]) for items in self._blocks()])
            else:
                self._norms = largest_norms(self._steps, self.lengths)
        return self._norms

    @property
    def directions(self) -> Tensor:
        """(at most 63, D): in which the database's steps vary most."""
        if self._directions is None:
            chosen = torch.linspace(0, len(self) - 1, min(len(self), _SAMPLED_STEPS), device=self.device).long()
            place = torch.arange(len(chosen), device=self.device) * 7919 % self.lengths[chosen]
            sample = []
            for some, steps in zip(chosen.split(self.block), place.split(self.block), strict=True):
                held, _, places = self.held(some)
                sample.append(held[places, steps])
            self._directions = principal_directions(torch.cat(sample), _DIRECTIONS).to(self.dtype)
        return self._directions

    def range_of_lengths(self, shortest: int, longest: int) -> tuple[int, int]:
        """Where items of these lengths, both included, lie in `order`."""
        edges = torch.tensor([shortest, longest + 1], device=self._sorted.device)
        first, end = torch.searchsorted(self._sorted, edges).tolist()
        return first, end

    def distinct_lengths(self) -> list[int]:
        """Ascending."""
        return self._sorted.unique_consecutive().tolist()

    def panels(self, first: int, end: int, target: int, squared: bool) -> Panels:
        """Of items order[first:end] resampled to `target` steps."""
        key = (first, end, target, squared)
        if key not in self._panels:
            chosen = self.order[first:end]
            given = self._given
            if given is not None and given.squared == squared and bool((given.targets[chosen] == target).all()):
                # One after the other, for each is a copy.
                *dense, listed = _apart(given.means, target, self._steps.shape[2])
                self._panels[key] = Panels(tuple(to_panels(means[chosen]) for means in dense), listed[chosen])
                self._given_left -= end - first
                if self._given_left <= 0:
                    self._given = None
            else:
                *dense, listed = (torch.cat(part) for part in zip(*self._levels(chosen, target, squared), strict=True))
                self._panels[key] = Panels(tuple(map(to_panels, dense)), listed)
        return self._panels[key]

    def _levels(self, items: Tensor, target: int, squared: bool) -> Iterator[list[Tensor]]:
        """Of some items at a time, in each level's form (B, S, R)."""
        segments = min(LISTED.segments, target)
        some = max(1, _AVERAGED // max(1, segments * self._steps.shape[2]))
        for chosen in items.split(min(some, self.block)):
            steps, lengths, places = self.held(chosen)
            finest = segment_means(steps, lengths, places, target, segments, squared)
            yield [
                in_coordinates(
                    coarser_means(finest, target, level.segments, squared), self.directions[: level.rank - 1]
                )
                for level in _LEVELS
            ]

    def coordinates(self, rank: int, unit: bool) -> Tensor:
        """All steps in few coordinates (G, M, R); of steps of length 1/√2 where `unit`, so that their squared distances
        are 1 − cos."""
        key = (rank, unit)
        if key not in self._coordinates:
            directions = self.directions[: rank - 1]
            self._coordinates[key] = torch.cat(
                [step_coordinates(self.rows(items).to(self.dtype), directions, unit) for items in self._blocks()]
            )
        return self._coordinates[key]


def step_coordinates(rows: Tensor, directions: Tensor, unit: bool) -> Tensor:
    if unit:
        rows = rows / (rows.norm(dim=2, keepdim=True).clamp(min=1e-8) * 2**0.5)
    return in_coordinates(rows, directions)


def summarise(
    database: Tensor | Reader,
    lengths: Tensor | None = None,
    targets: Tensor | None = None,
    *,
    squared: bool = False,
    directions: Tensor | None = None,
) -> Summaries:
    """What ``SearchIndex`` would make of a database for its lower bounds, to be kept with it.

    Args:
        database, lengths: as of ``SearchIndex``.
        targets: (G,) int64 steps to resample each item to: its own where the queries are what a search resamples, the
            queries' where the items are. None: their own.
        squared: for squared distances.
        directions: (K, D), orthonormal, along which means are kept, such as those of other items that are searched
            together with these; any are valid, and those in which items vary most bound best. None: of these items.

    Raises:
        ValueError, TypeError: for inputs of the wrong shape, dtype or range.
    """
    index = SearchIndex(database, lengths)
    targets = index.lengths if targets is None else targets
    if targets.shape != index.lengths.shape or targets.dtype != torch.int64 or bool((targets < 1).any()):
        raise ValueError(
            f"summarise: expected targets ({len(index)},) int64, each at least 1, got {tuple(targets.shape)} of "
            f"{targets.dtype}"
        )
    dim = index.like.shape[2]
    if directions is not None:
        _check_directions("summarise: expected directions", directions, dim)
        index._directions = directions.to(index.dtype)
    means = torch.zeros(len(index), sum(_sizes(dim)), dtype=index.dtype, device=index.device)
    for target in targets.unique().tolist():
        chosen = (targets == target).nonzero()[:, 0]
        first = 0
        for levels in index._levels(chosen, target, squared):
            some = chosen[first : first + len(levels[0])]
            first += len(some)
            begin = 0
            for size, level in zip(_sizes(dim), levels, strict=True):
                flat = level.flatten(1)
                means[some, begin : begin + flat.shape[1]] = flat
                begin += size
    return Summaries(index.directions, index.norms, targets, squared, means)


def _sizes(dim: int) -> list[int]:
    """Numbers that each level keeps of an item; of one of fewer steps than segments the first ones."""
    return [level.segments * min(level.rank, dim) for level in _LEVELS]


def _apart(means: Tensor, target: int, dim: int) -> list[Tensor]:
    """(G, W) -> (G, S, R) of each level, of items that were resampled to `target` steps."""
    parts = means.split(_sizes(dim), 1)
    return [
        part[:, : min(level.segments, target) * min(level.rank, dim)].unflatten(1, (-1, min(level.rank, dim)))
        for level, part in zip(_LEVELS, parts, strict=True)
    ]


def _checked(summaries: Summaries, index: SearchIndex) -> Summaries:
    dim, count = index.like.shape[2], len(index)
    expected = {"norms": (count,), "targets": (count,), "means": (count, sum(_sizes(dim)))}
    for name, shape in expected.items():
        found = getattr(summaries, name)
        dtype = torch.int64 if name == "targets" else index.dtype
        if (tuple(found.shape), found.dtype, found.device) != (shape, dtype, index.device):
            raise ValueError(
                f"SearchIndex: expected summaries.{name} {shape} of {dtype} on {index.device}, as summarise makes them "
                f"of these items, got {tuple(found.shape)} of {found.dtype} on {found.device}"
            )
    _check_directions("SearchIndex: expected summaries.directions", summaries.directions, dim)
    return summaries


def _check_directions(expected: str, directions: Tensor, dim: int) -> None:
    if directions.ndim != 2 or directions.shape[1] != dim:
        raise ValueError(f"{expected} (K, {dim}), got {tuple(directions.shape)}")
