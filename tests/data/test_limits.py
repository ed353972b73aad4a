"""A clip is bounded in length, memory and frame size, whatever its file claims."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from marked_media import make_marked, numbered, tone

from scav_model.data.decode import DecodeError, Limits, decode, decode_frames, decode_sound, read_clip
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.frontends import FramePatchConfig, LogMelConfig
from scav_model.data.manifest import Clip
from scav_model.data.pictures import Square
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder


def make_gap(path: Path, seconds: float) -> Path:
    """Write a film whose second half comes `seconds` after the first: a few kilobytes that claim to last so long."""
    with av.open(str(path), "w") as file:
        film = file.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        film.codec_context.max_b_frames = 0
        sound = file.add_stream("aac", rate=16_000, layout="mono")
        for half in range(2):
            shift = half * seconds
            for number in range(25):
                frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
                frame.pts, frame.time_base = round(shift * 25) + number, Fraction(1, 25)
                file.mux(film.encode(frame))
            for first in range(0, 16_000, 1024):
                wave = tone(1.0, 16_000)[None, first : first + 1024]
                block = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout="mono")
                block.sample_rate, block.time_base = 16_000, Fraction(1, 16_000)
                block.pts = round(shift * 16_000) + first
                file.mux(sound.encode(block))
        file.mux(film.encode(None))
        file.mux(sound.encode(None))
    return path


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_clip(path),
        lambda path: decode(path, frame_rate=5, picture=Square(16)),
        lambda path: decode_frames(path, frame_rate=25, picture=Square(16)),
        lambda path: decode_sound(path),
    ],
)
def test_a_file_that_claims_to_last_for_hours(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    path = make_gap(tmp_path / name, 10 * 3600.0)
    with pytest.raises(DecodeError, match=r"raise max_(seconds|bytes)$"):
        read(path)
    assert len(read_clip(path, duration=1.0).frames) == 25


def test_a_clips_length_is_bounded(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mp4")
    with pytest.raises(DecodeError, match=r"^expected a clip of max_seconds = 1\.5 at most, got a longer one; .*raise"):
        read_clip(path, limits=Limits(max_seconds=1.5))
    for fitting in ({"duration": 1.5}, {"start": 0.5}, {"start": 1.0, "duration": 30.0}):
        read_clip(path, limits=Limits(max_seconds=1.5), **fitting)
    assert len(read_clip(path, limits=Limits(max_seconds=2.0)).frames) == 50
    with pytest.raises(DecodeError, match="max_seconds"):
        read_clip(path, duration=1.8, limits=Limits(max_seconds=1.5))


def test_the_shorter_stream_counts_towards_the_length(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mkv", seconds=4.0, audio_seconds=1.0)
    assert 25 <= len(read_clip(path, limits=Limits(max_seconds=1.2)).frames) <= 28


def test_a_clips_memory_is_bounded(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mp4")
    size = 50 * 64 * 96 * 3 + 32_000 * 4
    # The last frame of AAC lasts beyond the clip's end.
    assert len(read_clip(path, limits=Limits(max_bytes=size + 1024 * 4)).frames) == 50
    with pytest.raises(DecodeError, match=rf"^expected a clip of max_bytes = {size - 1} at most, got more; .*raise"):
        read_clip(path, limits=Limits(max_bytes=size - 1))
    with pytest.raises(DecodeError, match="max_bytes"):
        decode_sound(path, limits=Limits(max_bytes=100_000))
    with pytest.raises(DecodeError, match="max_bytes"):
        read_clip(path, frame_rate=1e9)


def test_a_frames_size_is_bounded(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mp4")
    read_clip(path, limits=Limits(max_pixels=96 * 64))
    with pytest.raises(DecodeError, match=r"^expected frames of max_pixels = 6143 at most, got 96 × 64; .*raise"):
        read_clip(path, limits=Limits(max_pixels=96 * 64 - 1))
    assert len(decode_sound(path, limits=Limits(max_pixels=1))) == 32_000


def test_an_extraction_states_the_limit(tmp_path: Path) -> None:
    clips = [Clip(f"clip-{n}", make_marked(tmp_path / f"{n}.mp4", seconds=1.0 + n), "train") for n in range(2)]
    config = ExtractionConfig(workers=0, max_seconds=1.5, max_bad_share=1.0)
    encoders = FramePatchEncoder(FramePatchConfig()), LogMelEncoder(LogMelConfig())
    done = extract(clips, tmp_path / "store", *encoders, config)
    assert done.clips == 1
    assert "max_seconds = 1.5" in done.skipped[0].reason


@pytest.mark.parametrize("name", ["max_seconds", "max_bytes", "max_pixels"])
def test_bad_limits(name: str) -> None:
    for bad in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"expected {name} to be above 0"):
            Limits(**{name: bad})
        with pytest.raises(ValueError, match=f"expected {name} to be above 0"):
            ExtractionConfig(**{name: bad})


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1.0},
        {"start": math.nan},
        {"start": math.inf},
        {"duration": 0.0},
        {"duration": math.nan},
        {"frame_rate": 0.0},
        {"frame_rate": math.inf},
        {"sample_rate": 0},
    ],
)
def test_bad_times_and_rates(tmp_path: Path, options: dict[str, float]) -> None:
    path = make_marked(tmp_path / "clip.mp4", seconds=0.2)
    with pytest.raises(DecodeError, match=f"^expected {next(iter(options))} to be"):
        read_clip(path, **options)  # type: ignore[arg-type]
