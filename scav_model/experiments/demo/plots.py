"""The demo's two plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import scav_kernels
from scav_model.experiments.style import RECALL, bar_place, draw_chance, new_figure, shades
from scav_model.experiments.tables import Row, mean_of_directions
from scav_model.storage.files import write_figure

RETRIEVALS = ("mean", "sequence", "hybrid")


def plot_retrieval(runs: Sequence[Sequence[Row]], labels: dict[str, str], path: Path) -> None:
    """Draw bars of R@1, the mean of both directions; whiskers span one standard deviation over seeds either way."""
    both = [mean_of_directions(rows, ("model", "retrieval")) for rows in runs]
    gallery = runs[0][0]["gallery"]
    figure = new_figure(8, 4.2)
    axes = figure.subplots()
    for bar, (retrieval, color) in enumerate(zip(RETRIEVALS, shades(len(RETRIEVALS), last=0.8), strict=True)):
        recalls = np.array([[run[model, retrieval] for model in labels] for run in both])  # (seeds, models)
        position, width = bar_place(np.arange(len(labels)), bar, len(RETRIEVALS))
        spread = recalls.std(axis=0, ddof=1) if len(runs) > 1 else None
        bars = axes.bar(position, recalls.mean(axis=0), width, yerr=spread, capsize=3, color=color, label=retrieval)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    draw_chance(axes, gallery)
    axes.set_xticks(np.arange(len(labels)), labels.values())
    axes.set_ylabel(RECALL)
    axes.set_ylim(0, 105)
    seeds = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    axes.set_title(f"Retrieval among {gallery} held-out clips{seeds}")
    axes.legend(title="search by", frameon=False)
    write_figure(path, figure)


def plot_alignment(
    video: Tensor,
    audio: Tensor,
    frames: NDArray[np.uint8],
    spectrogram: Tensor,
    *,
    frame_rate: float,
    seconds: float,
    title: str,
    path: Path,
) -> None:
    """Draw the cost of every step of `video` against every step of `audio`, and the DTW path through it.

    Args:
        video: (N, D) encoded video steps.
        audio: (M, D) encoded audio steps of the same clip.
        frames: (N, H, W, 3) RGB, the frame of each video step.
        spectrogram: (spectra, mels) log power.
        frame_rate: video steps per second.
        seconds: the clip's duration.
    """
    cost = torch.cdist(video, audio).numpy()
    steps = scav_kernels.dtw_path(video, audio).numpy()  # (L, 2)
    figure = new_figure(9, 7)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 9), height_ratios=(7, 2))
    matrix = figure.add_subplot(grid[0, 1])
    # Steps are drawn as the spans of time that they stand for, so that strip, matrix and spectrogram share their axes.
    span = len(video) / frame_rate
    image = matrix.imshow(cost, extent=(0, seconds, span, 0), aspect="auto", cmap="magma")
    matrix.plot(
        (steps[:, 1] + 0.5) * seconds / len(audio), (steps[:, 0] + 0.5) / frame_rate, color="cyan", linewidth=1.5
    )
    matrix.set_title(title)
    matrix.tick_params(labelbottom=False, labelleft=False)
    figure.colorbar(image, ax=matrix, label="Euclidean cost", pad=0.01)

    strip = figure.add_subplot(grid[0, 0])
    strip.imshow(_strip(frames, shown=7), extent=(0, 1, span, 0), aspect="auto")
    strip.set_xticks([])
    strip.set_ylabel("video, s")

    sound = figure.add_subplot(grid[1, 1], sharex=matrix)
    sound.imshow(spectrogram.T.numpy(), extent=(0, seconds, 0, spectrogram.shape[1]), origin="lower", aspect="auto")
    sound.set_yticks([])
    sound.set_xlabel("audio, s")
    sound.set_ylabel("mel band")
    write_figure(path, figure)


def _strip(frames: NDArray[np.uint8], shown: int) -> NDArray[np.uint8]:
    """`shown` of the frames (N, H, W, 3), evenly spaced in time, one below the other."""
    spans = np.linspace(0, len(frames), shown + 1)
    middle = ((spans[:-1] + spans[1:]) / 2).astype(np.int64)
    return np.concatenate(list(frames[middle]))
