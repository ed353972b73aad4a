"""Files decoded in blocks give what they give whole, in bounded memory."""

from pathlib import Path

import numpy as np
import pytest
from marked_media import make_marked

from scav_model.data.decode import (
    DecodeError,
    Limits,
    decode_frames,
    decode_sound,
    recording_seconds,
    stream_frames,
    stream_sound,
)
from scav_model.data.pictures import WholeFrame

FORMATS = {
    "a.mp4": {},
    "a.mkv": {"audio": "libopus", "sample_rate": 48_000},
    "a.avi": {"video": "mpeg4", "audio": "mp3", "b_frames": 0},
    "a.ts": {},
}


@pytest.fixture(scope="module", params=FORMATS)
def media(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    return make_marked(tmp_path_factory.mktemp("media") / name, seconds=3.3, **FORMATS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_frames(media: Path, block: int) -> None:
    blocks = list(stream_frames(media, block, frame_rate=7.0, picture=WholeFrame()))
    assert {len(frames) for frames in blocks[:-1]} <= {block}
    assert 0 < len(blocks[-1]) <= block
    np.testing.assert_array_equal(
        np.concatenate(blocks), decode_frames(media, frame_rate=7.0, picture=WholeFrame()), strict=True
    )


@pytest.mark.parametrize("block", [1000, 16_000, 10**6])
def test_sound(media: Path, block: int) -> None:
    blocks = list(stream_sound(media, block))
    assert {len(sound) for sound in blocks[:-1]} <= {block}
    assert 0 < len(blocks[-1]) <= block
    np.testing.assert_array_equal(np.concatenate(blocks), decode_sound(media), strict=True)


def test_what_is_held_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "a.mp4", seconds=12.0)
    limits = Limits(max_bytes=1 << 19)
    with pytest.raises(DecodeError, match="max_bytes"):
        decode_sound(path, limits=limits)
    assert sum(len(sound) for sound in stream_sound(path, 16_000, limits=limits)) == 192_000
    with pytest.raises(DecodeError, match="max_bytes"):
        decode_frames(path, frame_rate=25.0, picture=WholeFrame(), limits=limits)
    frames = stream_frames(path, 20, frame_rate=25.0, picture=WholeFrame(), limits=limits)
    assert sum(map(len, frames)) == 300


def test_errors_are_those_of_the_whole_file(tmp_path: Path) -> None:
    silent = make_marked(tmp_path / "silent.mp4", audio=None)
    with pytest.raises(DecodeError, match="no audio stream"):
        next(stream_sound(silent, 1000))
    with pytest.raises(DecodeError, match="no audio stream"):
        recording_seconds(silent, "audio")
    assert recording_seconds(silent, "video") == pytest.approx(2.0, abs=0.1)
    long = make_marked(tmp_path / "long.mp4", seconds=6.0, options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    with pytest.raises(DecodeError):
        list(stream_sound(cut, 16_000))
    with pytest.raises(DecodeError, match="max_seconds"):
        list(stream_sound(long, 16_000, limits=Limits(max_seconds=3.0)))
