"""Rendering a scene to an mp4 file: H.264 pictures and AAC sound, on one clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scav_model.experiments.demo.scene import Scene, SceneObject
from scav_model.experiments.media import write_clip
from scav_model.storage.files import PARTIAL, writing

Floats = NDArray[np.floating]

FRAME_RATE = 25  # frames/s
SIZE = 64  # px, width and height
MARGIN = 16  # px around the picture while drawing, for objects that reach over its edge
SAMPLE_RATE = 16_000  # samples/s
GLOW = 0.3  # seconds in which a flash falls to 1/e
RING = 0.25  # seconds in which a sound does
AUDIBLE = 1.25  # seconds after which a sound is cut, 43 dB down
ATTACK = 0.002  # seconds in which a sound rises
REST_BRIGHTNESS = 0.35  # of an object between its flashes; 1 at a flash
SWELL = 0.4  # growth of the radius at a flash, as a share of it


def render(scene: Scene, path: Path) -> None:
    """Write `scene` to `path`, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
        try:
            write_clip(partial, draw(scene), synthesise(scene), frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def draw(scene: Scene) -> NDArray[np.uint8]:
    """Frames (T, SIZE, SIZE, 3), RGB; frame k shows the scene at k / FRAME_RATE seconds."""
    times = np.arange(round(scene.duration * FRAME_RATE), dtype=np.float32) / np.float32(FRAME_RATE)
    canvas = np.zeros((len(times), SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3), dtype=np.float32)
    frames = canvas[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    frames[:] = _background(scene, times)
    for item in scene.objects:
        _add_object(canvas, item, times)
    return np.round(frames * 255).astype(np.uint8)


def synthesise(scene: Scene) -> Floats:
    """Sound (samples,) in [-1, 1] at SAMPLE_RATE."""
    random = np.random.default_rng(scene.texture_seed)
    count = round(round(scene.duration * FRAME_RATE) * SAMPLE_RATE / FRAME_RATE)
    time = np.arange(count, dtype=np.float32) / SAMPLE_RATE
    sound = scene.noise * random.standard_normal(count, dtype=np.float32)
    sound += scene.hum * np.sqrt(2) * np.sin(2 * np.pi * 100 * time)
    for item in scene.objects:
        if item.kind.timbre is not None:
            for strike in item.strikes:
                _strike(sound, item.kind.timbre, strike, item.pitch, item.loudness, random)
    for extra in scene.off_screen:
        _strike(sound, extra.timbre, extra.time, extra.pitch, extra.loudness, random)
    return np.tanh(sound).astype(np.float32)


def _background(scene: Scene, times: Floats) -> Floats:
    """A dim gradient (T, SIZE, SIZE, 3) that drifts, under a light that flickers slowly."""
    random = np.random.default_rng(scene.texture_seed)
    phase, drift, flicker = random.uniform(0, 2 * np.pi), random.uniform(-1, 1), random.uniform(0.2, 0.8)
    across, down = random.uniform(3, 12, size=2)
    grid = np.linspace(0, 1, SIZE)
    along_x = across * grid[None, None, :]
    along_y = down * grid[None, :, None] + (phase + drift * times)[:, None, None]
    # sin(along_x + along_y), by products of short tables.
    wave = np.sin(along_x) * np.cos(along_y) + np.cos(along_x) * np.sin(along_y)  # (T, SIZE, SIZE)
    light = 1 + 0.2 * np.sin(2 * np.pi * flicker * times + phase)[:, None, None]
    shade = (light * (1 + 0.4 * wave)).astype(np.float32)
    return shade[..., None] * np.array(scene.background, dtype=np.float32)


def _flash(item: SceneObject, times: Floats) -> Floats:
    """Brightness of an object's flash at each time (T,): 1 at a strike, then falling towards 0."""
    since = times[:, None] - item.strikes[None, :].astype(np.float32)  # (T, strikes)
    return np.where(since >= 0, np.exp(-np.maximum(since, 0) / GLOW), 0).max(axis=1).astype(np.float32)


def _add_object(canvas: Floats, item: SceneObject, times: Floats) -> None:
    """Paint `item` over the canvas (T, SIZE + 2 MARGIN, SIZE + 2 MARGIN, 3), in a window that moves with it."""
    level = _flash(item, times)
    center_x = SIZE * _bounce(item.position[0] + item.velocity[0] * times, item.radius)  # px
    center_y = SIZE * _bounce(item.position[1] + item.velocity[1] * times, item.radius)
    reach = int(np.ceil(item.radius * (1 + SWELL) * SIZE)) + 1
    offsets = np.arange(-reach, reach + 1)
    columns = center_x.astype(np.int64)[:, None] + offsets  # (T, window)
    rows = center_y.astype(np.int64)[:, None] + offsets
    x = ((columns + 0.5 - center_x[:, None]) / SIZE)[:, None, :].astype(np.float32)
    y = ((rows + 0.5 - center_y[:, None]) / SIZE)[:, :, None].astype(np.float32)
    radius = (item.radius * (1 + SWELL * level))[:, None, None]
    # Distance to the outline, positive within: the share of a pixel that is covered follows from it.
    alpha = np.clip(SHAPES[item.kind.shape](x, y, radius) * SIZE + 0.5, 0, 1)[..., None]  # (T, window, window, 1)
    brightness = REST_BRIGHTNESS + (1 - REST_BRIGHTNESS) * level
    color = brightness[:, None, None, None] * np.array(item.kind.color, dtype=np.float32)
    window = (np.arange(len(times))[:, None, None], rows[:, :, None] + MARGIN, columns[:, None, :] + MARGIN)
    below = canvas[window]
    canvas[window] = below + alpha * (color - below)


def _bounce(position: Floats, margin: float) -> Floats:
    """A straight path folded into [margin, 1 - margin]."""
    span = 1 - 2 * margin
    folded = np.mod(position - margin, 2 * span)
    return (margin + span - np.abs(folded - span)).astype(np.float32)


SHAPES: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "disc": lambda x, y, r: r - np.sqrt(x * x + y * y),
    "square": lambda x, y, r: 0.85 * r - np.maximum(np.abs(x), np.abs(y)),
    "ring": lambda x, y, r: 0.25 * r - np.abs(0.85 * r - np.sqrt(x * x + y * y)),
    "diamond": lambda x, y, r: (1.2 * r - np.abs(x) - np.abs(y)) / np.sqrt(2),
    "cross": lambda x, y, r: np.minimum(
        0.35 * r - np.minimum(np.abs(x), np.abs(y)), r - np.maximum(np.abs(x), np.abs(y))
    ),
    "triangle": lambda x, y, r: np.minimum(0.6 * r - y, (0.8 * r + y) / 2 - np.abs(x)),
}


def _strike(
    sound: Floats, timbre: str, start: float, pitch: float, loudness: float, random: np.random.Generator
) -> None:
    """Add a strike to `sound` (samples,), from `start` seconds on."""
    first = int(np.ceil(start * SAMPLE_RATE))
    count = min(len(sound) - first, round(AUDIBLE * SAMPLE_RATE))
    if count <= 0:
        return
    # Seconds since the strike, which lies between two samples.
    time = ((np.arange(count) + first) / SAMPLE_RATE - start).astype(np.float32)
    envelope = np.minimum(time / ATTACK, 1) * np.minimum((AUDIBLE - time) / ATTACK, 1)
    sound[first : first + count] += loudness * envelope * TIMBRES[timbre](time, pitch, random)


def _tone(time: Floats, frequency: float) -> Floats:
    return np.sin(2 * np.pi * frequency * time) * _decay(time)


def _decay(time: Floats, seconds: float = RING) -> Floats:
    return np.exp(time / -seconds)


def _noise(count: int, random: np.random.Generator) -> Floats:
    return random.standard_normal(count, dtype=np.float32)


def _bell(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    return _tone(time, 880 * pitch) + _tone(time, 2430 * pitch) / 3 + _tone(time, 4750 * pitch) / 5


def _drum(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    # From 160 Hz down to 70 Hz.
    cycles = 70 * time + 90 * 0.05 * (1 - _decay(time, 0.05))
    return 1.5 * np.sin(2 * np.pi * pitch * cycles) * _decay(time)


def _buzz(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    # A sawtooth, so all harmonics.
    return (2 * np.mod(220 * pitch * time, 1) - 1) * _decay(time)


def _hiss(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    # Two differences of white noise leave the high frequencies.
    return 0.3 * np.diff(_noise(len(time) + 2, random), n=2) * _decay(time)


def _whistle(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    # From 1500 Hz upwards.
    return np.sin(2 * np.pi * pitch * (1500 * time + 700 * time**2)) * _decay(time)


def _wood(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    return _tone(time, 480 * pitch) + _tone(time, 1270 * pitch) / 2


def _knock(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    thud = np.sin(2 * np.pi * 300 * pitch * time) * _decay(time, 0.03)
    return thud + 0.3 * _noise(len(time), random) * _decay(time, 0.02)


def _sweep(time: Floats, pitch: float, random: np.random.Generator) -> Floats:
    # From 900 Hz downwards, swelling and fading.
    swell = np.sin(np.pi * np.clip(time / 0.6, 0, 1))
    return np.sin(2 * np.pi * pitch * (900 * time - 350 * time**2)) * swell


TIMBRES: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "bell": _bell,
    "drum": _drum,
    "buzz": _buzz,
    "hiss": _hiss,
    "whistle": _whistle,
    "wood": _wood,
    "knock": _knock,
    "sweep": _sweep,
}
