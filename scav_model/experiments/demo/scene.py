"""Scene of a clip of the demo: its objects, how they move and when they strike.

A few objects move over a dim background. Each belongs to a kind, with a color, a shape and a timbre of its own, and
flashes exactly when its sound is heard, at irregular times. There are far fewer sets of kinds than clips, so *which*
things sound tells little; *when* they do decides. Silent objects that flash, sounds from off screen, hum and noise
are there to distract.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


@dataclass(frozen=True)
class Kind:
    """A kind of object: how it looks and how it sounds."""

    shape: str
    color: tuple[float, float, float]  # RGB from 0 to 1
    timbre: str | None  # None: silent


KINDS = (
    Kind("disc", (1.0, 0.25, 0.20), "bell"),
    Kind("square", (0.25, 0.45, 1.0), "drum"),
    Kind("ring", (0.25, 0.95, 0.30), "buzz"),
    Kind("diamond", (1.0, 0.85, 0.15), "hiss"),
    Kind("cross", (0.95, 0.30, 0.95), "whistle"),
    Kind("triangle", (0.20, 0.90, 0.95), "wood"),
)
SILENT = (Kind("disc", (0.85, 0.85, 0.85), None), Kind("square", (0.75, 0.55, 0.40), None))
OFF_SCREEN = ("knock", "sweep", *(kind.timbre for kind in KINDS if kind.timbre))


@dataclass(frozen=True)
class SceneConfig:
    """The make-up of the demo's clips."""

    duration: float = 4.0  # seconds, of a full-length clip
    short_share: float = 0.25  # share of the clips that are shorter
    shortest: float = 2.5  # seconds
    objects: int = 3  # that sound, each of another kind
    silent_objects: int = 2
    strikes: tuple[int, int] = (3, 7)  # fewest and most strikes of an object in a full-length clip
    gap: float = 0.25  # seconds, least time between two strikes of one object
    off_screen: int = 3  # sounds without an object, in a full-length clip


@dataclass(frozen=True)
class SceneObject:
    """An object on its way across the picture; lengths are in units of the picture's width."""

    kind: Kind
    radius: float
    position: tuple[float, float]  # at time 0, x to the right and y down
    velocity: tuple[float, float]  # per second; it bounces off the picture's edges
    strikes: NDArray[np.float64]  # seconds, ascending
    pitch: float  # factor on its timbre's frequencies
    loudness: float  # peak amplitude, from 0 to 1


@dataclass(frozen=True)
class Sound:
    """A sound from off screen."""

    timbre: str
    time: float  # seconds
    pitch: float  # factor
    loudness: float  # peak amplitude, from 0 to 1


@dataclass(frozen=True)
class Scene:
    """All that a clip shows and lets hear."""

    duration: float  # seconds
    objects: tuple[SceneObject, ...]  # later ones cover earlier ones
    off_screen: tuple[Sound, ...]
    hum: float  # RMS amplitude
    noise: float  # RMS amplitude
    background: tuple[float, float, float]  # RGB from 0 to 1
    texture_seed: int  # of the noise in sound and background

    def onsets(self) -> list[tuple[float, Kind]]:
        """Times of the visible and audible strikes, in seconds, ascending."""
        strikes = [(float(time), item.kind) for item in self.objects if item.kind.timbre for time in item.strikes]
        return sorted(strikes, key=lambda strike: strike[0])


def make_scene(seed: int, split: str, index: int, config: SceneConfig | None = None) -> Scene:
    """Scene `index` of a split. The same arguments give the same scene; any other, an unrelated one."""
    config = config or SceneConfig()
    random = np.random.default_rng([seed, index, *split.encode()])
    duration = config.duration
    if random.random() < config.short_share:
        duration = random.uniform(config.shortest, config.duration)
    sounding = random.choice(len(KINDS), size=config.objects, replace=False)
    silent = random.choice(len(SILENT), size=config.silent_objects)
    kinds = [SILENT[index] for index in silent] + [KINDS[index] for index in sounding]
    sounds = round(config.off_screen * duration / config.duration)
    return Scene(
        duration=duration,
        objects=tuple(_make_object(random, kind, duration, config) for kind in kinds),
        off_screen=tuple(
            Sound(
                timbre=OFF_SCREEN[random.integers(len(OFF_SCREEN))],
                time=random.uniform(0, duration),
                pitch=random.uniform(0.8, 1.25),
                loudness=random.uniform(0.1, 0.4),
            )
            for _ in range(sounds)
        ),
        hum=random.uniform(0.0, 0.02),
        noise=random.uniform(0.001, 0.01),
        background=tuple(random.uniform(0.02, 0.2, size=3)),
        texture_seed=int(random.integers(2**31)),
    )


def _make_object(random: Generator, kind: Kind, duration: float, config: SceneConfig) -> SceneObject:
    angle, speed = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.35)
    return SceneObject(
        kind=kind,
        radius=random.uniform(0.07, 0.11),
        position=(random.uniform(0.15, 0.85), random.uniform(0.15, 0.85)),
        velocity=(speed * np.cos(angle), speed * np.sin(angle)),
        strikes=_strike_times(random, duration, config),
        pitch=random.uniform(0.97, 1.03),
        loudness=random.uniform(0.25, 0.5),
    )


def _strike_times(random: Generator, duration: float, config: SceneConfig) -> NDArray[np.float64]:
    """Irregular times at least `gap` apart, kept off the clip's ends so that each strike is seen and heard."""
    first, last = 0.1, duration - 0.25
    fewest, most = config.strikes
    count = max(1, round(random.integers(fewest, most + 1) * duration / config.duration))
    # Uniform among all spacings that keep the gap: draw as if there were none, then widen each by it.
    slack = last - first - (count - 1) * config.gap
    if slack < 0:
        raise ValueError(
            f"{count} strikes at least {config.gap} s apart do not fit into {duration:.2f} s; "
            f"expected fewer strikes, a smaller gap or longer clips"
        )
    times: NDArray[np.float64] = first + np.sort(random.uniform(0, slack, size=count)) + config.gap * np.arange(count)
    return times
