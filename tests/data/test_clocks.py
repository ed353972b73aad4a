"""Times count from the container's start, and the decoded streams, not the header, say where a clip ends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from marked_media import TONES, loud_spans, make_marked, numbers

from scav_model.data.decode import DecodeError, Media, decode_sound, media_seconds, read_clip

WRAP = 2**33 / 90_000  # seconds after which MPEG's clock begins anew


def check_clock(media: Media, late: float = 0.0) -> None:
    assert numbers(media.frames)[-1] >= 48
    assert len(media.audio) / 16_000 == pytest.approx(len(media.frames) / 25, abs=0.041)
    for span, tone in zip(loud_spans(media.audio), TONES, strict=True):
        assert span == pytest.approx([time + late for time in tone], abs=0.012)
        # The picture that is shown as a tone begins is the one that was made for it.
        assert numbers(media.frames)[round(span[0] * 25)] == pytest.approx(25 * tone[0], abs=1.1)


@pytest.mark.parametrize("offset", [0.0, 1.46, 3600.0, WRAP - 1.3, WRAP - 0.5])
@pytest.mark.parametrize("name", ["clip.ts", "clip.mpg"])
def test_a_clock_may_begin_at_any_time(tmp_path: Path, name: str, offset: float) -> None:
    options = {"video": "mpeg2video", "audio": "mp2", "sample_rate": 48_000} if name == "clip.mpg" else {}
    # MPEG-PS has a reference clock that its muxer does not let wrap.
    if name == "clip.mpg" and offset > 3600:
        pytest.skip("FFmpeg writes no such file")
    path = make_marked(tmp_path / name, options={"output_ts_offset": str(offset)}, **options)
    media = read_clip(path)
    assert 50 <= len(media.frames) <= 52
    check_clock(media, late=len(media.audio) / 16_000 - 2.0 if name == "clip.ts" else 0.0)
    part = read_clip(path, start=1.0, duration=0.8)
    count = len(part.frames)
    assert count == 20
    assert np.array_equal(part.frames, media.frames[25:45])


@pytest.mark.parametrize("offset", [-1.3, 0.7, 100.0])
def test_a_mp4_or_mkv_may_begin_late(tmp_path: Path, offset: float) -> None:
    for name in ("clip.mp4", "clip.mkv"):
        # Without an edit list, which would make the late start a part of the film.
        path = make_marked(tmp_path / name, options={"output_ts_offset": str(offset), "use_editlist": "0"})
        with av.open(str(path)) as container:
            begins = container.start_time
        media = read_clip(path)
        check_clock(media, late=len(media.audio) / 16_000 - 2.0)
        assert begins is not None


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.ts", "clip.avi", "clip.flv", "clip.asf"])
@pytest.mark.parametrize("audio_seconds", [1.28, 3.0])
def test_the_shorter_stream_ends_the_clip(tmp_path: Path, name: str, audio_seconds: float) -> None:
    codecs: dict[str, dict[str, Any]] = {
        "clip.webm": {"video": "libvpx", "audio": "libopus", "b_frames": None, "sample_rate": 48_000},
        "clip.avi": {"audio": "libmp3lame"},
        "clip.flv": {"sample_rate": 44_100},
        "clip.asf": {"video": "wmv2", "audio": "wmav2", "b_frames": 0, "sample_rate": 44_100},
    }
    path = make_marked(tmp_path / name, audio_seconds=audio_seconds, **codecs.get(name, {}))
    media = read_clip(path)
    # A stream ends with a whole packet, 72 ms of mp3 in AVI, and begins with the encoder's priming in some containers.
    seconds = min(2.0, audio_seconds)
    assert seconds - 0.01 <= len(media.audio) / 16_000 <= seconds + 0.15
    assert len(media.frames) / 25 == pytest.approx(len(media.audio) / 16_000, abs=0.041)
    assert media_seconds(path) == pytest.approx(len(media.audio) / 16_000, abs=0.05)


@pytest.mark.parametrize("name", ["clip.mkv", "clip.webm", "clip.mp4"])
def test_a_file_without_a_length_is_decoded_to_its_end(tmp_path: Path, name: str) -> None:
    codecs: dict[str, Any] = {}
    if name == "clip.webm":
        codecs = {"video": "libvpx", "audio": "libopus", "b_frames": None, "sample_rate": 48_000}
    options = {"movflags": "frag_keyframe+delay_moov"} if name == "clip.mp4" else {"live": "1"}
    path = make_marked(tmp_path / name, gop=10, options=options, **codecs)
    media = read_clip(path)
    assert numbers(media.frames) == list(range(50))
    assert media_seconds(path) == pytest.approx(2.0, abs=0.1)
    part = read_clip(path, start=1.0)
    assert numbers(part.frames) == list(range(25, 50))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("plain.aac", {"audio": "aac", "container": "adts"}),
        ("no_xing.mp3", {"audio": "libmp3lame", "options": {"write_xing": "0"}}),
        ("xing.mp3", {"audio": "libmp3lame"}),
        ("plain.wav", {"audio": "pcm_s16le"}),
    ],
)
def test_sound_alone_is_whole(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = make_marked(tmp_path / name, video=None, seconds=12.0, **options)
    audio = decode_sound(path)
    assert 12.0 <= len(audio) / 16_000 < 12.12
    for span, tone in zip(loud_spans(audio), TONES, strict=True):
        # mp3 and AAC files without a header have the encoder's priming before the first sample.
        assert 0 <= span[0] - tone[0] + 0.012 < 0.1


def test_a_truncated_matroska_file_is_known_by_its_tracks_lengths(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.mkv", seconds=4.0, gop=10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DecodeError, match=r"truncated: (video|audio) ends at"):
        read_clip(path)


def test_a_recording_that_was_cut_off_is_decoded_to_its_end(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "clip.ts", seconds=4.0, gop=10)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    media = read_clip(path)
    assert 1.5 < len(media.audio) / 16_000 < 2.5


def test_read_clip_is_imported_without_pyav_being_loaded() -> None:
    code = "import sys, scav_model; assert 'av' not in sys.modules; from scav_model import read_clip; print(read_clip)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "read_clip" in done.stdout
