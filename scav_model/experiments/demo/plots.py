"""The demo's two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import scav_kernels
from scav_model.experiments.demo.results import Row, average
from scav_model.extras import needed_by
from scav_model.files import write_figure

with needed_by("plotting"):
    import matplotlib
    from matplotlib.figure import Figure

RETRIEVALS = ("mean", "sequence", "hybrid")


def plot_retrieval(runs: Sequence[Sequence[Row]], labels: dict[str, str], path: Path) -> None:
    """Bars of R@1, the mean of both directions; whiskers span one standard deviation over seeds either way."""
    both = [_merge_directions(rows) for rows in runs]
    gallery = runs[0][0]["gallery"]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(RETRIEVALS)
    colours = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.8, len(RETRIEVALS)))
    for place, (retrieval, colour) in enumerate(zip(RETRIEVALS, colours, strict=True)):
        recalls = np.array([[run[model, retrieval] for model in labels] for run in both])  # (seeds, models)
        position = np.arange(len(labels)) + (place - (len(RETRIEVALS) - 1) / 2) * width
        spread = recalls.std(axis=0, ddof=1) if len(runs) > 1 else None
        bars = axes.bar(position, recalls.mean(axis=0), width, yerr=spread, capsize=3, color=colour, label=retrieval)
        axes.bar_label(bars, fmt="%.0f", padding=2, fontsize=8)
    axes.axhline(100 / gallery, color="black", linestyle=":", linewidth=1, label="chance")
    axes.set_xticks(np.arange(len(labels)), labels.values())
    axes.set_ylabel("R@1 in %, mean of v→a and a→v")
    axes.set_ylim(0, 105)
    seeds = f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    axes.set_title(f"Retrieval among {gallery} held-out clips{seeds}")
    axes.legend(title="search by", frameon=False)
    write_figure(path, figure)


def _merge_directions(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Mean R@1 of the two directions, by model and retrieval."""
    means, _ = average([rows])
    found: dict[tuple[str, str], list[float]] = {}
    for row in means:
        found.setdefault((row["model"], row["retrieval"]), []).append(row["R@1"])
    return {key: sum(values) / len(values) for key, values in found.items()}


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
    """The cost of every step of `video` against every step of `audio`, and the DTW path through it.

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
    figure = Figure(figsize=(9, 7), layout="constrained")
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
