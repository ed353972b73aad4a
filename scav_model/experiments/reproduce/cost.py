"""Time and disk that a row of the table will take, from a few steps of training and the search of a few clips."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from scav_model.config import Config
from scav_model.data import Features, collate
from scav_model.distances import Sequences, retrieval_distance
from scav_model.training.launch import launch, numerics
from scav_model.training.loop import with_input_sizes
from scav_model.training.run import Run

BLOCK = 128  # clips that are encoded and compared with each other to time a search
STEPS = 2  # training steps that are timed, after one that is not
ADAM_BYTES = 12  # a weight in a checkpoint: float32, with AdamW's two moments
T = TypeVar("T")


@dataclass(frozen=True)
class RowCost:
    """Measured cost of one row.

    Attributes:
        steps: of the optimizer.
        train: seconds of training.
        search: seconds of encoding the test clips and of all searches.
        checkpoint: bytes of a checkpoint.
    """

    steps: int
    train: float
    search: float
    checkpoint: int


def measure(config: Config, splits: Mapping[str, Features], hybrid_k: Sequence[int]) -> RowCost:
    """Take some steps of training and search a block of test clips; return what all of it will cost."""
    train, test = splits["train"], splits["test"]
    config = with_input_sizes(config, train)
    distance = retrieval_distance(config)
    fabric = launch(config)
    devices = [fabric.device] if fabric.device.type == "cuda" else []

    def timed(action: Callable[[], T]) -> tuple[float, T]:
        started = time.perf_counter()
        result = action()
        if devices:
            torch.cuda.synchronize(fabric.device)
        return time.perf_counter() - started, result

    with torch.random.fork_rng(devices), numerics(config.compute):
        torch.manual_seed(config.seed)
        run = Run(config, train, fabric)
        try:
            clips = next(iter(run.remaining()))
            run.model.train()
            timed(lambda: run.take_step(clips))
            step = min(timed(lambda: run.take_step(clips))[0] for _ in range(STEPS))
        finally:
            run.loader.close()
        run.model.eval()
        count = min(BLOCK, len(test))
        with torch.no_grad():
            batch = collate(test, range(count)).to(fabric.device)
            encoding, (video, audio) = timed(
                lambda: run.model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
            )
            sides = Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)
            distance.all_pairs(*sides)
            comparing, _ = timed(lambda: distance.all_pairs(*sides))
        weights = sum(parameter.numel() for parameter in run.parameters)
    pairs = len(test) ** 2 + sum(2 * len(test) * k for k in hybrid_k if k < len(test))
    steps = run.steps * config.optim.epochs
    return RowCost(
        steps=steps,
        train=step * steps,
        search=encoding * len(test) / count + comparing * pairs / count**2,
        checkpoint=weights * (ADAM_BYTES + 4 * (config.optim.ema > 0)),
    )
