"""Put decoded frames and samples on a clip's time line; times are seconds since the container's start."""

from __future__ import annotations

import math

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.data.media_file import DecodeError, Limits
from scav_model.data.orientation import Upright
from scav_model.data.pictures import Picture

# A frame that begins so little, in seconds, after a sampling instant is on screen at that instant.
INSTANT = 5e-4


def count_steps(start: float, end: float, rate: float) -> int:
    """Return how many steps at `rate` a clip has; at least one."""
    # Rounded down, so that nothing is asked for at or beyond the end; the slack is for 3 s × 10 Hz = 29.9999….
    return max(1, int((end - start) * rate + 1e-6))


class Budget:
    """Counts the bytes that a clip's two sides take."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes: dict[str, int] = {}

    def use(self, side: str, size: int) -> None:
        """Note that `side` takes `size` bytes by now; a DecodeError beyond the limit."""
        self._bytes[side] = size
        if sum(self._bytes.values()) > self._limits.max_bytes:
            raise DecodeError(
                f"expected a clip of max_bytes = {self._limits.max_bytes} at most, got more; "
                "cut it with start and duration, or raise max_bytes"
            )


class FrameCollector:
    """Fills frame k with what is on screen at start + k / rate: the last frame of the file not later than that."""

    def __init__(
        self, start: float, end: float, rate: float, picture: Picture, upright: Upright, budget: Budget
    ) -> None:
        self.full = False
        self._start, self._rate, self._picture, self._upright, self._budget = start, rate, picture, upright, budget
        self._count = count_steps(start, end, rate)
        self._frames: list[NDArray[np.uint8]] = []
        self._popped = 0  # frames that `pop` returned
        self._shown: av.VideoFrame | None = None

    def add(self, frame: av.VideoFrame, time: float) -> None:
        self._fill(math.ceil((time - self._start - INSTANT) * self._rate))
        self._shown = frame

    def finish(self, end: float) -> None:
        """Hold the last frame to the stream's end."""
        self._fill(count_steps(self._start, end, self._rate))

    def take(self, end: float) -> NDArray[np.uint8]:
        """Return the frames (T, height, width, 3) up to `end`."""
        frames = self._frames[: count_steps(self._start, end, self._rate) - self._popped]
        return np.stack(frames) if frames else np.empty((0, *self._frames[0].shape), np.uint8)

    def pop(self, count: int) -> NDArray[np.uint8] | None:
        """Return and forget the next `count` frames; None until a frame after them is there."""
        if len(self._frames) <= count:
            return None
        frames = np.stack(self._frames[:count])
        del self._frames[:count]
        self._popped += count
        return frames

    def _fill(self, end: int) -> None:
        wanted = min(end, self._count) - self._popped - len(self._frames)
        # A first frame that comes late, as streams cut between key frames have it, is shown from the beginning.
        if wanted > 0 and self._shown is not None:
            pixels = self._picture(self._upright(self._shown))
            self._budget.use("video", (len(self._frames) + wanted) * pixels.nbytes)
            self._frames += [pixels] * wanted
            self.full = self._popped + len(self._frames) == self._count


class SoundCollector:
    """Mono samples at `rate` from `start` on, the mean of the channels.

    Sound is continuous as long as time stamps, which are rounded, agree with it; where they do not, they decide.
    """

    def __init__(self, start: float, end: float, rate: int, tick: float, budget: Budget) -> None:
        self.full = False
        self._start, self._rate, self._budget = start, rate, budget
        self._tick = tick  # seconds, the unit of time stamps
        self._count = count_steps(start, end, rate)
        self._blocks: list[tuple[int, NDArray[np.float32]]] = []  # place of the first sample, samples
        self._size = 0  # samples up to the end of the last block
        self._popped = 0  # samples that `pop` returned
        self._next = 0  # place of the next sample
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[str, str, int] | None = None
        self._channels = 1
        self._due = -math.inf  # time of the next frame, if sound is continuous

    def add(self, frame: av.AudioFrame, time: float) -> None:
        rate = frame.sample_rate
        if (frame_format := (frame.format.name, frame.layout.name, rate)) != self._format:
            self._restart(frame, time)
            self._format = frame_format
        elif abs(time - self._due) > 2 * self._tick + 1 / rate:
            self._restart(frame, time)
        self._due += frame.samples / rate
        self._place(frame)

    def finish(self, end: float) -> None:
        """Take what the resampler holds back of a stream that ends at `end`."""
        self._place(None)

    def take(self, end: float) -> NDArray[np.float32]:
        """Return the samples (S,) up to `end`; silence where the file has none."""
        return self._assemble(count_steps(self._start, end, self._rate))

    def pop(self, count: int) -> NDArray[np.float32] | None:
        """Return and forget the next `count` samples; None until there is a second of sound after them.

        The second is room for time stamps that go back, and for a last frame that is cut.
        """
        end = self._popped + count
        if self._next < end + self._rate:
            return None
        samples = self._assemble(end)
        self._popped = end
        self._blocks = [(first, values) for first, values in self._blocks if first + len(values) > end]
        return samples

    def _assemble(self, end: int) -> NDArray[np.float32]:
        """Return the samples that `pop` has not returned, up to place `end`."""
        samples = np.zeros(max(0, end - self._popped), dtype=np.float32)
        for first, values in self._blocks:
            place = first - self._popped
            kept = values[max(0, -place) : max(0, len(samples) - place)]
            samples[max(0, place) : max(0, place) + len(kept)] = kept
        return samples

    def _restart(self, frame: av.AudioFrame, time: float) -> None:
        self._place(None)
        self._resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=self._rate)
        self._channels = frame.layout.nb_channels
        self._next, self._due = round((time - self._start) * self._rate), time

    def _place(self, frame: av.AudioFrame | None) -> None:
        """Resample a frame, or the rest if None, and put what comes of it at the next place."""
        if self._resampler is None:
            return
        for block in self._resampler.resample(frame):
            # All channels of a sample side by side.
            values = block.to_ndarray()[0]
            if self._channels > 1:
                values = values.reshape(-1, self._channels).mean(axis=1, dtype=np.float32)
            first = self._next
            self._next += len(values)
            self.full = self._next >= self._count
            values = values[max(0, -first) : max(0, self._count - first)]
            if len(values):
                self._size = max(self._size, max(0, first) + len(values))
                self._budget.use("audio", (self._size - self._popped) * values.itemsize)
                self._blocks.append((max(0, first), values))
