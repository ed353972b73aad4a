"""Turn frames the way players show them: the display matrix applied, pixels made square."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from scav_model.data.media_file import Limits

Pixels = NDArray[np.uint8]  # (height, width, 3)
# The nine numbers a b u, c d v, x y w of a display matrix.
Matrix = tuple[int, ...]


class Upright:
    """Turns and flips a frame as `ffmpeg` does by its display matrix, and stretches its width until pixels are square.

    Args:
        aspect: width of a pixel over its height; None or 0 is unknown, and taken for 1.
    """

    def __init__(self, aspect: Fraction | None, limits: Limits) -> None:
        self._square, self._limits = not aspect or aspect == 1, limits
        self._aspect = aspect or Fraction(1)
        self._rotation: int | None = None  # degrees, of the frame before
        self._turn: Callable[[Pixels], Pixels] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        self._limits.check_pixels(frame.width, frame.height)
        # Reading a matrix takes as long as scaling a small frame: a stream's frames share one until the angle changes.
        if frame.rotation != self._rotation:
            self._rotation, matrix = frame.rotation, _display_matrix(frame)
            self._turn = None if matrix is None else _turn(matrix)
        turn = self._turn
        if turn is None and self._square:
            return frame
        width = max(1, round(frame.width * self._aspect))
        self._limits.check_pixels(width, frame.height)
        squared = frame.reformat(width=width, format="rgb24", interpolation="BICUBIC")
        if turn is None:
            return squared
        return av.VideoFrame.from_ndarray(
            np.ascontiguousarray(turn(np.asarray(squared.to_ndarray(), dtype=np.uint8))), format="rgb24"
        )


def _display_matrix(frame: av.VideoFrame) -> Matrix | None:
    try:
        data: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not know a kind of side data that the frame has; it still tells the angle.
        angle = -math.radians(frame.rotation)
        cosine, sine = (round(65_536 * value) for value in (math.cos(angle), math.sin(angle)))
        return (cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30) if frame.rotation else None
    return None if data is None else struct.unpack("=9i", bytes(data))


def _turn(matrix: Matrix) -> Callable[[Pixels], Pixels] | None:
    """Return what turns pixels by a display matrix, or None where nothing turns; the cases are those of `ffmpeg`."""
    a, b, _, c, d = matrix[:5]
    across, along = math.hypot(a, c), math.hypot(b, d)
    if not across or not along:
        return None
    degrees = round(math.degrees(math.atan2(b / along, a / across))) % 360  # clockwise
    if degrees == 90:
        return _transpose if c > 0 else lambda pixels: np.rot90(pixels, -1)
    if degrees == 270:
        return (lambda pixels: np.rot90(_transpose(pixels), 2)) if c < 0 else lambda pixels: np.rot90(pixels)
    if degrees == 180:
        rows, columns = (-1 if d < 0 else 1), (-1 if a < 0 else 1)
        return lambda pixels: pixels[::rows, ::columns]
    if degrees:
        return lambda pixels: _rotate(pixels, degrees)
    return (lambda pixels: pixels[::-1]) if d < 0 else None


def _transpose(pixels: Pixels) -> Pixels:
    return pixels.swapaxes(0, 1)


def _rotate(pixels: Pixels, degrees: int) -> Pixels:
    """Rotate clockwise within the frame's size; what comes from outside is black."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("rotate", f"{degrees}*PI/180"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    turned: Any = graph.pull()
    return np.asarray(turned.to_ndarray(), dtype=np.uint8)
