"""Heads that learn the tasks about time beside the contrast, and how well they know held-out clips."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from scav_model.data import Batch, Features, collate
from scav_model.data.player import Cut, cutter
from scav_model.distances import Sequences
from scav_model.model import masked_mean
from scav_model.objective_config import TasksConfig
from scav_model.objectives.encoding import Encode
from scav_model.objectives.pretext import SPEEDS, draw_ordering, draw_playback

MODALITIES = ("video", "audio")
# Of the excerpts that held-out clips are asked about.
HELD_OUT_SEED = 0
# cross_entropy's mark of a row that takes no part.
IGNORED = -100


@dataclass(frozen=True)
class Answer:
    """Predictions of a head for B excerpts, and the right answers."""

    task: str  # speed, direction or ordering
    of: str  # the modality, or for ordering the two
    logits: Tensor  # (B, classes)
    truth: Tensor  # (B,) int64; IGNORED where the excerpt is too short to tell


def summary(clips: Sequences) -> Tensor:
    """(B, 4, D): each clip's first step, its mean step, its last, and the mean change from step to step, unsigned."""
    rows = torch.arange(len(clips.steps), device=clips.steps.device)
    last = clips.steps[rows, clips.lengths - 1]
    changes = (clips.lengths - 1).clamp(min=1)
    # A clip of a single step changes by nothing: there, what lies beyond it is left out by hand.
    padded = F.pad(clips.steps.diff(dim=1).abs(), (0, 0, 0, 1))
    change = masked_mean(padded, changes) * (clips.lengths > 1)[:, None]
    return torch.stack((clips.steps[:, 0], masked_mean(clips.steps, clips.lengths), last, change), dim=1)


def joined(first: Sequences, second: Sequences) -> Tensor:
    """(B, 11, D) of two excerpts: what each is, and how the start, mean and end of one meet the end, mean and start of
    the other, feature by feature. Two that follow each other look alike where they touch."""
    one, other = summary(first), summary(second)
    # Products of steps of length 1, brought back to the size of a step's features.
    return torch.cat((one, other, one[:, :3] * other[:, :3].flip(1) * one.shape[2] ** 0.5), dim=1)


class TemporalTasks(nn.Module):
    """The tasks of positive weight. A head is a norm and an MLP; each modality, and each pair of them, has its own."""

    def __init__(self, config: TasksConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.cut: Cut = cutter(config.manifest, config.frame_rate)
        weights = {"speed": config.speed, "direction": config.direction, "ordering": config.ordering}
        self.weights = {task: weight for task, weight in weights.items() if weight > 0}

        def head(parts: int, classes: int) -> nn.Module:
            size = parts * dim
            hidden = nn.Linear(size, config.hidden)
            return nn.Sequential(nn.LayerNorm(size), hidden, nn.GELU(), nn.Linear(config.hidden, classes))

        heads: dict[str, nn.Module] = {}
        for task, classes in (("speed", len(SPEEDS)), ("direction", 2)):
            if task in self.weights:
                heads |= {f"{task} {modality}": head(4, classes) for modality in MODALITIES}
        if "ordering" in self.weights:
            heads |= {f"ordering {one}-{other}": head(11, 3) for one in MODALITIES for other in MODALITIES}
        self.heads = nn.ModuleDict(heads)

    def forward(self, encode: Encode, batch: Batch) -> dict[str, Tensor]:
        """A loss per task in nats, times its weight: the mean cross-entropy over its heads."""
        losses: dict[str, list[Tensor]] = {}
        for answer in self.answers(encode, batch, None):
            total = F.cross_entropy(answer.logits, answer.truth, ignore_index=IGNORED, reduction="sum")
            told = (answer.truth != IGNORED).sum().clamp(min=1)
            losses.setdefault(answer.task, []).append(total / told)
        return {task: self.weights[task] * torch.stack(found).mean() for task, found in losses.items()}

    def answers(self, encode: Encode, batch: Batch, generator: Generator | None) -> list[Answer]:
        """One per head, on excerpts drawn by `generator`, a CPU's; None is PyTorch's own."""
        found: list[Answer] = []
        if "speed" in self.weights or "direction" in self.weights:
            found += self.playback(encode, batch, generator)
        if "ordering" in self.weights:
            found += self.ordering(encode, batch, generator)
        return found

    def playback(self, encode: Encode, batch: Batch, generator: Generator | None) -> list[Answer]:
        asked = {task: task in self.weights for task in ("speed", "direction")}
        drawn = [draw_playback(len(batch), generator, **asked) for _ in MODALITIES]
        encoded = encode(self.cut(batch, drawn[0].excerpts, drawn[1].excerpts))
        found = []
        for modality, plan, clips in zip(MODALITIES, drawn, encoded, strict=True):
            seen = summary(clips).flatten(1)
            for task, truth in (("speed", plan.speed), ("direction", plan.direction)):
                if asked[task]:
                    # A single step has neither speed nor direction.
                    truth = truth.to(seen.device).masked_fill(clips.lengths < 2, IGNORED)
                    found.append(Answer(task, modality, self.heads[f"{task} {modality}"](seen), truth))
        return found

    def ordering(self, encode: Encode, batch: Batch, generator: Generator | None) -> list[Answer]:
        plan = draw_ordering(len(batch), generator)
        firsts, seconds = (
            dict(zip(MODALITIES, encode(self.cut(batch, excerpts, excerpts)), strict=True))
            for excerpts in (plan.first, plan.second)
        )
        found = []
        for one in MODALITIES:
            for other in MODALITIES:
                logits = self.heads[f"ordering {one}-{other}"](joined(firsts[one], seconds[other]).flatten(1))
                found.append(Answer("ordering", f"{one}-{other}", logits, plan.order.to(logits.device)))
        return found

    @torch.no_grad()
    def accuracy(
        self, encode: Encode, features: Features, *, batch_size: int = 64, device: str | torch.device = "cpu"
    ) -> list[dict[str, Any]]:
        """One row per head: task, of, accuracy and chance in percent, clips that were told apart.

        Excerpts are drawn from a seed of their own, so the same for every model. `encode` should drop no activation.
        """
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        right: dict[tuple[str, str, int], Tensor] = {}
        for start in range(0, len(features), batch_size):
            batch = collate(features, range(start, min(start + batch_size, len(features)))).to(device)
            for answer in self.answers(encode, batch, generator):
                told = answer.truth != IGNORED
                hits = (answer.logits.argmax(1) == answer.truth) & told
                name = (answer.task, answer.of, answer.logits.shape[1])
                right[name] = right.get(name, 0) + torch.stack((hits.sum(), told.sum()))
        rows = []
        for (task, of, classes), count in right.items():
            hits, told = count.tolist()
            row = {"task": task, "of": of, "accuracy": 100 * hits / max(1, told), "chance": 100 / classes}
            rows.append(row | {"clips": told})
        return rows
