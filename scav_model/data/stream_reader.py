"""Decode the packets of one stream, and tell when each of its frames begins and ends.

Times are seconds since the container's start.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import av

from scav_model.data.media_file import clock_start, seconds_per_tick, stream_start, timed_by_order
from scav_model.data.timeline import INSTANT, FrameCollector, SoundCollector

# What decoders of sound need, in seconds, before what they put out is right: Opus asks for 80 ms.
WARM_UP = 0.1


class LateError(Exception):
    """The first frame that can be decoded from here lies after the start of the clip."""


class FrameTimes:
    """Tells when the frames of one stream begin and end; it is given all of them, in the order of decoding."""

    def __init__(self, container: av.container.InputContainer, stream: Any) -> None:
        self._origin = clock_start(container)
        start = stream_start(stream)
        self.stream_start = 0.0 if start is None else start - self._origin
        self._by_order = timed_by_order(container, stream)
        self._rate: Fraction | None = getattr(stream, "guessed_rate", None)
        self._tick = seconds_per_tick(stream)
        self._first_packet: int | None = None
        self._delay: int | None = None  # ticks from decoding to showing, where frames come by order alone
        # Raw streams have no time stamps; FFmpeg makes them up, as if nothing in the stream could change.
        self._stamped = start is not None
        self._next: float | None = None

    def of_packet(self, packet: av.Packet[Any]) -> float:
        """Return the time at which what a packet holds is shown; -inf if it does not say."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        return -math.inf if ticks is None else ticks * self._tick - self._origin

    def begin(self, packet: av.Packet[Any]) -> None:
        """Note the first packet."""
        if self._first_packet is None:
            self._first_packet = packet.dts

    def of_frame(self, frame: av.VideoFrame | av.AudioFrame) -> tuple[float, float]:
        """Return when a frame begins and ends; one without a time stamp begins where the one before ended."""
        time = self.stream_start if self._next is None else self._next
        if self._by_order:
            if frame.dts is not None:
                if self._delay is None:
                    self._delay = frame.dts - (self._first_packet or 0)
                time = (frame.dts - self._delay) * self._tick - self._origin
        elif frame.pts is not None and (self._stamped or self._next is None):
            time = frame.pts * self._tick - self._origin
        self._next = time + self._length(frame)
        return time, self._next

    def _length(self, frame: av.VideoFrame | av.AudioFrame) -> float:
        written = (frame.duration or 0) * self._tick
        if isinstance(frame, av.AudioFrame):
            decoded = frame.samples / frame.sample_rate
            # Encoders fill the last frame up; the container then says how much of it counts.
            return written if 0 < written < decoded - 2 * self._tick else decoded
        return written or (float(1 / self._rate) if self._rate else 0.0)


class StreamReader:
    """Decodes one stream's packets into a collector.

    Args:
        start: time of the clip's start.
        sought: the packets begin amid the file, so that the first ones may lack what they are predicted from.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: Any,
        collector: FrameCollector | SoundCollector,
        start: float,
        sought: bool,
    ) -> None:
        self.stream, self.collector, self.end = stream, collector, -math.inf
        self._times = FrameTimes(container, stream)
        self._sought = sought
        # When the first frame has to begin, for what comes at the clip's start to be right.
        self._due = max(start if stream.type == "video" else start - WARM_UP, self._times.stream_start) + INSTANT
        # The time of the key frame from which frames can be decoded, once there is one.
        self._first_key = None if sought and stream.type == "video" else -math.inf
        self._error: av.FFmpegError | None = None

    @property
    def started(self) -> bool:
        """True if a frame has been decoded."""
        return self.end > -math.inf

    def read(self, packet: av.Packet[Any]) -> None:
        """Decode a packet; an empty one ends the stream.

        Raises:
            LateError: the first frame that can be decoded begins too late.
            av.FFmpegError: a packet between decoded frames is damaged; before the first and after the last it is none.
        """
        if self.collector.full:
            return
        self._times.begin(packet)
        if self._first_key is None:
            if not packet.is_keyframe:
                return
            self._first_key = self._times.of_packet(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            self._error = error if self.started else None
            return
        for frame in frames:
            self._take(frame)

    def finish(self) -> None:
        """Give the collector what is left; to be called once all packets are read."""
        if self._sought and not self.started:
            raise LateError
        if self.started:
            self.collector.finish(self.end)

    def _take(self, frame: Any) -> None:
        if self._sought and not self.started and frame.pts is None:
            # Nothing says where in the file it lies.
            return
        time, end = self._times.of_frame(frame)
        # Pictures that are shown before the key frame but stored after it lack what they are predicted from.
        if self._first_key is not None and time < self._first_key - INSTANT:
            return
        if self._error is not None:
            raise self._error
        if self._sought and not self.started and time > self._due:
            raise LateError
        self.end = max(self.end, end)
        self.collector.add(frame, time)
