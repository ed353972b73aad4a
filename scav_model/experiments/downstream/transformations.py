"""What happens to clips on their way through the world: libavfilter chains, and a second encoding.

Each transformation is made in the decoded picture and sound, and the result is encoded again as H.264 and AAC, before
any front end sees it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
from numpy.typing import NDArray

from scav_model.data.decode import read_clip
from scav_model.data.manifest import Clip
from scav_model.experiments.mp4 import write_mp4

FRAME_RATE = 25  # frames/s
SAMPLE_RATE = 16_000  # samples/s
SPEED = 1.25  # times as fast
STRETCH = 0.8  # times as fast, with the pitch kept
SEMITONES = 2  # upwards
PITCH = 2 ** (SEMITONES / 12)  # factor on frequencies
KEPT = 0.8  # of width and height after a crop, and of the time after a cut
LOUDNESS = 0.03  # amplitude of uniform noise; 1 is full scale
GRAIN = 25  # of 255, strength of noise in the picture


@dataclass(frozen=True)
class Transformation:
    """Filter chains of the two sides, None where a side stays as it is, and the quality of the second encoding.

    `{width}`, `{height}`, `{start}` and `{end}` stand for the clip's size in pixels and the seconds that are kept.
    """

    video: str | None = None
    audio: str | None = None
    crf: int = 23
    bit_rate: int = 64_000

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that change."""
        return tuple(side for side, chain in (("video", self.video), ("audio", self.audio)) if chain is not None)


# By the names of the results; the first is a clip that is only encoded again, at a low quality.
TRANSFORMATIONS = {
    "reencode": Transformation("null", "anull", crf=40, bit_rate=16_000),
    "crop": Transformation(
        f"crop=trunc(iw*{KEPT}/2)*2:trunc(ih*{KEPT}/2)*2,scale={{width}}:{{height}}",
    ),
    "cut": Transformation(
        "trim=start={start}:end={end},setpts=PTS-STARTPTS", "atrim=start={start}:end={end},asetpts=PTS-STARTPTS"
    ),
    "noise": Transformation(f"noise=alls={GRAIN}:allf=t", f"aeval=val(0)+{LOUDNESS}*(2*random(0)-1)"),
    "speed": Transformation(
        f"setpts=PTS/{SPEED},fps={FRAME_RATE}", f"asetrate={round(SAMPLE_RATE * SPEED)},aresample={SAMPLE_RATE}"
    ),
    "pitch": Transformation(
        audio=f"asetrate={round(SAMPLE_RATE * PITCH)},aresample={SAMPLE_RATE},atempo={1 / PITCH:.6f}"
    ),
    "stretch": Transformation(f"setpts=PTS/{STRETCH},fps={FRAME_RATE}", f"atempo={STRETCH}"),
}


def transform(clip: Clip, name: str, path: Path) -> None:
    """Write the clip, transformed, to `path`, whole or not at all."""
    chosen = TRANSFORMATIONS[name]
    media = read_clip(
        clip.path, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE, start=clip.start, duration=clip.duration
    )
    _, height, width, _ = media.frames.shape
    # H.264's subsampled colors need even sizes.
    frames, sound = media.frames[:, : height // 2 * 2, : width // 2 * 2], media.audio
    seconds = len(frames) / FRAME_RATE
    edge = seconds * (1 - KEPT) / 2
    known = {
        "width": frames.shape[2],
        "height": frames.shape[1],
        "start": f"{edge:.3f}",
        "end": f"{seconds - edge:.3f}",
    }
    if chosen.video is not None:
        frames = filter_frames(frames, chosen.video.format(**known))
    if chosen.audio is not None:
        sound = filter_sound(sound, chosen.audio.format(**known))
    write_mp4(
        path, frames, sound, frame_rate=FRAME_RATE, sample_rate=SAMPLE_RATE, crf=chosen.crf, bit_rate=chosen.bit_rate
    )


def filter_frames(frames: NDArray[np.uint8], chain: str) -> NDArray[np.uint8]:
    """Return frames (T, height, width, 3) that went through a chain of libavfilter."""
    _, height, width, _ = frames.shape
    tick = Fraction(1, FRAME_RATE)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24", width, height), time_base=tick)
    _link(graph, source, f"{chain},format=rgb24", "buffersink")
    made = []
    for number, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = number, tick
        made += [found.to_ndarray() for found in _pushed(graph, frame)]
    made += [found.to_ndarray() for found in _pushed(graph, None)]
    return np.stack(made)


def filter_sound(sound: NDArray[np.float32], chain: str) -> NDArray[np.float32]:
    """Return samples (S,) that went through a chain of libavfilter."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=SAMPLE_RATE, format="fltp", layout="mono", time_base=Fraction(1, SAMPLE_RATE)
    )
    _link(graph, source, f"{chain},aformat=sample_fmts=fltp:channel_layouts=mono", "abuffersink")
    block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None, :]), format="fltp", layout="mono")
    block.sample_rate, block.pts, block.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
    made = [found.to_ndarray()[0] for frame in (block, None) for found in _pushed(graph, frame)]
    return np.clip(np.concatenate(made), -1, 1)


def _link(graph: Any, source: Any, chain: str, sink: str) -> None:
    """Join the filters of a chain, from the source to a sink."""
    last = source
    for entry in [*chain.split(","), sink]:
        name, _, arguments = entry.partition("=")
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    graph.configure()


def _pushed(graph: Any, frame: Any) -> Iterator[Any]:
    """Push a frame, None at the end, and yield what comes out."""
    try:
        # A filter that has cut the end off takes no more.
        graph.push(frame)
        while True:
            yield graph.pull()
    except (av.error.BlockingIOError, av.error.EOFError):
        return
