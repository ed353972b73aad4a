"""Settings of what a batch is contrasted with and which tasks are learned beside. Imports no torch.

Two papers are meant by the sources and tasks: CM-ACC, "Active Contrastive Learning of Audio-Visual Video
Representations" (arXiv 2009.09805), and "Audio-Visual Contrastive Learning with Temporal Self-Supervision" (arXiv
2302.07702). Sizes and weights marked as assumptions are ours.
"""

from dataclasses import dataclass
from typing import Literal

from scav_model.fields import assumed, documented, require, setting

SOURCES = ("batch", "queue", "random", "active", "bank")


@documented
@dataclass(frozen=True)
class NegativesConfig:
    """Sources of a clip's negatives and further positives."""

    source: Literal["batch", "queue", "random", "active", "bank"] = setting(
        "batch",
        "batch: the batch's other clips (SCAV, CAV). queue: the latest clips as a momentum encoder saw them (MoCo). "
        "random: some of a pool of them. active: those of a pool that CM-ACC selects. bank: the batch's other clips, "
        "and for each clip positives and negatives of its own from a memory bank (temporal self-supervision).",
    )
    size: int = assumed(1024, "Clips in the dictionary of queue, random and active, or in the memory bank.")
    pool: int = assumed(4096, "Latest clips that random and active select their dictionary from; at least size.")
    encode_anew: bool = assumed(
        False,
        "Draw the pool of random and active from all training clips and encode it anew for each selection, as CM-ACC "
        "does; false takes the latest clips as they were encoded, which costs nothing.",
    )
    copy_mark: str | None = setting(
        None,
        "Text before the number of a copy in an id: clips whose ids agree up to it are one clip, and not negatives "
        "of each other in queue, random and active. null takes every id for a clip of its own.",
    )
    every: int = assumed(1, "Steps between two selections of random and active.")
    momentum: float = assumed(0.999, "Share of a momentum encoder's weights kept in a step (MoCo's 0.999).")
    neighbors: int = assumed(
        1, "Clips of the bank that become a clip's positives: those nearest to it.", old_name="neighbours"
    )
    candidates: int = assumed(256, "Clips of the bank, next nearest after those, to draw a clip's negatives from.")
    hard: int = assumed(16, "Negatives that a clip draws from its candidates in each step.")

    def __post_init__(self) -> None:
        require(self.source in SOURCES, "negatives.source", f"one of {', '.join(SOURCES)}", self.source)
        for name in ("size", "every", "candidates", "hard"):
            require(getattr(self, name) >= 1, f"negatives.{name}", "at least 1", getattr(self, name))
        require(self.neighbors >= 0, "negatives.neighbors", "at least 0", self.neighbors)
        require(0 <= self.momentum < 1, "negatives.momentum", "at least 0 and below 1", self.momentum)
        if self.source in ("random", "active"):
            require(self.pool >= self.size, "negatives.pool", f"at least negatives.size ({self.size})", self.pool)
        takes_mark = self.copy_mark is None or (self.copy_mark and self.source in ("queue", "random", "active"))
        require(bool(takes_mark), "negatives.copy_mark", "null, or a text with queue, random or active", self.copy_mark)
        if self.encode_anew:
            selected = self.source in ("random", "active")
            require(selected, "negatives.source", "random or active with negatives.encode_anew", self.source)
        if self.source == "bank":
            require(
                self.hard <= self.candidates, "negatives.hard", f"at most candidates ({self.candidates})", self.hard
            )
            room = self.size > self.neighbors + self.candidates
            require(room, "negatives.size", "above neighbors + candidates for the bank to hold them", self.size)


@documented
@dataclass(frozen=True)
class TasksConfig:
    """Tasks about time, learned beside the contrast; a task of weight 0 is left out."""

    speed: float = assumed(0.0, "Weight of telling an excerpt's playback speed (1, 2, 4 or 8 times), in each modality.")
    direction: float = assumed(0.0, "Weight of telling whether an excerpt runs backwards, in each modality.")
    ordering: float = assumed(
        0.0,
        "Weight of telling whether of two excerpts the first comes first, comes second or overlaps with the other, "
        "within each modality and across them.",
    )
    hidden: int = assumed(256, "Width of a task head's hidden layer.")
    manifest: str | None = setting(
        None,
        "Manifest of the clips' media files: excerpts are cut from the decoded clips, played as the task says, and go "
        "through the front ends patches and log_mel. null cuts stored features instead, an approximation.",
    )
    frame_rate: float = setting(
        5.0, "Frames per second of clips that are played: what the features were extracted at (scav extract's default)."
    )

    def __post_init__(self) -> None:
        for name in ("speed", "direction", "ordering"):
            require(getattr(self, name) >= 0, f"tasks.{name}", "at least 0", getattr(self, name))
        require(self.hidden >= 1, "tasks.hidden", "at least 1", self.hidden)
        require(self.frame_rate > 0, "tasks.frame_rate", "above 0", self.frame_rate)

    @property
    def any(self) -> bool:
        """True if there is a task to learn."""
        return self.speed + self.direction + self.ordering > 0
