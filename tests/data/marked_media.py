"""Media files whose every frame says its number, with tones at known times, in any container."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

TONES = ((0.4, 0.6), (1.4, 1.6))  # seconds
PEAK = 0.8
FRAME_RATE = 25
BITS = 7


def make_marked(
    path: Path,
    *,
    video: str | None = "libx264",
    audio: str | None = "aac",
    seconds: float = 2.0,
    audio_seconds: float | None = None,
    gop: int = 50,
    b_frames: int | None = 2,
    sample_rate: int = 16_000,
    layout: str = "mono",
    container: str | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
) -> Path:
    """Write 96 × 64 frames that carry their number as black and white blocks, with a red box in the top left corner."""
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        if video:
            # With more threads, two encodings of the same frames may differ.
            pictures = file.add_stream(video, rate=FRAME_RATE, options={"threads": "1", **(codec_options or {})})
            pictures.width, pictures.height, pictures.pix_fmt = 96, 64, "yuv420p"
            pictures.codec_context.gop_size = gop
            if b_frames is not None:
                pictures.codec_context.max_b_frames = b_frames
            if aspect is not None:
                pictures.codec_context.sample_aspect_ratio = aspect
            if matrix is not None:
                pictures.set_display_matrix(matrix)
        if audio:
            sound = file.add_stream(audio, rate=sample_rate, layout=layout)
            sound.bit_rate = 96_000
        count = round(seconds * FRAME_RATE) if video else 0
        wave = tone((audio_seconds or seconds), sample_rate) if audio else np.zeros(0, np.float32)
        sent = 0
        for number in range(max(count, 1)):
            if video:
                frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
                file.mux(pictures.encode(frame))
            # Both sides in step, so that they lie side by side in the file.
            until = len(wave) if number >= count - 1 else round((number + 1) / FRAME_RATE * sample_rate)
            while sent < min(until, len(wave)):
                block = np.repeat(wave[None, sent : sent + 1024], len(av.AudioLayout(layout).channels), 0)
                samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=layout)
                samples.sample_rate, samples.pts, samples.time_base = sample_rate, sent, Fraction(1, sample_rate)
                file.mux(sound.encode(samples))
                sent += 1024
        if video:
            file.mux(pictures.encode(None))
        if audio:
            file.mux(sound.encode(None))
    return path


def numbered(number: int) -> NDArray[np.uint8]:
    picture = np.full((64, 96, 3), 90, dtype=np.uint8)
    picture[:16, :16] = (255, 0, 0)
    for bit in range(BITS):
        picture[24:56, 6 + 12 * bit : 18 + 12 * bit] = 255 if number >> bit & 1 else 0
    return picture


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    """Return the number on each of the frames (T, 64, 96, 3)."""
    blocks = frames[:, 32:48].mean(axis=(1, 3))  # (T, 96)
    return [sum(int(row[12 + 12 * bit] > 128) << bit for bit in range(BITS)) for row in blocks]


def tone(seconds: float, sample_rate: int) -> NDArray[np.float32]:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sounding = np.any([(time >= first) & (time < last) for first, last in TONES], axis=0)
    return (PEAK * np.sin(2 * np.pi * 1000 * time) * sounding).astype(np.float32)


def spans(on: NDArray[np.bool_], rate: float) -> list[tuple[float, float]]:
    """Return when `on` is true, as (begin, end) in seconds."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], on.astype(np.int8), [0]))))
    return [(float(first) / rate, float(last) / rate) for first, last in zip(edges[::2], edges[1::2], strict=True)]


def loud_spans(audio: NDArray[np.float32], sample_rate: int = 16_000) -> list[tuple[float, float]]:
    """Return when the sound is loud, in steps of 5 ms."""
    step = sample_rate // 200
    peaks = np.abs(audio[: len(audio) // step * step]).reshape(-1, step).max(axis=1)
    return spans(peaks > 0.3, 200)
