"""A database, and the summaries of it that searches share."""

from typing import NamedTuple

import torch
from torch import Tensor

from scav_kernels.ops.common import accumulation_dtype, check_tensors
from scav_kernels.search.kernels import largest_norms, segment_means, to_panels
from scav_kernels.search.summaries import DENSE, LISTED, Level, coarser_means, in_coordinates, principal_directions

# Numbers of a database that are converted at a time: 64 MiB of float32; and means that are, which stay in cache.
_CONVERTED = 1 << 24
_AVERAGED = 1 << 20
# Steps from which principal directions are found, and directions that are kept.
_SAMPLED_STEPS = 4096
_DIRECTIONS = 63


def check_range(op: str, name: str, lengths: Tensor | None, steps: int) -> None:
    if lengths is not None and len(lengths) and not (lengths.min() >= 1 and lengths.max() <= steps):
        raise ValueError(
            f"{op}: expected {name} from 1 to {steps}, got {int(lengths.min())} to {int(lengths.max())}; "
            "every sequence has at least one step and no more than the tensor holds"
        )


class Summaries(NamedTuple):
    """Of B items: panels (⌈B / LANES⌉, S, R, LANES) of each level of DENSE, and (B, S, R) of LISTED."""

    panels: tuple[Tensor, ...]
    listed: Tensor


class SearchIndex:
    """A database (G, M, D), which is neither copied nor changed, for repeated ``topk``.

    Summaries are made when a search first asks for them and kept. A bound over S segments in R coordinates takes
    4·S·R bytes an item, one over all M steps 4·M·R; where the database is the side that is resampled, one such set for
    each length of a query. ``database`` may be memory-mapped: items are read by block for summaries and one by one for
    distances.

    Args:
        database: (G, M, D), float32, float64, bfloat16 or float16.
        lengths: (G,) int64 valid steps, 1 ≤ length ≤ M; None: all.

    Raises:
        ValueError, TypeError: for inputs of the wrong shape, dtype or range.
    """

    def __init__(self, database: Tensor, lengths: Tensor | None = None) -> None:
        check_tensors("SearchIndex", database=database, lengths=lengths)
        torch.ops.scav.check_pairs("SearchIndex", database, database, lengths, lengths, False)
        check_range("SearchIndex", "lengths", lengths, database.shape[1])
        self.steps = database.detach()
        self.lengths = (
            torch.full((len(database),), database.shape[1], device=database.device) if lengths is None else lengths
        )
        self.dtype = accumulation_dtype(database)
        # Items of one length lie together.
        self.order = self.lengths.argsort(stable=True)
        self._sorted = self.lengths[self.order].contiguous()
        self._norms: Tensor | None = None
        self._directions: Tensor | None = None
        self._summaries: dict[tuple[int, int, int, bool], Summaries] = {}
        self._coordinates: dict[tuple[int, bool], Tensor] = {}

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def block(self) -> int:
        """Items that are converted at a time."""
        return max(1, _CONVERTED // max(1, self.steps[0].numel()))

    @property
    def norms(self) -> Tensor:
        """(G,) the largest norm of each item's valid steps, inf where one is not finite."""
        if self._norms is None:
            self._norms = largest_norms(self.steps, self.lengths)
        return self._norms

    @property
    def directions(self) -> Tensor:
        """(at most 63, D): in which the database's steps vary most."""
        if self._directions is None:
            chosen = torch.linspace(0, len(self) - 1, min(len(self), _SAMPLED_STEPS), device=self.steps.device).long()
            place = torch.arange(len(chosen), device=self.steps.device) * 7919 % self.lengths[chosen]
            sample = self.steps[chosen, place]
            self._directions = principal_directions(sample, _DIRECTIONS).to(self.dtype)
        return self._directions

    def range_of_lengths(self, shortest: int, longest: int) -> tuple[int, int]:
        """Where items of these lengths, both included, lie in `order`."""
        edges = torch.tensor([shortest, longest + 1], device=self._sorted.device)
        first, end = torch.searchsorted(self._sorted, edges).tolist()
        return first, end

    def distinct_lengths(self) -> list[int]:
        """Ascending."""
        return self._sorted.unique_consecutive().tolist()

    def summaries(self, first: int, end: int, target: int, squared: bool) -> Summaries:
        """Of items order[first:end] resampled to `target` steps."""
        key = (first, end, target, squared)
        if key not in self._summaries:
            self._summaries[key] = self._summarise(*key)
        return self._summaries[key]

    def _summarise(self, first: int, end: int, target: int, squared: bool) -> Summaries:
        made: dict[Level, list[Tensor]] = {level: [] for level in (*DENSE, LISTED)}
        segments = min(LISTED.segments, target)
        some = max(1, _AVERAGED // max(1, segments * self.steps.shape[2]))
        for begin in range(first, end, some):
            chosen = self.order[begin : min(begin + some, end)]
            finest = segment_means(self.steps, self.lengths, chosen, target, segments, squared)
            for level, parts in made.items():
                means = coarser_means(finest, target, level.segments, squared)
                parts.append(in_coordinates(means, self.directions[: level.rank - 1]))
        return Summaries(tuple(to_panels(torch.cat(made[level])) for level in DENSE), torch.cat(made[LISTED]))

    def coordinates(self, rank: int, unit: bool) -> Tensor:
        """All steps in few coordinates (G, M, R); of steps of length 1/√2 where `unit`, so that their squared distances
        are 1 − cos."""
        key = (rank, unit)
        if key not in self._coordinates:
            parts = []
            for begin in range(0, len(self), self.block):
                rows = self.steps[begin : begin + self.block].to(self.dtype)
                parts.append(step_coordinates(rows, self.directions[: rank - 1], unit))
            self._coordinates[key] = torch.cat(parts)
        return self._coordinates[key]


def step_coordinates(rows: Tensor, directions: Tensor, unit: bool) -> Tensor:
    if unit:
        rows = rows / (rows.norm(dim=2, keepdim=True).clamp(min=1e-8) * 2**0.5)
    return in_coordinates(rows, directions)
