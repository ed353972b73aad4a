"""Small pictures of a media file, for pages that carry everything with them."""

from __future__ import annotations

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.data.decode import DecodeError, decode_frames, media_seconds
from scav_model.data.pictures import Square

SIZE = 96  # px


def thumbnails(path: Path, count: int = 4, *, start: float = 0.0, seconds: float | None = None) -> list[str]:
    """`count` pictures, evenly through a clip, as data URIs; none where there are no pictures to be had."""
    try:
        if seconds is None:
            seconds = media_seconds(path) - start
        frames = decode_frames(path, frame_rate=count / seconds, picture=Square(SIZE), start=start, duration=seconds)
    except (DecodeError, ZeroDivisionError):
        return []
    return [f"data:image/jpeg;base64,{base64.b64encode(jpeg(frame)).decode()}" for frame in frames]


def jpeg(frame: NDArray[np.uint8], width: int | None = None) -> bytes:
    """Return a picture (H, W, 3) as JPEG, scaled to a width if it is named; the shape is kept to an even pixel."""
    height, given = frame.shape[:2]
    width = given if width is None else width
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = width + width % 2, max(2, round(height * width / given / 2) * 2)
    encoder.pix_fmt = "yuvj420p"
    encoder.framerate = Fraction(1)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    picture = picture.reformat(encoder.width, encoder.height, format="yuvj420p")
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))
