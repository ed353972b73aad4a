"""Batches: the next is read during a step on the current one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from scav_model.data import Batch, Features, collate


class Loader:
    """Reads clips on one thread of its own. Reading draws nothing at random, so when it happens changes no result."""

    def __init__(self, features: Features, device: torch.device) -> None:
        self.features = features
        self.device = device
        self.reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scav-batches")
        self.coming: Iterator[list[int]] = iter(())
        self.ahead: tuple[list[int], Future[Batch]] | None = None

    def expect(self, batches: Iterable[Sequence[int]]) -> None:
        """The clips of the batches that will be asked for, in order."""
        self.coming = map(list, batches)
        self.read_ahead()

    def load(self, clips: Sequence[int]) -> Batch:
        """The batch of these clips on the device, whether it was expected or not."""
        if self.ahead is None or self.ahead[0] != list(clips):
            return collate(self.features, clips).to(self.device)
        batch = self.ahead[1].result()
        self.read_ahead()
        return batch.to(self.device)

    def read_ahead(self) -> None:
        clips = next(self.coming, None)
        self.ahead = None if clips is None else (clips, self.reader.submit(collate, self.features, clips))

    def close(self) -> None:
        self.reader.shutdown(wait=True, cancel_futures=True)
