"""A clip from amid a file equals the same stretch of the whole file, whatever the container and the key frames."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from marked_media import FRAME_RATE, loud_spans, make_marked, numbered, numbers

from scav_model.data.decode import DecodeError, Limits, decode_frames, decode_sound, read_clip
from scav_model.data.orientation import Upright
from scav_model.data.pictures import WholeFrame
from scav_model.data.stream_reader import LateError, StreamReader
from scav_model.data.timeline import Budget, FrameCollector

OPEN_GOPS = {"x264-params": "open-gop=1:bframes=3:scenecut=0:log=none"}
REFRESH = {"x264-params": "intra-refresh=1:bframes=0:log=none"}
WAYS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264.mkv": {},
    "h264.ts": {},
    "h264.flv": {"sample_rate": 44_100},
    "h264.avi": {"audio": "libmp3lame"},
    "mpeg4.avi": {"video": "mpeg4", "audio": "libmp3lame"},
    "mpeg4_without_b.avi": {"video": "mpeg4", "audio": "libmp3lame", "b_frames": 0},
    "mpeg2.mpg": {"video": "mpeg2video", "audio": "mp2", "container": "vob", "sample_rate": 48_000},
    "mpeg1.mpg": {"video": "mpeg1video", "audio": "mp2", "container": "mpeg", "sample_rate": 48_000},
    "mpeg2.ts": {"video": "mpeg2video", "audio": "mp2", "sample_rate": 48_000},
    "vp8.webm": {"video": "libvpx", "audio": "libopus", "b_frames": None, "sample_rate": 48_000},
    "wmv2.asf": {"video": "wmv2", "audio": "wmav2", "b_frames": 0, "sample_rate": 44_100},
    "open_gops.ts": {"codec_options": OPEN_GOPS},
    "open_gops.mkv": {"codec_options": OPEN_GOPS},
    "refresh.ts": {"codec_options": REFRESH},
}
# One of each kind of container and codec that seeks in a way of its own; `make check` takes all.
FEW = ("h264.ts", "vp8.webm", "open_gops.mkv")


@pytest.mark.parametrize("gop", [pytest.param(12, marks=pytest.mark.slow), 75])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in FEW else [pytest.mark.slow]) for name in WAYS])
def test_a_part_equals_the_same_stretch_of_the_whole(tmp_path: Path, name: str, gop: int) -> None:
    path = make_marked(tmp_path / name, seconds=4.0, gop=gop, **WAYS[name])
    whole = read_clip(path)
    first = numbers(whole.frames)
    # Sound begins before the pictures in some containers, and may so end a frame before them.
    assert first == sorted(first)
    assert set(first) >= set(range(99))
    for start in (0.04, 0.52, 0.88, 1.28, 2.0, 2.32, 2.8, 3.6):
        media = read_clip(path, start=start, duration=1.0)
        begin = round(start * FRAME_RATE)
        expected = whole.frames[begin : begin + FRAME_RATE]
        assert abs(len(media.frames) - len(expected)) <= 1
        count = min(len(media.frames), len(expected))
        assert numbers(media.frames[:count]) == numbers(expected[:count]), start
        assert np.array_equal(media.frames[:count], expected[:count]), start
        heard = whole.audio[round(start * 16_000) :][: len(media.audio)]
        assert np.abs(np.array(loud_spans(heard)) - np.array(loud_spans(media.audio))).max(initial=0) < 0.011


def test_pictures_and_sound_alone_are_those_of_both(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.ts", seconds=4.0, gop=75)
    both = read_clip(path, start=2.8, duration=1.0)
    frames = decode_frames(path, frame_rate=25, picture=WholeFrame(), start=2.8, duration=1.0)
    assert np.array_equal(frames, both.frames)
    assert np.array_equal(decode_sound(path, start=2.8, duration=1.0), both.audio)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "mpeg2.mpg", "h264.avi", "vp8.webm"])
def test_a_start_beyond_the_end_says_where_that_is(tmp_path: Path, name: str) -> None:
    path = make_marked(tmp_path / name, **WAYS[name])
    with pytest.raises(DecodeError, match=r"^starts at 5 s, but the file ends at 2\.\d\d s$"):
        read_clip(path, start=5)


def test_starting_at_a_sound_that_ends_early(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mkv", seconds=4.0, audio_seconds=2.0)
    with pytest.raises(DecodeError, match=r"starts at 3 s, but the file ends at 2\.\d\d s"):
        read_clip(path, start=3)


def test_a_file_that_begins_between_key_frames(tmp_path: Path) -> None:
    content = make_marked(tmp_path / "whole.ts", seconds=4.0, gop=50).read_bytes()
    tables = content[: 3 * 188]
    part = tmp_path / "segment.ts"
    part.write_bytes(tables + content[len(content) // 188 // 4 * 188 :])
    media = read_clip(part)
    assert numbers(media.frames)[-1] >= 98
    assert len(media.frames) / 25 == pytest.approx(len(media.audio) / 16_000, abs=0.04)


def test_pictures_before_the_first_key_frame_are_dropped() -> None:
    """After a seek, a decoder may put out pictures that are stored after the key frame and shown before it."""

    def frame(number: int) -> av.VideoFrame:
        shown = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
        shown.pts, shown.time_base = number, Fraction(1, FRAME_RATE)
        return shown

    def packet(number: int, key: bool, *decoded: int) -> Any:
        frames = [frame(number) for number in decoded]
        return SimpleNamespace(pts=number, dts=number, is_keyframe=key, decode=lambda: frames)

    stream: Any = SimpleNamespace(
        type="video",
        start_time=0,
        time_base=Fraction(1, FRAME_RATE),
        guessed_rate=Fraction(FRAME_RATE),
        codec_context=SimpleNamespace(has_b_frames=True),
    )
    container: Any = SimpleNamespace(start_time=0, streams=[stream], format=SimpleNamespace(name="mpegts"))
    limits = Limits()
    collector = FrameCollector(0.4, 0.8, FRAME_RATE, WholeFrame(), Upright(None, limits), Budget(limits))
    reader = StreamReader(container, stream, collector, 0.4, sought=True)
    reader.read(packet(7, False, 7))
    reader.read(packet(10, True))
    reader.read(packet(8, False, 8, 9))
    reader.read(packet(9, False, *range(10, 20)))
    reader.finish()
    assert numbers(collector.take(0.8)) == list(range(10, 20))
    other = FrameCollector(0.36, 0.8, FRAME_RATE, WholeFrame(), Upright(None, limits), Budget(limits))
    late = StreamReader(container, stream, other, 0.36, sought=True)
    late.read(packet(10, True))
    late.read(packet(8, False, 8, 9))
    with pytest.raises(LateError):
        late.read(packet(9, False, 10))
