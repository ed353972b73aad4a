"""What a search did."""

from dataclasses import dataclass, field

# The last stage: pairs in the order of their bounds, up to the first whose bound exceeds the k-th distance.
STOPPED = "order of bounds"
# The first stage of an approximate search: bounds of all pairs, of which the least were taken.
CANDIDATES = "choice of candidates"


@dataclass
class StageReport:
    """One lower bound of the cascade: pairs that it was computed for, and pairs that it removed."""

    name: str
    seen: int = 0
    removed: int = 0


@dataclass
class SearchReport:
    """Where the pairs of a search went: ``pairs = Σ removed + scored``.

    Attributes:
        pairs: queries times items.
        stages: lower bounds, in the order in which pairs met them; empty where the search was exhaustive.
        scored: pairs whose distance was computed, all of it or, for the `abandoned` ones among them, until it was
            known to be beyond the k-th.
        abandoned: see `scored`.
        exhaustive: why no bound was used; None where some were.
        approximate: whether items were left out that may be among the nearest.
    """

    pairs: int = 0
    stages: list[StageReport] = field(default_factory=list)
    scored: int = 0
    abandoned: int = 0
    exhaustive: str | None = None
    approximate: bool = False

    @property
    def removed(self) -> int:
        """Pairs that no distance was computed for."""
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
