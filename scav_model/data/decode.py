"""Decode one clip of a media file: frames at a set rate and mono audio, on one clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.data.media_file import (
    BOTH,
    DEFAULT_LIMITS,
    DecodeError,
    Limits,
    Source,
    choose_stream,
    clock_start,
    header_end,
    least_end,
    needs_beginning,
    open_media,
    packets_end,
    read_packets,
    seconds_per_tick,
)
from scav_model.data.orientation import Upright
from scav_model.data.pictures import Picture, WholeFrame
from scav_model.data.stream_reader import LateError, StreamReader
from scav_model.data.timeline import Budget, FrameCollector, SoundCollector

__all__ = [
    "BOTH",
    "DEFAULT_LIMITS",
    "DecodeError",
    "Limits",
    "Media",
    "Source",
    "decode",
    "decode_frames",
    "decode_sound",
    "media_seconds",
    "read_clip",
    "recording_seconds",
    "stream_frames",
    "stream_sound",
]

# A file may end this much earlier than its header says before it counts as truncated: encoders round a stream's length
# to whole packets, 64 ms for AAC at 16 kHz.
END_TOLERANCE = 0.15  # seconds

# Bounds on a recording that is decoded in blocks.
LONG_LIMITS = Limits(max_seconds=7 * 86_400.0)

# How far before a clip's start decoding begins, in seconds: where that proves too late, the next one is tried.
LEADS = (0.3, 3.0, 30.0, 300.0, math.inf)


@dataclass(frozen=True)
class Media:
    """A decoded clip; both arrays begin at the clip's start and cover the same time."""

    frames: NDArray[np.uint8]  # (T, height, width, 3) RGB; frame k is what is on screen k / frame_rate seconds in
    audio: NDArray[np.float32]  # (samples,) mono, in [-1, 1]


def read_clip(
    path: Source,
    *,
    frame_rate: float = 25.0,
    sample_rate: int = 16_000,
    start: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Media:
    """Return a clip with frames of the file's own size, upright and with square pixels; arguments as in `decode`."""
    return decode(
        path,
        frame_rate=frame_rate,
        picture=WholeFrame(),
        sample_rate=sample_rate,
        start=start,
        duration=duration,
        limits=limits,
    )


def decode(
    path: Source,
    *,
    frame_rate: float,
    picture: Picture,
    sample_rate: int = 16_000,
    start: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Media:
    """Decode `duration` seconds from `start` (to the end if None, or if the file ends before).

    The clip ends where the first of the two streams does. Of several streams of a kind the default one is taken. Sound
    is the mean of its channels.

    Args:
        frame_rate: frames per second to sample, whatever the file's own rate is.
        picture: makes what is kept of a frame; called once for each frame that is sampled.
        sample_rate: audio samples per second to resample to.
        start, duration: seconds; `start` counts from the container's start.
        limits: bounds on the clip's length, memory and frame size.

    Raises:
        DecodeError: no such file, not a regular file, not a media file, no video, no audio, truncated, beyond a limit,
            or nothing left after `start`.
    """
    wanted = _Wanted(start, duration, limits, frame_rate, picture, sample_rate)
    decoded = _read(path, BOTH, wanted)
    return Media(decoded["video"], decoded["audio"])


def decode_frames(
    path: Source,
    *,
    frame_rate: float,
    picture: Picture,
    start: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> NDArray[np.uint8]:
    """Return the frames alone, (T, height, width, 3), of a file that need not have sound; otherwise as `decode`."""
    wanted = _Wanted(start, duration, limits, frame_rate=frame_rate, picture=picture)
    return _read(path, ("video",), wanted)["video"]


def decode_sound(
    path: Source,
    *,
    sample_rate: int = 16_000,
    start: float = 0.0,
    duration: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> NDArray[np.float32]:
    """Return the sound alone, (samples,), of a file that need not have pictures, as a wav; otherwise as `decode`."""
    return _read(path, ("audio",), _Wanted(start, duration, limits, sample_rate=sample_rate))["audio"]


def stream_frames(
    path: Source, block: int, *, frame_rate: float, picture: Picture, limits: Limits = LONG_LIMITS
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a whole file, `block` at a time, in bounded memory: together, those of `decode_frames`."""
    yield from _stream(path, "video", block, _Wanted(0.0, None, limits, frame_rate=frame_rate, picture=picture))


def stream_sound(
    path: Source, block: int, *, sample_rate: int = 16_000, limits: Limits = LONG_LIMITS
) -> Iterator[NDArray[np.float32]]:
    """Yield the sound of a whole file, `block` samples at a time, in bounded memory: together, that of `decode_sound`.

    Where time stamps go back by more than a second, the sound that was there first stays.
    """
    yield from _stream(path, "audio", block, _Wanted(0.0, None, limits, sample_rate=sample_rate))


def recording_seconds(path: Source, kind: str) -> float | None:
    """Return the time in seconds at which one stream ends, by the file's header; None where it does not say.

    Raises:
        DecodeError: as `decode_frames` and `decode_sound`, of what the header shows.
    """
    with open_media(path, (kind,)) as container:
        return least_end(container, choose_stream(container, kind))


def media_seconds(path: Source) -> float:
    """Return the time in seconds at which the first of the two streams ends; raises as `decode` does.

    The file is read through, not decoded, where its container does not have a length for each stream.
    """
    with open_media(path) as container:
        streams = [choose_stream(container, kind) for kind in BOTH]
        ends = {stream.index: header_end(container, stream) for stream in streams}
        unknown = [stream for stream in streams if ends[stream.index] is None]
        if unknown:
            ends |= packets_end(container, unknown)
        if missing := [stream.type for stream in streams if ends[stream.index] is None]:
            raise DecodeError(f"the {missing[0]} stream is empty")
        return min(end for end in ends.values() if end is not None)


@dataclass(frozen=True)
class _Wanted:
    """Part of a file to decode, and its form."""

    start: float
    duration: float | None
    limits: Limits
    frame_rate: float = 1.0
    picture: Picture | None = None
    sample_rate: int = 1

    def __post_init__(self) -> None:
        for name in ("frame_rate", "sample_rate"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise DecodeError(f"expected {name} to be a number above 0, got {value}")
        if not (self.start >= 0 and math.isfinite(self.start)):
            raise DecodeError(f"expected start to be a number of seconds, 0 or more, got {self.start}")
        if self.duration is not None and not self.duration > 0:
            raise DecodeError(f"expected duration to be above 0 seconds, got {self.duration}")

    @property
    def seconds(self) -> float:
        """Seconds from the start to the end that was asked for; infinite if that is the file's."""
        return math.inf if self.duration is None else self.duration

    def collector(self, stream: Any, budget: Budget) -> FrameCollector | SoundCollector:
        rate = self.sample_rate if self.picture is None or stream.type == "audio" else self.frame_rate
        # A step beyond the limit, which only a clip beyond it fills.
        end = self.start + min(self.seconds, self.limits.max_seconds + 1 / rate)
        if self.picture is None or stream.type == "audio":
            return SoundCollector(self.start, end, self.sample_rate, seconds_per_tick(stream), budget)
        upright = Upright(stream.sample_aspect_ratio, self.limits)
        return FrameCollector(self.start, end, self.frame_rate, self.picture, upright, budget)


def _read(path: Source, kinds: Sequence[str], wanted: _Wanted) -> dict[str, NDArray[Any]]:
    for lead in LEADS:
        seek_to = wanted.start - lead if wanted.start > lead else None
        try:
            with open_media(path, kinds, wanted.limits) as container:
                return _read_from(container, seek_to, kinds, wanted)
        except LateError:
            continue
    raise AssertionError("decoding from the beginning is never late")


def _read_from(
    container: av.container.InputContainer, seek_to: float | None, kinds: Sequence[str], wanted: _Wanted
) -> dict[str, NDArray[Any]]:
    """Decode a clip from the key frame before `seek_to` on, or from the beginning if that is None.

    Raises:
        LateError: no frame can be decoded that begins at the clip's start or before.
    """
    streams = [choose_stream(container, kind) for kind in kinds]
    if any(needs_beginning(container, stream) for stream in streams):
        seek_to = None
    if seek_to is not None:
        _seek(container, streams[0], seek_to)
    budget = Budget(wanted.limits)
    readers = {}
    for stream in streams:
        # Worker processes are the parallelism here; FFmpeg's own threads would only compete with them.
        stream.codec_context.thread_count = 1
        collector = wanted.collector(stream, budget)
        readers[stream.type] = StreamReader(container, stream, collector, wanted.start, seek_to is not None)
    for packet in read_packets(container, streams):
        readers[packet.stream.type].read(packet)
        if all(reader.collector.full for reader in readers.values()):
            # All that was asked for, though at a low rate the last frame's time may be far from the end.
            break
    end = _clip_end(container, readers, wanted)
    return {kind: reader.collector.take(end) for kind, reader in readers.items()}


def _stream(path: Source, kind: str, block: int, wanted: _Wanted) -> Iterator[NDArray[Any]]:
    with open_media(path, (kind,), wanted.limits) as container:
        stream = choose_stream(container, kind)
        collector = wanted.collector(stream, Budget(wanted.limits))
        reader = StreamReader(container, stream, collector, wanted.start, sought=False)
        for packet in read_packets(container, [stream]):
            reader.read(packet)
            while (popped := collector.pop(block)) is not None:
                yield popped
        rest = collector.take(_clip_end(container, {kind: reader}, wanted))
        for first in range(0, len(rest), block):
            yield rest[first : first + block]


def _seek(container: av.container.InputContainer, stream: Any, time: float) -> None:
    try:
        container.seek(math.floor((clock_start(container) + time) / seconds_per_tick(stream)), stream=stream)
    except (av.FFmpegError, OverflowError) as error:
        raise LateError from error


def _clip_end(container: av.container.InputContainer, readers: dict[str, StreamReader], wanted: _Wanted) -> float:
    """Return the time at which a clip ends: where the first stream does, or where it was asked to end."""
    ends: dict[str, float] = {}
    known: dict[str, float] = {}
    for kind, reader in readers.items():
        reader.finish()
        ends[kind] = math.inf if reader.collector.full else reader.end
        stated = least_end(container, reader.stream)
        if not reader.started and stated is None:
            raise DecodeError(f"no frame of the {kind} stream can be decoded")
        known[kind] = ends[kind] if stated is None else stated
    first = min(ends, key=lambda kind: ends[kind])
    due = min(wanted.start + wanted.seconds, *known.values())
    if ends[first] < due - END_TOLERANCE:
        raise DecodeError(f"truncated: {first} ends at {max(0.0, ends[first]):.2f} s of {due:.2f} s")
    if wanted.start >= ends[first]:
        raise DecodeError(f"starts at {wanted.start:g} s, but the file ends at {max(0.0, ends[first]):.2f} s")
    most = wanted.limits.max_seconds
    if min(ends[first], wanted.start + wanted.seconds) > wanted.start + most + 1e-6:
        raise DecodeError(
            f"expected a clip of max_seconds = {most:g} at most, got a longer one; "
            "cut it with start and duration, or raise max_seconds"
        )
    return min(ends[first], wanted.start + wanted.seconds)
