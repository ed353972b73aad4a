"""From a decoded frame to the picture that a visual encoder takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

# A frame, upright and with square pixels, to (height, width, 3) uint8 RGB, of one size whatever the frame's is. Made in
# the process that decodes.
Picture = Callable[[av.VideoFrame], NDArray[np.uint8]]


class Scaled:
    """Scales a frame to `width` × `height` pixels, each the mean of what it covers; the shape is not kept."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        # One for all frames: it keeps its scaling tables, which cost more than a small frame does.
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        picture = self._scaler.reformat(frame, self.width, self.height, "rgb24", interpolation="AREA")
        # rgb24 is bytes; PyAV's annotation covers its other formats too.
        return np.asarray(picture.to_ndarray(), dtype=np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        # The tables are FFmpeg's and stay in their process.
        return Scaled, (self.width, self.height)


class Square(Scaled):
    """Scales a frame to `size` × `size` pixels."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size)


class CenterSquare:
    """Scales a frame until its shorter side is `size` pixels, and cuts the middle `size` × `size` pixels out of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._scaler = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        shorter = min(frame.width, frame.height)
        width, height = (max(self.size, round(side * self.size / shorter)) for side in (frame.width, frame.height))
        picture = self._scaler.reformat(frame, width, height, "rgb24", interpolation="AREA").to_ndarray()
        top, left = (height - self.size) // 2, (width - self.size) // 2
        return np.ascontiguousarray(picture[top : top + self.size, left : left + self.size], dtype=np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        return CenterSquare, (self.size,)


class WholeFrame:
    """Keeps a frame's own size: that of the first one, should a later one have another."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        self._size = self._size or (frame.width, frame.height)
        return np.asarray(frame.reformat(*self._size, "rgb24").to_ndarray(), dtype=np.uint8)
