"""Open a media file safely, and answer what its container says: streams, clock, lengths."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.format import ContainerFormat
from av.stream import Disposition

# A file's name, or the open file.
Source = Path | str | BinaryIO

# The streams of a clip.
BOTH = ("video", "audio")

# Demuxers that take a text for a list of other files, streams or hosts.
PLAYLISTS = {"concat", "dash", "hls", "imf", "mpsub", "sdp", "vobsub", "webm_dash_manifest"}

# Containers whose header has a length for each stream. FFmpeg guesses the lengths of other streams, or takes the whole
# file's for them.
WITH_STREAM_LENGTHS = {"aiff", "avi", "caf", "flac", "mov,mp4,m4a,3gp,3g2,mj2", "mxf", "w64", "wav"}

# Matroska's muxers note each track's length as a tag, and count what the encoder puts before the first sample.
PRIMING = 0.1  # seconds

# Containers that store when a frame is decoded, but not when it is shown.
WITHOUT_PRESENTATION_TIMES = {"avi"}

# Containers that do not have a time stamp for each frame: FFmpeg counts on from the last one, wrongly after a seek.
WITHOUT_TIMES_AFTER_SEEK = {"mpeg"}


class DecodeError(ValueError):
    """A clip that cannot be used; the message is the reason, without the file's name."""


@dataclass(frozen=True)
class Limits:
    """Bounds on what one clip may decode to, whatever its file claims. A clip beyond them is a DecodeError."""

    max_seconds: float = 3600.0  # length of the clip
    max_bytes: int = 4 << 30  # frames, as the encoder takes them, and audio samples
    max_pixels: int = 1 << 25  # of a frame of the file: 7680 × 4320 pass

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_bytes", "max_pixels"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} to be above 0, got {getattr(self, name)}")

    def check_pixels(self, width: int, height: int) -> None:
        if width * height > self.max_pixels:
            raise DecodeError(
                f"expected frames of max_pixels = {self.max_pixels} at most, got {width} × {height}; "
                "scale the file down, or raise max_pixels"
            )


DEFAULT_LIMITS = Limits()


@contextmanager
def open_media(
    source: Source, kinds: Sequence[str] = BOTH, limits: Limits = DEFAULT_LIMITS
) -> Iterator[av.container.InputContainer]:
    """Open a regular file that has streams of these kinds; FFmpeg can open nothing else.

    Raises:
        DecodeError: whatever FFmpeg or the operating system says, now or while the file is open.
    """
    with _as_file(source) as file:
        try:
            with av.open(
                file,
                "r",
                container_options={"protocol_whitelist": "none", "format_whitelist": _allowed_formats()},
                options={"max_pixels": str(limits.max_pixels)},
                metadata_errors="replace",
            ) as container:
                _check_streams(container, kinds, limits)
                yield container
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or error
            raise DecodeError(f"not a readable media file, or truncated, or a list of other files: {reason}") from error


@contextmanager
def _as_file(source: Source) -> Iterator[Any]:
    if not isinstance(source, (str, Path)):
        source.seek(0)
        yield source
        return
    try:
        with _open_regular(Path(source)) as file:
            yield file
    except FileNotFoundError as error:
        raise DecodeError("no such file") from error
    except OSError as error:
        raise DecodeError(f"cannot be opened: {error.strerror or error}") from error


def _open_regular(path: Path) -> io.FileIO:
    """Open a regular file to read; anything else, such as a FIFO or a device, is refused at once."""
    if "\0" in str(path):
        raise DecodeError("expected a file's path, got one with a zero byte in it")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise DecodeError("no such file") from error
    # Before it is opened, for opening some devices acts on them, and after, for the name may change its meaning.
    _check_regular(os.stat(path))
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    file = io.FileIO(os.open(path, flags))
    try:
        _check_regular(os.fstat(file.fileno()))
    except DecodeError:
        file.close()
        raise
    # FFmpeg takes the name's suffix for a hint at the format. The rest may look like a pattern or a protocol to it.
    suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", path.suffix) else ""
    file.name = f"media{suffix}"
    return file


def _check_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise DecodeError(f"expected a regular file, got {kind}")


@cache
def _allowed_formats() -> str:
    """FFmpeg's demuxers that read one file, and only what they are given of it."""
    allowed = set()
    for name in av.formats_available:
        try:
            read_by = ContainerFormat(name, "r")
        except ValueError:
            # An output format.
            continue
        if not read_by.no_file and not PLAYLISTS & set(name.split(",")):
            allowed.add(name)
    return ",".join(sorted(allowed))


def _check_streams(container: av.container.InputContainer, kinds: Sequence[str], limits: Limits) -> None:
    if not len(container.streams):
        raise DecodeError("no streams in it: truncated, or empty")
    for kind in kinds:
        stream = choose_stream(container, kind)
        # PyAV's annotations leave out that it may be None.
        if getattr(stream, "codec_context", None) is None:
            raise DecodeError(f"the {kind} stream's codec is unknown: truncated, or beyond FFmpeg")
        if kind == "video":
            limits.check_pixels(stream.codec_context.width, stream.codec_context.height)


def choose_stream(container: av.container.InputContainer, kind: str) -> Any:
    """Return the stream of this kind that is marked default, or else the first; cover art does not count."""
    streams = [
        stream
        for stream in container.streams
        if stream.type == kind and not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise DecodeError(f"no {kind} stream")
    return next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])


def clock_start(container: av.container.InputContainer) -> float:
    """Return the time stamp, in seconds, at which the container begins; all times of a clip count from there."""
    starts = [start for stream in container.streams if (start := stream_start(stream)) is not None]
    if container.start_time is None:
        return min(starts, default=0.0)
    # FFmpeg rounds the container's start to microseconds, which would cost a sample here and there.
    start = container.start_time / av.time_base
    return min((exact for exact in starts if abs(exact - start) < 2e-6), default=start)


def stream_start(stream: Any) -> float | None:
    """Return the time stamp of a stream's beginning in seconds, if the container knows it."""
    return None if stream.start_time is None else stream.start_time * seconds_per_tick(stream)


def seconds_per_tick(stream: Any) -> float:
    """Return the unit of a stream's time stamps."""
    return float(stream.time_base or Fraction(1, av.time_base))


def header_end(container: av.container.InputContainer, stream: Any) -> float | None:
    """Return the time, in seconds of the clip's clock, at which the header says that this very stream ends."""
    if container.format.name in WITH_STREAM_LENGTHS and stream.duration is not None:
        end = (stream.duration + (stream.start_time or 0)) * seconds_per_tick(stream)
        return end - clock_start(container)
    return None


def least_end(container: av.container.InputContainer, stream: Any) -> float | None:
    """Return a time before which this very stream does not end, by what the container says of it."""
    written = re.fullmatch(r"(\d+):(\d\d):(\d\d\.\d+)", stream.metadata.get("DURATION", ""))
    if written and container.format.name == "matroska,webm":
        hours, minutes, seconds = (float(number) for number in written.groups())
        return 3600 * hours + 60 * minutes + seconds - max(0.0, clock_start(container)) - PRIMING
    return header_end(container, stream)


def timed_by_order(container: av.container.InputContainer, stream: Any) -> bool:
    """Tell whether only the order of frames says when each of them is shown."""
    reordered = stream.type == "video" and stream.codec_context.has_b_frames
    return reordered and container.format.name in WITHOUT_PRESENTATION_TIMES


def needs_beginning(container: av.container.InputContainer, stream: Any) -> bool:
    """Tell whether frames can only be timed if the file is decoded from its beginning."""
    return container.format.name in WITHOUT_TIMES_AFTER_SEEK or timed_by_order(container, stream)


def read_packets(container: av.container.InputContainer, streams: Sequence[Any]) -> Iterator[av.Packet[Any]]:
    """Yield the packets of some streams, and in the end an empty one of each."""
    try:
        yield from container.demux(*streams)
    except IndexError:
        # PyAV looks for a stream that appeared midway, once it has ended those that were there from the beginning.
        return


def packets_end(container: av.container.InputContainer, streams: Sequence[Any]) -> dict[int, float]:
    """Return the time, in seconds of the clip's clock, at which each stream ends, by index; reads the whole file."""
    origin = clock_start(container)
    ends: dict[int, float] = {}
    for packet in read_packets(container, streams):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None:
            end = (time + (packet.duration or 0)) * seconds_per_tick(packet.stream) - origin
            ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
    return ends
