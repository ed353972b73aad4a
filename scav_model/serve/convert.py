"""Clips of files that browsers do not play, as mp4 with H.264 pictures and AAC sound."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from scav_model.data.decode import DecodeError
from scav_model.data.media_file import choose_stream, clock_start, open_media

MAX_SECONDS = 600.0  # of a converted clip
MAX_HEIGHT = 480  # px
FRAME_RATE = 25
SAMPLE_RATE = 48_000
TICKS = 90_000  # of a picture's clock, in a second
# Codecs that go into the mp4 as they are.
KEPT = {"h264", "aac", "mp3"}


def convert(path: Path, target: Path, start: float, seconds: float | None) -> None:
    """Write a clip as an mp4 that browsers play. A whole file whose codecs they know is not encoded anew.

    Raises:
        DecodeError: the file cannot be read, or the clip is too long.
    """
    with open_media(path, kinds=()) as source:
        streams = list(chosen(source))
        rest = (source.duration or 0) / av.time_base - start
        length = seconds or rest
        if length > MAX_SECONDS:
            raise DecodeError(f"expected a clip of at most {MAX_SECONDS:g} s to convert for browsers, got {length:.0f}")
        whole = start == 0 and length > rest - 0.2
        with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as output:
            if whole and all(stream.codec_context.name in KEPT for stream in streams):
                remux(source, output, streams)
            else:
                transcode(source, output, streams, start, start + min(length or MAX_SECONDS, MAX_SECONDS))


def chosen(source: Any) -> Iterator[Any]:
    """Yield the stream of pictures and the stream of sound, as far as they are there."""
    found = 0
    for kind in ("video", "audio"):
        try:
            stream = choose_stream(source, kind)
        except DecodeError:
            continue
        found += 1
        yield stream
    if not found:
        raise DecodeError("no pictures and no sound")


def remux(source: Any, output: Any, streams: list[Any]) -> None:
    targets = {stream.index: output.add_stream_from_template(stream) for stream in streams}
    for packet in source.demux(streams):
        if packet.dts is not None:
            packet.stream = targets[packet.stream.index]
            output.mux(packet)


def transcode(source: Any, output: Any, streams: list[Any], start: float, end: float) -> None:
    writers = {
        stream.index: _Pictures(output, stream) if stream.type == "video" else _Sound(output) for stream in streams
    }
    origin = clock_start(source)
    if start:
        source.seek(math.floor((origin + start) * av.time_base))
    waiting = set(writers)
    for packet in source.demux(streams):
        if packet.stream.index not in waiting:
            continue
        for frame in packet.decode():
            time = None if frame.time is None else frame.time - origin
            if time is None or time < start - 1 / FRAME_RATE:
                continue
            if time >= end:
                waiting.discard(packet.stream.index)
                break
            writers[packet.stream.index].write(frame, max(0.0, time - start))
        if not waiting:
            break
    for writer in writers.values():
        writer.close()


class _Pictures:
    """Encodes pictures at their times."""

    def __init__(self, output: Any, source: Any) -> None:
        self.output, self.last = output, -1
        stream = output.add_stream("libx264", rate=FRAME_RATE, options={"preset": "veryfast", "crf": "26"})
        height = min(MAX_HEIGHT, source.codec_context.height)
        stream.height = height - height % 2 or 2
        stream.width = max(2, round(source.codec_context.width * height / source.codec_context.height / 2) * 2)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        self.stream = stream

    def write(self, frame: Any, time: float) -> None:
        picture = frame.reformat(self.stream.width, self.stream.height, "yuv420p")
        # Times of a damaged file may stand still or go back; an encoder's may not.
        picture.pts = self.last = max(self.last + 1, round(time * TICKS))
        picture.time_base = Fraction(1, TICKS)
        picture.pict_type = 0
        self.output.mux(self.stream.encode(picture))

    def close(self) -> None:
        self.output.mux(self.stream.encode(None))


class _Sound:
    """Encodes sound from the time of its first frame on."""

    def __init__(self, output: Any) -> None:
        self.output = output
        self.next: int | None = None  # time stamp, in samples
        self.stream = output.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        self.resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SAMPLE_RATE)

    def write(self, frame: Any, time: float) -> None:
        if self.next is None:
            self.next = round(time * SAMPLE_RATE)
        frame.pts = None
        self._encode(self.resampler.resample(frame))

    def _encode(self, frames: list[Any]) -> None:
        for frame in frames:
            frame.pts, frame.time_base = self.next, Fraction(1, SAMPLE_RATE)
            self.next = (self.next or 0) + frame.samples
            self.output.mux(self.stream.encode(frame))

    def close(self) -> None:
        self._encode(self.resampler.resample(None))
        self.output.mux(self.stream.encode(None))


class ConvertedFiles:
    """Converted clips in a folder, which holds a number of bytes at most: the clip asked for longest ago goes first."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, number: int) -> Path:
        return self.folder / f"{number}.mp4"

    def get(self, number: int) -> Path | None:
        """Return the file of a clip that was converted, if it is still there."""
        with self._lock:
            if number not in self._sizes:
                return None
            self._sizes.move_to_end(number)
            return self.path(number)

    def add(self, number: int, made: Path) -> Path:
        """Take a converted file in, and remove others until all fit."""
        with self._lock:
            made.replace(self.path(number))
            self._sizes[number] = self.path(number).stat().st_size
            while sum(self._sizes.values()) > self.max_bytes and len(self._sizes) > 1:
                oldest, _ = self._sizes.popitem(last=False)
                self.path(oldest).unlink(missing_ok=True)
            return self.path(number)
