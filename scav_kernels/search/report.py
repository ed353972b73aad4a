"""The report of a search: where its pairs went."""

from dataclasses import dataclass, field

# The last stage: scoring in the order of bounds stops at the first bound that exceeds the k-th distance.
STOPPED = "order of bounds"
# The first stage of an approximate search: the pairs with the smallest bounds are kept.
CANDIDATES = "choice of candidates"


@dataclass
class StageReport:
    """One lower bound of the cascade: the pairs that it was computed for, and those that it removed."""

    name: str
    seen: int = 0
    removed: int = 0


@dataclass
class SearchReport:
    """Counts of the pairs of a search: ``pairs = Σ removed + scored``.

    Attributes:
        pairs: queries times items.
        stages: lower bounds, in the order in which they were applied; empty if the search was exhaustive.
        scored: pairs whose distance was computed, the abandoned ones included.
        abandoned: pairs whose distance was computed only until it exceeded the k-th.
        exhaustive: why no bound was used; None if bounds were used.
        approximate: whether only `candidates` were compared, so that items can be missing.
    """

    pairs: int = 0
    stages: list[StageReport] = field(default_factory=list)
    scored: int = 0
    abandoned: int = 0
    exhaustive: str | None = None
    approximate: bool = False

    @property
    def removed(self) -> int:
        """The number of pairs whose distance was not computed."""
        return sum(stage.removed for stage in self.stages)

    def __str__(self) -> str:
        lines = [f"{self.pairs} pairs"]
        for stage in self.stages:
            lines.append(f"  {stage.name}: {stage.removed} of {stage.seen} removed")
        lines.append(f"  scored: {self.scored}, of them abandoned: {self.abandoned}")
        if self.exhaustive:
            lines.append(f"  exhaustive: {self.exhaustive}")
        if self.approximate:
            lines.append("  approximate: only candidates were compared")
        return "\n".join(lines)
