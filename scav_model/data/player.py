"""Excerpts truly played: clips decoded anew, cut and played, and passed through the front ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from scav_model.data.batches import Batch
from scav_model.data.decode import DEFAULT_LIMITS, DecodeError, Limits, Media, decode
from scav_model.data.excerpts import Excerpts, cut_features, play
from scav_model.data.frontends import FramePatchConfig, FramePatches, LogMel, LogMelConfig
from scav_model.data.manifest import Clip, read_manifest
from scav_model.data.pictures import Square

# Cuts the excerpts of a batch's clips, whatever from.
Cut = Callable[[Batch, Excerpts, Excerpts], Batch]


class Player:
    """Cuts excerpts from the media files that a manifest names; several clips are decoded and played at a time.

    Args:
        manifest: Where the clips' media files are.
        read: Decodes a clip; a DecodeError says why it cannot.
        see: Frames (N, S, S, 3) to the steps (N, Dv) that they have among the stored features.
        hear: Samples to steps (M, Da), in the same way.
        threads: Clips at a time; None is one per core, eight at most.
    """

    def __init__(
        self,
        manifest: Path | str,
        read: Callable[[Clip], Media],
        see: Callable[[NDArray[np.uint8]], Tensor],
        hear: Callable[[NDArray[np.float32]], Tensor],
        threads: int | None = None,
    ) -> None:
        self.clips = {clip.id: clip for clip in read_manifest(manifest)}
        self.manifest, self.read, self.see, self.hear = manifest, read, see, hear
        self.pool = ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1))
        # Of the latest batch, which several tasks cut one after the other.
        self.decoded: dict[str, Media] = {}

    def __call__(self, batch: Batch, video: Excerpts, audio: Excerpts) -> Batch:
        """The excerpts as features, on the batch's device.

        A clip that the manifest lacks, that cannot be decoded, or whose steps are of another size than the batch's is a
        ValueError.
        """
        missing = [name for name in batch.ids if name not in self.clips]
        if missing:
            raise ValueError(
                f"{self.manifest} has no clip {missing[0]!r}, which is trained on; name the manifest that the features "
                "were extracted from, or leave tasks.manifest out to cut stored features"
            )
        self.decoded = self._decode(batch.ids)

        def played(index: int) -> tuple[Tensor, Tensor]:
            excerpt = play(self.decoded[batch.ids[index]], video, audio, index)
            return self.see(excerpt.frames), self.hear(excerpt.audio)

        steps = [*self.pool.map(played, range(len(batch)))]
        sizes = [side.shape[1] for side in steps[0]]
        if [batch.video.shape[2], batch.audio.shape[2]] != sizes:
            raise ValueError(
                f"the features have {batch.video.shape[2]} and {batch.audio.shape[2]} numbers per step, but clips are "
                f"decoded into the front ends' {sizes[0]} and {sizes[1]}; leave tasks.manifest out to cut stored ones"
            )
        lengths = [torch.tensor([len(side[index]) for side in steps]) for index in (0, 1)]
        padded = [pad_sequence([side[index] for side in steps], batch_first=True) for index in (0, 1)]
        return Batch(padded[0], lengths[0], padded[1], lengths[1], batch.ids).to(batch.video.device)

    def _decode(self, ids: Sequence[str]) -> dict[str, Media]:
        def media(name: str) -> Media:
            clip = self.clips[name]
            try:
                return self.read(clip)
            except DecodeError as error:
                raise ValueError(f"clip {name!r} cannot be played, {clip.path}: {error}") from error

        missing = [name for name in ids if name not in self.decoded]
        found = dict(zip(missing, self.pool.map(media, missing), strict=True))
        return {name: found.get(name) or self.decoded[name] for name in ids}


def plain_player(
    manifest: Path | str, frame_rate: float, threads: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> Player:
    """Return a player with the front ends that need no download.

    Args:
        manifest: Where the clips' media files are.
        frame_rate: Frames per second.
        threads: As `Player` takes it.
        limits: Bounds on what a clip may decode to.
    """
    frames, audio = FramePatchConfig(), LogMelConfig()

    def read(clip: Clip) -> Media:
        return decode(
            clip.path,
            frame_rate=frame_rate,
            # Of its own, for several threads read at a time.
            picture=Square(frames.frame_size),
            sample_rate=audio.sample_rate,
            start=clip.start,
            duration=clip.duration,
            limits=limits,
        )

    return Player(manifest, read, FramePatches(frames), LogMel(audio), threads)


def cutter(manifest: Path | str | None, frame_rate: float, limits: Limits = DEFAULT_LIMITS) -> Cut:
    """Return a player of the manifest's clips, or, without one, the approximation on stored features."""
    return cut_features if manifest is None else plain_player(manifest, frame_rate, limits=limits)
