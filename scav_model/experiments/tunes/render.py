"""A clip of a tune: a window of the score that moves with the music, and the sound of a soundfont."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scav_model.experiments.mp4 import write_mp4
from scav_model.experiments.tunes.corpus import package_folder
from scav_model.experiments.tunes.engraving import WIDTH, Engraving
from scav_model.experiments.tunes.excerpts import DURATION, Excerpt, Notes, TempoCurve, notes_of, permute_bars

FRAME_RATE = 25  # frames/s
SAMPLE_RATE = 16_000  # samples/s
# General MIDI programs: accordion, violin, trumpet, clarinet, flute.
INSTRUMENTS = (21, 40, 56, 71, 73)
VELOCITY = 100
LOUDNESS = (0.05, 0.1)  # RMS of a clip's sound
GAP = 0.9  # share of a note's time for which it is held
TAIL = 0.5  # seconds in which the synthesizer falls silent between clips
NOISE_SIDE = 4  # px, of the squares that noise in the picture is made of
PICTURE_NOISE = 64.0  # standard deviation, in gray levels
SOUND_NOISE = 1.0  # RMS of the noise as a share of the sound's


@dataclass(frozen=True)
class ClipTask:
    """A clip to make."""

    excerpt: Excerpt
    engraving: Path
    out: Path
    sync: bool = False  # sound and picture share one tempo curve
    noise: bool = False
    bars: bool = False  # the sound has its bars in another order


def render_clip(task: ClipTask) -> None:
    """Write the clip's mp4, whole or not at all."""
    engraving, excerpt = load(task.engraving), task.excerpt
    seen = TempoCurve.draw(excerpt.random("picture"))
    heard = seen if task.sync else TempoCurve.draw(excerpt.random("sound"))
    notes = permute_bars(excerpt, engraving) if task.bars else notes_of(excerpt, engraving)
    assert notes is not None, "excerpts whose bars cannot be permuted have no such task"
    frames, sound = draw(excerpt, engraving, seen), play(excerpt, notes, heard)
    if task.noise:
        random = excerpt.random("noise")
        frames, sound = add_picture_noise(frames, random), add_sound_noise(sound, random)
    colored = np.repeat(frames[..., None], 3, axis=3)
    write_mp4(task.out, colored, sound, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE)


@functools.lru_cache(maxsize=8)
def load(path: Path) -> Engraving:
    return Engraving.load(path)


def draw(excerpt: Excerpt, engraving: Engraving, curve: TempoCurve) -> NDArray[np.uint8]:
    """Return frames (T, HEIGHT, WIDTH), gray; the note that sounds is in the middle."""
    times = np.arange(round(DURATION * FRAME_RATE)) / FRAME_RATE
    onsets, first = np.unique(engraving.onsets, return_index=True)
    centers = np.interp(curve.position(excerpt, times), onsets, engraving.places[first])
    padded = np.pad(engraving.strip, ((0, 0), (WIDTH, WIDTH)), constant_values=255)
    left = np.round(centers).astype(np.int64) + WIDTH // 2
    columns = left[:, None] + np.arange(WIDTH)  # (T, WIDTH)
    return padded[:, columns].transpose(1, 0, 2)


def play(excerpt: Excerpt, notes: Notes, curve: TempoCurve) -> NDArray[np.float32]:
    """Return the sound (samples,) of the notes, by an instrument and of a loudness of the excerpt's own."""
    random = excerpt.random("instrument")
    program = int(random.choice(INSTRUMENTS))
    starts, ends = curve.seconds(excerpt, notes.onsets), curve.seconds(excerpt, notes.ends)
    held = starts + GAP * (ends - starts)
    synth, font = synthesizer()
    synth.program_select(0, font, 0, program)
    # Notes end before others start.
    events = sorted(
        [(round(time * SAMPLE_RATE), 0, int(pitch)) for time, pitch in zip(held, notes.pitches, strict=True)]
        + [(round(time * SAMPLE_RATE), 1, int(pitch)) for time, pitch in zip(starts, notes.pitches, strict=True)]
    )
    total = round(DURATION * SAMPLE_RATE)
    parts, now = [], 0
    for place, starting, pitch in events:
        place = min(place, total)
        parts.append(generate(synth, place - now))
        now = place
        if starting:
            synth.noteon(0, pitch, VELOCITY)
        else:
            synth.noteoff(0, pitch)
    parts.append(generate(synth, total - now))
    synth.sounds_off()
    generate(synth, round(TAIL * SAMPLE_RATE))
    sound = np.concatenate(parts)
    level = random.uniform(*LOUDNESS) / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-6)
    return np.tanh(sound * level).astype(np.float32)


def generate(synth: Any, samples: int) -> NDArray[np.float32]:
    """Return the next samples, the mean of both channels."""
    if samples == 0:
        return np.zeros(0, dtype=np.float32)
    return np.frombuffer(bytes(synth.generate_simple(samples)), dtype=np.float32).reshape(-1, 2).mean(axis=1)


@functools.cache
def synthesizer() -> tuple[Any, int]:
    """Return the process's synthesizer and the number of its soundfont."""
    package_folder("tinysoundfont")
    from tinysoundfont import Synth

    font = package_folder("pretty_midi") / "TimGM6mb.sf2"
    synth = Synth(samplerate=SAMPLE_RATE)
    return synth, synth.sfload(str(font))


def add_picture_noise(frames: NDArray[np.uint8], random: Generator) -> NDArray[np.uint8]:
    """Add noise in squares, which the encoder and a small window of the picture keep."""
    count, height, width = frames.shape
    coarse = random.normal(0, PICTURE_NOISE, size=(count, height // NOISE_SIDE, width // NOISE_SIDE))
    noise = coarse.repeat(NOISE_SIDE, axis=1).repeat(NOISE_SIDE, axis=2)
    return np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)


def add_sound_noise(sound: NDArray[np.float32], random: Generator) -> NDArray[np.float32]:
    """Add white noise as loud as `SOUND_NOISE` times the sound."""
    level = SOUND_NOISE * float(np.sqrt(np.mean(np.square(sound))))
    return np.tanh(sound + random.normal(0, level, size=len(sound))).astype(np.float32)
