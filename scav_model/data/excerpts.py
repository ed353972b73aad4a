"""Excerpts of clips, played at another speed or backwards: from stored features, or from what was decoded.

An excerpt is named by when it begins, as a share of its clip, how fast it is played and which way. Played, it lasts a
share of the clip, the same for a whole batch, so that its length tells nothing; it takes in `speed` times as much.

Where a clip has n steps, frames or samples, an excerpt of `share` has ⌊n · share⌋; the k-th is the clip's
⌊n · start⌋ + speed · k, counted from the end where it runs backwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scav_model.data.batches import Batch
from scav_model.data.decode import Media
from scav_model.extras import needed_by

# Thirty tenths of a clip of 50 steps are 15 steps, whatever 50 · 0.3 rounds to.
SLACK = 1e-6


@dataclass(frozen=True)
class Excerpts:
    """Part of each of B clips that is played, in one modality."""

    start: Tensor  # (B,) float64, share of the clip before the excerpt, from 0 to 1 − speed · share
    speed: Tensor  # (B,) int64, times as fast
    backwards: Tensor  # (B,) bool
    share: float  # of the clip's duration that the excerpt lasts, played

    def places(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """For clips of `lengths` (B,) steps: step numbers (B, L), padded by repeating one, and how many count (B,).

        An excerpt has at least one step, and none lies outside its clip.
        """
        lengths = lengths.cpu()
        counts = (lengths * self.share + SLACK).long().clamp(min=1)
        # A clip too short for its excerpt is played from its first step, as far as it goes.
        counts = torch.minimum(counts, (lengths - 1) // self.speed + 1)
        span = (counts - 1) * self.speed + 1
        first = torch.minimum((lengths * self.start + SLACK).long(), lengths - span)
        order = torch.minimum(torch.arange(int(counts.max())), counts[:, None] - 1)
        order = torch.where(self.backwards[:, None], counts[:, None] - 1 - order, order)
        return first[:, None] + order * self.speed[:, None], counts


def cut_features(batch: Batch, video: Excerpts, audio: Excerpts) -> Batch:
    """The excerpts, of stored features: every speed-th step, in either order.

    For features of single frames that is what playing the clip so would give. Otherwise it approximates it: sound
    played faster is higher too, sound played backwards swells where it rang out, within a step as well, and an encoder
    with context has seen the steps that were left out.
    """

    def cut(steps: Tensor, lengths: Tensor, excerpts: Excerpts) -> tuple[Tensor, Tensor]:
        places, counts = excerpts.places(lengths)
        rows = torch.arange(len(steps), device=steps.device)[:, None]
        found = steps[rows, places.to(steps.device)]
        beyond = torch.arange(found.shape[1]) >= counts[:, None]
        return found.masked_fill(beyond.to(steps.device)[..., None], 0), counts.to(lengths.device)

    frames, frame_counts = cut(batch.video, batch.video_lengths, video)
    sounds, sound_counts = cut(batch.audio, batch.audio_lengths, audio)
    return Batch(frames, frame_counts, sounds, sound_counts, batch.ids)


def play(media: Media, video: Excerpts, audio: Excerpts, clip: int) -> Media:
    """Excerpt number `clip` of a decoded clip, truly played: what one would see and hear.

    Frames are every speed-th one, in either order. The samples of the whole span, turned round where it runs backwards,
    are resampled to a speed-th of their number, so that all frequencies rise by the speed, as on a tape.
    """
    places, _ = one(video, clip).places(torch.tensor([len(media.frames)]))
    excerpt = one(audio, clip)
    speed = int(excerpt.speed)
    places_of_samples, _ = excerpt.places(torch.tensor([len(media.audio)]))
    first = int(places_of_samples.min())
    samples = torch.from_numpy(media.audio[first : first + places_of_samples.shape[1] * speed])
    if bool(excerpt.backwards):
        samples = samples.flip(0)
    with needed_by("playing excerpts", "torchaudio"):
        from torchaudio.functional import resample
    played = resample(samples, speed, 1)
    return Media(media.frames[places[0].numpy()], played.numpy())


def one(excerpts: Excerpts, clip: int) -> Excerpts:
    """The excerpt of one clip of the batch."""
    row = slice(clip, clip + 1)
    return Excerpts(excerpts.start[row], excerpts.speed[row], excerpts.backwards[row], excerpts.share)
