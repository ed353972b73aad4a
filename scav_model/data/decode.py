"""Decoding one clip of a media file: frames at a set rate and mono audio, on one clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.data.pictures import Picture

# A file may end this much earlier than its header says before it counts as truncated: encoders round a stream's length
# to whole packets, 64 ms for AAC at 16 kHz.
END_TOLERANCE = 0.15  # seconds


# A file's name, or the open file.
Source = Path | str | BinaryIO

# The streams of a clip.
BOTH = ("video", "audio")


class DecodeError(ValueError):
    """A clip that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Media:
    """A decoded clip; both arrays begin at the clip's start and cover the same time."""

    frames: NDArray[np.uint8]  # (T, height, width, 3) RGB; frame k is what is on screen k / frame_rate seconds in
    audio: NDArray[np.float32]  # (samples,) mono, in [-1, 1]


def decode(
    path: Source,
    *,
    frame_rate: float,
    picture: Picture,
    sample_rate: int = 16_000,
    start: float = 0.0,
    duration: float | None = None,
) -> Media:
    """Decode `duration` seconds from `start` (to the end if None, or if the file ends before).

    Args:
        frame_rate: frames per second to sample, whatever the file's own rate is.
        picture: makes what is kept of a frame; called once for each frame that is sampled.
        sample_rate: audio samples per second to resample to.
        start, duration: seconds.

    Raises:
        DecodeError: no such file, not a media file, no video, no audio, truncated, or nothing left after `start`.
    """
    with _opened(path) as container:
        clip_end = _clip_end(container, start, duration, BOTH)
        pictures = _make_pictures(start, clip_end, frame_rate, picture)
        sound = _make_sound(start, clip_end, sample_rate)
        _read(container, start, clip_end, pictures, sound)
        return Media(np.stack(pictures.frames), sound.samples)


def decode_frames(
    path: Source, *, frame_rate: float, picture: Picture, start: float = 0.0, duration: float | None = None
) -> NDArray[np.uint8]:
    """The frames alone, (T, height, width, 3), of a file that need not have sound; otherwise as `decode`."""
    with _opened(path, ("video",)) as container:
        clip_end = _clip_end(container, start, duration, ("video",))
        pictures = _make_pictures(start, clip_end, frame_rate, picture)
        _read(container, start, clip_end, pictures, None)
        return np.stack(pictures.frames)


def decode_sound(
    path: Source, *, sample_rate: int = 16_000, start: float = 0.0, duration: float | None = None
) -> NDArray[np.float32]:
    """The sound alone, (samples,), of a file that need not have pictures, such as a wav; otherwise as `decode`."""
    with _opened(path, ("audio",)) as container:
        clip_end = _clip_end(container, start, duration, ("audio",))
        sound = _make_sound(start, clip_end, sample_rate)
        _read(container, start, clip_end, None, sound)
        return sound.samples


def media_seconds(path: Source) -> float:
    """The time in seconds at which the first of the two streams ends, by the header; raises as `decode` does."""
    with _opened(path) as container:
        return _end(container)


@contextmanager
def _opened(path: Source, kinds: Sequence[str] = BOTH) -> Iterator[av.container.InputContainer]:
    """A file with streams of these kinds; what FFmpeg says against it, then and later, as a DecodeError."""
    try:
        with av.open(str(path) if isinstance(path, (str, Path)) else path, "r") as container:
            _check_streams(container, kinds)
            yield container
    except FileNotFoundError as error:
        raise DecodeError("no such file") from error
    except (av.FFmpegError, OSError) as error:
        raise DecodeError(f"not a readable media file, or truncated: {error.strerror or error}") from error


def _check_streams(container: av.container.InputContainer, kinds: Sequence[str]) -> None:
    if not len(container.streams):
        raise DecodeError("no streams in it: truncated, or empty")
    for kind in kinds:
        if not _streams(container, (kind,)):
            raise DecodeError(f"no {kind} stream")
    for stream in _streams(container, kinds):
        # PyAV's annotations leave out that it may be None.
        if getattr(stream, "codec_context", None) is None:
            raise DecodeError(f"the {stream.type} stream's codec is unknown: truncated, or beyond FFmpeg")


def _streams(container: av.container.InputContainer, kinds: Sequence[str]) -> list[Any]:
    """The first stream of each kind."""
    return [stream for kind in kinds for stream in [one for one in container.streams if one.type == kind][:1]]


def _end(container: av.container.InputContainer, kinds: Sequence[str] = BOTH) -> float:
    """The time in seconds at which the first of the streams ends, by the header."""
    ends = []
    for stream in _streams(container, kinds):
        if stream.duration is not None and stream.time_base is not None:
            ends.append(float((stream.duration + (stream.start_time or 0)) * stream.time_base))
        elif container.duration is not None:
            ends.append(container.duration / av.time_base)
    if not ends:
        raise DecodeError("the file does not say how long it is")
    return min(ends)


def _clip_end(
    container: av.container.InputContainer, start: float, duration: float | None, kinds: Sequence[str]
) -> float:
    """The time in seconds of the file's clock at which a clip ends."""
    end = _end(container, kinds)
    if start >= end:
        raise DecodeError(f"starts at {start:g} s, but the file ends at {end:.2f} s")
    return end if duration is None else min(end, start + duration)


# Rounded down, so that nothing is asked for at or beyond the end; the slack is for 3 s × 10 Hz = 29.9999….
def _make_pictures(start: float, end: float, rate: float, picture: Picture) -> _Pictures:
    return _Pictures(max(1, int((end - start) * rate + 1e-6)), start, rate, picture)


def _make_sound(start: float, end: float, rate: int) -> _Sound:
    return _Sound(max(1, int((end - start) * rate + 1e-6)), start, rate)


def _read(
    container: av.container.InputContainer, start: float, end: float, pictures: _Pictures | None, sound: _Sound | None
) -> None:
    """Fill what is asked for from `start` to `end`, both in seconds of the file's clock."""
    wanted = {"video": pictures, "audio": sound}
    streams = _streams(container, [kind for kind, taker in wanted.items() if taker is not None])
    # Worker processes are the parallelism here; FFmpeg's own threads would only compete with them.
    for stream in streams:
        stream.codec_context.thread_count = 1
    if start > 0:
        container.seek(int(start * av.time_base))
    takers = [taker for taker in wanted.values() if taker is not None]
    for packet in container.demux(*streams):
        for frame in packet.decode():
            if isinstance(frame, av.VideoFrame) and pictures is not None:
                pictures.add(frame)
            elif isinstance(frame, av.AudioFrame) and sound is not None:
                sound.add(frame)
        if all(taker.full for taker in takers):
            # All that was asked for, though at a low rate the last frame's time may be far from the end.
            return
    for name, taker in wanted.items():
        if taker is not None and (decoded := taker.finish()) < end - END_TOLERANCE:
            raise DecodeError(f"truncated: {name} ends at {decoded:.2f} s of {end:.2f} s")


def _time(frame: av.VideoFrame | av.AudioFrame) -> float:
    """Seconds of the file's clock at which `frame` begins."""
    if frame.time is None:
        raise DecodeError("a frame has no time stamp")
    return float(frame.time)


class _Pictures:
    """Fills frame k with what is on screen at start + k / rate: the last source frame not later than that."""

    def __init__(self, count: int, start: float, rate: float, picture: Picture) -> None:
        self.frames: list[NDArray[np.uint8]] = []
        self.full = False
        self._count, self._start, self._rate, self._picture = count, start, rate, picture
        self._shown: av.VideoFrame | None = None

    def add(self, frame: av.VideoFrame) -> None:
        # A frame that begins within half a millisecond of a sampling instant is on screen at that instant.
        self._fill(math.ceil((_time(frame) - self._start - 5e-4) * self._rate))
        self._shown = frame

    def finish(self) -> float:
        """Hold the last frame to the clip's end; the time, in seconds, up to which frames were decoded."""
        if self._shown is None:
            return 0.0
        self._fill(self._count)
        seconds_per_tick = float(self._shown.time_base) if self._shown.time_base is not None else 0.0
        return _time(self._shown) + (self._shown.duration or 0) * seconds_per_tick

    def _fill(self, end: int) -> None:
        wanted = min(end, self._count) - len(self.frames)
        # A first frame that comes late, as streams cut between key frames have it, is shown from the beginning.
        if wanted > 0 and self._shown is not None:
            self.frames += [self._picture(self._shown)] * wanted
            self.full = len(self.frames) == self._count


class _Sound:
    """Mono samples at `rate` from `start` on, each block placed by its time stamp."""

    def __init__(self, count: int, start: float, rate: int) -> None:
        self.samples: NDArray[np.float32] = np.zeros(count, dtype=np.float32)
        self.full = False
        self._start, self._rate = start, rate
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        self._end = 0.0

    def add(self, frame: av.AudioFrame | None) -> None:
        for block in self._resampler.resample(frame):
            time = _time(block)
            first = round((time - self._start) * self._rate)
            values = block.to_ndarray()[0]
            self._end = time + block.samples / self._rate
            kept = values[max(0, -first) : max(0, len(self.samples) - first)]
            self.samples[max(0, first) : max(0, first) + len(kept)] = kept
            self.full = first + len(values) >= len(self.samples)

    def finish(self) -> float:
        """Take what the resampler holds back; the time, in seconds, up to which samples were decoded."""
        self.add(None)
        return self._end
