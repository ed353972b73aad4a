"""Frames and sound to an mp4 file: H.264 pictures and AAC sound, on one clock."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from scav_model.storage.files import PARTIAL, writing


def write_mp4(
    path: Path,
    frames: NDArray[np.uint8],
    sound: NDArray[np.floating],
    *,
    frame_rate: int,
    sample_rate: int,
    crf: int = 23,
    bit_rate: int = 64_000,
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: the file.
        frames: (T, height, width, 3) RGB; both sizes even, as H.264's subsampled colors need them.
        sound: (samples,) mono, in [-1, 1].
        frame_rate: frames a second.
        sample_rate: samples a second.
        crf: constant rate factor of x264, from 0 (lossless) to 51 (worst).
        bit_rate: of the sound, bits a second.
    """
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise ValueError(f"expected frames of even height and width, got {height} × {width}; cut a row or a column off")
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    with writing(path):
        try:
            with av.open(str(partial), "w", format="mp4") as container:
                video = container.add_stream(
                    "libx264", rate=frame_rate, options={"preset": "ultrafast", "crf": str(crf)}
                )
                video.width, video.height, video.pix_fmt = width, height, "yuv420p"
                # Workers write clips side by side; with more threads in each, the file would depend on their number.
                video.codec_context.thread_count = 1
                audio = container.add_stream("aac", rate=sample_rate, layout="mono", options={"aac_coder": "fast"})
                audio.codec_context.bit_rate = bit_rate
                for picture in frames:
                    container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(video.encode(None))
                block = av.AudioFrame.from_ndarray(sound.astype(np.float32)[None, :], format="fltp", layout="mono")
                block.sample_rate, block.pts = sample_rate, 0
                container.mux(audio.encode(block))
                container.mux(audio.encode(None))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
