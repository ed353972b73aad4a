"""Dictionaries of encoded clips, and the contrast of a batch against them.

An entry is a whole sequence with its length and the key of its clip, so any distance can be taken to it.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scav_model.distances import Sequences
from scav_model.losses import ContrastiveLoss


class Entries(NamedTuple):
    """K encoded clips of one modality and whose they are."""

    clips: Sequences  # (K, T, dim)
    keys: Tensor  # (K,) int64

    def chosen(self, indices: Tensor) -> "Entries":
        """The entries at `indices` (C,), in that order."""
        return Entries(Sequences(self.clips.steps[indices], self.clips.lengths[indices]), self.keys[indices])


def clip_keys(ids: Sequence[str], device: torch.device | str = "cpu", copy_mark: str | None = None) -> Tensor:
    """Return a number per clip id, (B,) int64, that is the same in every run: 64 bits of its BLAKE2 digest.

    Ids that agree up to `copy_mark` have the same number.
    """
    names = ids if copy_mark is None else [name.partition(copy_mark)[0] for name in ids]
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests], device=device)


class Shelf(nn.Module):
    """Room for `size` entries of one modality, part of a checkpoint; as many steps each as the longest so far."""

    steps: Tensor
    lengths: Tensor
    keys: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(size, 1, dim))
        self.register_buffer("lengths", torch.ones(size, dtype=torch.int64))
        self.register_buffer("keys", torch.zeros(size, dtype=torch.int64))

    @torch.no_grad()
    def write(self, places: Tensor, entries: Entries) -> None:
        """Puts the entries (C) at `places` (C,)."""
        longer = entries.clips.steps.shape[1] - self.steps.shape[1]
        if longer > 0:
            self.steps = F.pad(self.steps, (0, 0, 0, longer))
        self.steps[places] = F.pad(entries.clips.steps, (0, 0, 0, max(0, -longer))).to(self.steps.dtype)
        self.lengths[places] = entries.clips.lengths
        self.keys[places] = entries.keys

    def first(self, count: int) -> Entries:
        """The entries at the first `count` places."""
        return Entries(Sequences(self.steps[:count], self.lengths[:count]), self.keys[:count])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        saved = state_dict.get(f"{prefix}steps")
        if saved is not None and saved.shape[::2] == self.steps.shape[::2]:
            self.steps = self.steps.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class Counters(nn.Module):
    """Whole numbers that are part of a checkpoint, and at hand without waiting for a device."""

    stored: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.values = (0,) * count
        self.register_buffer("stored", torch.zeros(count, dtype=torch.int64))

    def set(self, *values: int) -> None:
        """All of them anew."""
        self.values = values
        self.stored.copy_(torch.tensor(values))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.values = tuple(self.stored.tolist())


class Queue(nn.Module):
    """The latest `size` clips, both modalities; a new clip takes the place of the oldest."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.video, self.audio = Shelf(size, dim), Shelf(size, dim)
        # Places that hold a clip, and the place of the next one.
        self.counters = Counters(2)

    def push(self, video: Sequences, audio: Sequences, keys: Tensor) -> None:
        """Adds clips in order; of more than fit, the last."""
        count = min(len(keys), self.size)
        latest = torch.arange(len(keys) - count, len(keys), device=keys.device)
        filled, following = self.counters.values
        places = (following + torch.arange(count, device=keys.device)) % self.size
        for shelf, clips in ((self.video, video), (self.audio, audio)):
            shelf.write(places, Entries(clips, keys).chosen(latest))
        self.counters.set(min(self.size, filled + count), (following + count) % self.size)

    def entries(self) -> tuple[Entries, Entries]:
        """Videos and audios in the order of their places; entry k of either is of one clip."""
        filled, _ = self.counters.values
        return self.video.first(filled), self.audio.first(filled)


class Batched(NamedTuple):
    """A process's clips of a batch, as the trained encoders and the momentum encoders see them."""

    video: Sequences  # (B, N, dim), with gradients
    audio: Sequences  # (B, M, dim), with gradients
    video_keys: Sequences  # (B, N, dim)
    audio_keys: Sequences  # (B, M, dim)
    keys: Tensor  # (B,) int64
    all_keys: Tensor  # int64, those of the other processes too


def dictionary_loss(contrast: ContrastiveLoss, batch: Batched, videos: Entries, audios: Entries) -> Tensor:
    """Mean over both directions of the cross-entropy that finds a clip's key among a dictionary, in nats, a scalar.

    The logits of video i are −scale · [d(v_i, â_i), d(v_i, A_1), …, d(v_i, A_K)], with its own audio's key â_i, by the
    momentum encoder, and the dictionary A; those of audio i likewise, with v̂_i and V. Entries of the batch's own clips
    are no negatives: their logits are −∞. Where nothing else is in the dictionary, the loss is 0.
    """
    dtype = batch.video.steps.dtype

    def cast(clips: Sequences) -> Sequences:
        return Sequences(clips.steps.to(dtype), clips.lengths)

    distance, scale = contrast.distance, contrast.scale
    losses = []
    for to_video, entries in ((False, audios), (True, videos)):
        others = cast(entries.clips)
        if to_video:
            positive = distance.pairs(cast(batch.video_keys), batch.audio)
            negatives = distance.all_pairs(others, batch.audio).T  # (B, K)
        else:
            positive = distance.pairs(batch.video, cast(batch.audio_keys))
            negatives = distance.all_pairs(batch.video, others)
        own = torch.isin(entries.keys, batch.all_keys)  # (K,)
        logits = torch.cat((-scale * positive[:, None], (-scale * negatives).masked_fill(own, -torch.inf)), dim=1)
        losses.append(F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device)))
    return (losses[0] + losses[1]) / 2
