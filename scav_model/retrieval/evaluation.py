"""Retrieval among encoded clips: every video searches the audios (v2a), every audio the videos (a2v).

Clip i of one side is the one right answer to clip i of the other. Three ways to rank a gallery:

- `mean`: by the cosine of the clips' mean steps;
- `sequence`: by a distance between whole sequences;
- `hybrid`: the k nearest by `mean` are put in the order of `sequence`; the others follow in the order of `mean`.

Ranks count from 1. Ties share the mean of the ranks they span, so a model that gives every clip the same distance gets
the mean rank of chance and no recall. NaN counts as infinitely far.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from scav_model.data import Features, collate
from scav_model.distances import POOLED_COSINE, Distance, Sequences
from scav_model.model import AudioVisualModel
from scav_model.progress import Progress
from scav_model.retrieval.gallery import Gallery, InMemory, OnDisk
from scav_model.retrieval.ranking import DIRECTIONS, Comparison, by_sequence, cosine

MODES = ("mean", "sequence", "hybrid")


@torch.no_grad()
def encode(
    model: AudioVisualModel, features: Features, *, batch_size: int = 64, device: str | torch.device = "cpu"
) -> tuple[Sequences, Sequences]:
    """Encode all clips, in order, without dropout: videos (G, N, dim) and audios (G, M, dim), padded with zeros."""
    lengths = [length.to(device) for length in (features.video_lengths, features.audio_lengths)]
    dim = model.config.dim
    video, audio = (torch.zeros(len(features), int(length.max()), dim, device=device) for length in lengths)
    start = 0
    for encoded in _batches(model, features, batch_size, device):
        for store, side in zip((video, audio), encoded, strict=True):
            store[start : start + len(side.steps), : side.steps.shape[1]] = side.steps
        start += len(encoded[0].steps)
    return Sequences(video, lengths[0]), Sequences(audio, lengths[1])


@torch.no_grad()
def encode_to_disk(
    model: AudioVisualModel, features: Features, *, batch_size: int = 64, device: str | torch.device = "cpu"
) -> tuple[OnDisk, OnDisk]:
    """Encode all clips into temporary files, with a progress bar. Memory holds one batch."""
    video, audio = (
        OnDisk(lengths, model.config.dim, device) for lengths in (features.video_lengths, features.audio_lengths)
    )
    with Progress(total=len(features), desc="encode", unit="clip") as bar:
        for encoded in _batches(model, features, batch_size, device):
            for gallery, side in zip((video, audio), encoded, strict=True):
                gallery.append(*side)
            bar.update(len(encoded[0].steps))
    return video, audio


def _batches(
    model: AudioVisualModel, features: Features, batch_size: int, device: str | torch.device
) -> Iterator[tuple[Sequences, Sequences]]:
    """Yield videos (B, N, dim) and audios (B, M, dim), batch by batch."""
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(features), batch_size):
            batch = collate(features, range(start, min(start + batch_size, len(features)))).to(device)
            video, audio = model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
            yield Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)
    finally:
        model.train(was_training)


def recalls(rank: Tensor) -> dict[str, float]:
    """Return R@1, R@5 and R@10 in percent of queries, and the median (MedR) and mean (MeanR) rank."""
    rank = rank.double()
    measured = {f"R@{k}": 100 * (rank <= k).double().mean().item() for k in (1, 5, 10)}
    # torch.quantile takes 16 million numbers at most.
    middle = rank.sort().values[[(len(rank) - 1) // 2, len(rank) // 2]]
    return measured | {"MedR": middle.mean().item(), "MeanR": rank.mean().item()}


@torch.no_grad()
def evaluate(
    video: Sequences | Gallery,
    audio: Sequences | Gallery,
    distance: Distance,
    *,
    hybrid_k: int = 50,
    modes: Sequence[str] = MODES,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Return one row per mode and direction: retrieval, direction, `recalls`, gallery (clips) and search_seconds.

    search_seconds is the wall-clock time of this direction alone, after encoding: distances and ranks; for hybrid, the
    search of means too. Memory never holds all distances, nor all clips of galleries on disk.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise ValueError(f"unknown retrieval {', '.join(unknown)}; expected some of {', '.join(MODES)}")
    if hybrid_k < 1:
        raise ValueError(f"hybrid_k must be at least 1, got {hybrid_k}")
    videos, audios = (InMemory(side) if isinstance(side, Sequences) else side for side in (video, audio))
    if len(videos) != len(audios) or len(videos) == 0:
        raise ValueError(f"expected as many audios as videos, and some, got {len(videos)} videos, {len(audios)} audios")
    compared = Comparison(videos, audios, progress)
    started = time.perf_counter()
    means = compared.means() if {"mean", "hybrid"} & {*modes} or distance.metric == POOLED_COSINE else compared
    pooling = time.perf_counter() - started
    by_mean = means.count(cosine, "mean") if means is not compared else {}
    rows: list[dict[str, Any]] = []
    for mode in modes:
        searched = mode == "sequence" and distance.metric != POOLED_COSINE
        counts = compared.count(by_sequence(distance), mode) if searched else by_mean
        for direction in DIRECTIONS:
            found = counts[direction]
            rank, seconds = found.ranks, found.seconds + (0.0 if searched else pooling)
            if mode == "hybrid":
                started = time.perf_counter()
                rank = compared.hybrid(distance, means, found, hybrid_k, direction)
                seconds += time.perf_counter() - started
            row = {"retrieval": mode, "direction": direction, **recalls(rank)}
            rows.append(row | {"gallery": len(videos), "search_seconds": seconds})
    return rows
