"""Frames and sound to an mp4 file: H.264 pictures and AAC sound, on one clock."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.storage.files import PARTIAL, writing


def write_mp4(
    path: Path, frames: NDArray[np.uint8], sound: NDArray[np.floating], *, frame_rate: int, sample_rate: int
) -> None:
    """Write frames (T, H, W, 3), RGB with even H and W, and sound (samples,) in [-1, 1] to `path`, whole or not at all.

    Args:
        frame_rate: frames per second.
        sample_rate: samples per second.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
        try:
            _encode(partial, frames, sound, frame_rate, sample_rate)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def _encode(
    path: Path, frames: NDArray[np.uint8], sound: NDArray[np.floating], frame_rate: int, sample_rate: int
) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=frame_rate, options={"preset": "ultrafast", "crf": "23"})
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = "yuv420p"
        # Workers write clips side by side; more threads in each would also make the file depend on their number.
        video.codec_context.thread_count = 1
        audio = container.add_stream("aac", rate=sample_rate, layout="mono", options={"aac_coder": "fast"})
        audio.codec_context.bit_rate = 64_000
        for picture in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(sound[None, :], format="fltp", layout="mono")
        block.sample_rate, block.pts = sample_rate, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
