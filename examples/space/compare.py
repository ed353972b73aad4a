"""Compare two clips: everything of the Space but its page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

import scav_kernels
from scav_model import AudioVisualModel
from scav_model.data.decode import media_seconds
from scav_model.encoders import audio_encoder, visual_encoder
from scav_model.experiments.demo.render import render
from scav_model.experiments.demo.scene import Scene, make_scene
from scav_model.index.media import QueryReader

# Metrics that say which moments match, with options for steps of length 1.
METRICS = {"dtw": {}, "soft_dtw": {"gamma": 0.05}, "sinkhorn": {"epsilon": 0.1, "max_iterations": 500}}
SOUND, PICTURES, ACROSS = "sound with sound", "pictures with pictures", "pictures with sound, by the model"
FRAME_RATE = 12.5  # frames/s that are compared
MAX_SECONDS = 20.0
SLOWER = 1.4  # times as long


@dataclass(frozen=True)
class Comparison:
    """A distance between two clips, in words too, and the picture of their alignment."""

    distance: float
    words: str
    figure: Figure


def ways(model: AudioVisualModel | None) -> list[str]:
    """Return which sides of two clips can be compared."""
    return [SOUND, PICTURES] if model is None else [ACROSS, SOUND, PICTURES]


@torch.no_grad()
def compare(first: Path, second: Path, metric: str, way: str, model: AudioVisualModel | None = None) -> Comparison:
    """Compare two media files, moment by moment.

    Args:
        first, second: files of at most `MAX_SECONDS`.
        metric: one of `METRICS`.
        way: one of `ways(model)`.
        model: of the Space, for `ACROSS`.

    Raises:
        ValueError: no such metric or way, a file that is too long, or a file that cannot be used (a `DecodeError`).
    """
    if metric not in METRICS:
        raise ValueError(f"expected metric to be one of {', '.join(METRICS)}, got {metric!r}")
    if way not in ways(model):
        raise ValueError(f"expected the way to be one of {', '.join(ways(model))}, got {way!r}")
    for path in (first, second):
        if (seconds := media_seconds(path)) > MAX_SECONDS:
            raise ValueError(f"expected clips of at most {MAX_SECONDS:g} seconds, got {seconds:.0f}; cut the file")
    if model is not None and way == ACROSS:
        x, y = model.encode_file(first)[0], model.encode_file(second)[1]
        x_rate, y_rate = len(x) / media_seconds(first), len(y) / media_seconds(second)
    else:
        x, y, x_rate = plain_steps(first, second, "audio" if way == SOUND else "video")
        y_rate = x_rate
    options = METRICS[metric]
    distance = scav_kernels.pairwise_distance(x[None], y[None], metric=metric, **options).item()
    figure = scav_kernels.plot.alignment(x, y, metric=metric, x_rate=x_rate, y_rate=y_rate, **options)
    words = f"{metric}, {way}: {distance:.3f}, of {len(x)} and {len(y)} steps. x is the first clip, y the second."
    return Comparison(distance, words, figure)


def plain_steps(first: Path, second: Path, side: str) -> tuple[Tensor, Tensor, float]:
    """Return the steps (N, D) and (M, D) of one side of two clips, without a model, and their rate in Hz.

    Steps are centered on the mean of both clips and have length 1, so that their costs compare directions of change.
    """
    encoder = audio_encoder("log_mel") if side == "audio" else visual_encoder("patches")
    rate = encoder.rate_hz if side == "audio" else FRAME_RATE
    read = QueryReader.of(encoder, side, FRAME_RATE)
    x, y = encoder.encode([read(first), read(second)])
    middle = torch.cat((x, y)).mean(0)
    return normalize(x - middle, dim=-1), normalize(y - middle, dim=-1), rate


def render_examples(folder: Path) -> list[Path]:
    """Write three clips to begin with: one, the same slower, and another."""
    scene = make_scene(0, "space", 0)
    scenes = {"clip": scene, "the same, slower": slower(scene), "another clip": make_scene(0, "space", 1)}
    paths = []
    for name, drawn in scenes.items():
        paths.append(folder / f"{name}.mp4")
        render(drawn, paths[-1])
    return paths


def slower(scene: Scene) -> Scene:
    """Return a scene in which the same happens in `SLOWER` times the time."""
    objects = tuple(
        replace(item, strikes=item.strikes * SLOWER, velocity=(item.velocity[0] / SLOWER, item.velocity[1] / SLOWER))
        for item in scene.objects
    )
    sounds = tuple(replace(sound, time=sound.time * SLOWER) for sound in scene.off_screen)
    return replace(scene, duration=scene.duration * SLOWER, objects=objects, off_screen=sounds)
