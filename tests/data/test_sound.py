"""The choice of a sound track, and its mixing to mono."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from marked_media import PEAK, loud_spans, make_marked, numbered, tone
from numpy.typing import NDArray

from scav_model.data.decode import DecodeError, decode_sound, read_clip


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "quad", "5.0", "5.1", "6.1"])
@pytest.mark.parametrize("sample_rate", [16_000, 48_000])
def test_mono_is_the_mean_of_the_channels(tmp_path: Path, layout: str, sample_rate: int) -> None:
    for name, codec in (("a.wav", "pcm_s16le"), ("a.flac", "flac")):
        path = make_marked(tmp_path / name, video=None, audio=codec, layout=layout, sample_rate=sample_rate)
        audio = decode_sound(path)
        assert audio.shape == (32_000,)
        assert audio.dtype == np.float32
        assert np.abs(audio).max() == pytest.approx(PEAK, rel=0.05)
        if sample_rate == 16_000:
            assert np.abs(audio - tone(2.0, 16_000)).max() < 1e-3


def write_wav(path: Path, channels: NDArray[np.int16], layout: str) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels.T).reshape(1, -1), "s16", layout)
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


@pytest.mark.parametrize(("layout", "count"), [("stereo", 2), ("5.1", 6), ("7.1", 8)])
def test_every_channel_weighs_the_same(tmp_path: Path, layout: str, count: int) -> None:
    channels = np.zeros((count, 8_000), dtype=np.int16)
    for number in range(count):
        channels[number, number * 1_000 : (number + 1) * 1_000] = 16_384
    write_wav(tmp_path / "a.wav", channels, layout)
    audio = decode_sound(tmp_path / "a.wav")
    for number in range(count):
        assert audio[number * 1_000 : (number + 1) * 1_000] == pytest.approx(0.5 / count, abs=1e-4)


def test_channels_without_a_layout(tmp_path: Path) -> None:
    """Three channels of which the header does not say where they belong."""
    path = tmp_path / "a.wav"
    write_wav(path, np.full((2, 6_000), 16_384, dtype=np.int16), "stereo")
    content = bytearray(path.read_bytes())
    content[22:24], content[32:34] = (3).to_bytes(2, "little"), (6).to_bytes(2, "little")
    content[28:32] = (16_000 * 6).to_bytes(4, "little")
    path.write_bytes(content)
    assert decode_sound(path) == pytest.approx(0.5, abs=1e-4)


def test_a_change_of_rate_and_layout_midway(tmp_path: Path) -> None:
    parts = [
        make_marked(tmp_path / "a.aac", video=None, container="adts", sample_rate=16_000, layout="mono"),
        make_marked(tmp_path / "b.aac", video=None, container="adts", sample_rate=16_000, layout="stereo"),
        make_marked(tmp_path / "c.aac", video=None, container="adts", sample_rate=44_100, layout="stereo"),
    ]
    path = tmp_path / "all.aac"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    audio = decode_sound(path)
    alone = [decode_sound(part) for part in parts]
    assert len(audio) == pytest.approx(sum(map(len, alone)), abs=50)
    assert np.abs(audio).max() == pytest.approx(PEAK, abs=0.06)
    begin = 0
    for sound in alone:
        heard = loud_spans(audio[begin : begin + len(sound)])
        assert np.abs(np.array(heard) - np.array(loud_spans(sound))).max() < 0.011
        begin += len(sound)


def test_sound_is_whole_where_time_stamps_are_rounded(tmp_path: Path) -> None:
    # Matroska rounds to milliseconds, and a frame of AAC at 44.1 kHz lasts 23.2.
    wanted = decode_sound(make_marked(tmp_path / "a.mp4", sample_rate=44_100))
    audio = decode_sound(make_marked(tmp_path / "a.mkv", sample_rate=44_100))
    assert np.abs(audio[:32_000] - wanted[:32_000]).max() < 1e-4


def make_tracks(path: Path, defaults: list[bool], cover: bool = False) -> None:
    """Write a silent film with a cover, then sound tracks of which number k has peak 0.2 (k + 1)."""
    with av.open(str(path), "w") as file:
        if cover:
            picture = file.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
            picture.disposition = Disposition.attached_pic
        film = file.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 96, 64, "yuv420p"
        sounds = [file.add_stream("aac", rate=16_000, layout="mono") for _ in defaults]
        for sound, default in zip(sounds, defaults, strict=True):
            sound.disposition = Disposition.default if default else Disposition(0)
        if cover:
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
            file.mux(picture.encode(frame.reformat(format="yuvj420p")))
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(film.encode(frame))
        file.mux(film.encode(None))
        for number, sound in enumerate(sounds):
            wave = tone(2.0, 16_000)[None] * np.float32(0.2 * (number + 1) / PEAK)
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate, block.pts = 16_000, 0
            file.mux(sound.encode(block))
            file.mux(sound.encode(None))


@pytest.mark.parametrize(
    ("defaults", "track"), [([False, True], 1), ([True, False], 0), ([False, False, True], 2), ([True, True], 0)]
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_default_track_is_taken(tmp_path: Path, name: str, defaults: list[bool], track: int) -> None:
    make_tracks(tmp_path / name, defaults)
    assert np.abs(read_clip(tmp_path / name).audio).max() == pytest.approx(0.2 * (track + 1), abs=0.03)


def test_cover_art_is_no_film(tmp_path: Path) -> None:
    make_tracks(tmp_path / "a.mp4", [True], cover=True)
    media = read_clip(tmp_path / "a.mp4")
    assert media.frames.shape == (50, 64, 96, 3)


def test_a_song_with_a_cover_has_no_film(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as file:
        sound = file.add_stream("libmp3lame", rate=16_000, layout="mono")
        picture = file.add_stream("mjpeg", rate=1)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuvj420p"
        picture.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), format="rgb24")
        file.mux(picture.encode(frame.reformat(format="yuvj420p")))
        block = av.AudioFrame.from_ndarray(tone(2.0, 16_000)[None], format="fltp", layout="mono")
        block.sample_rate, block.pts = 16_000, 0
        file.mux(sound.encode(block))
        file.mux(sound.encode(None))
    with pytest.raises(DecodeError, match="no video stream"):
        read_clip(path)
    assert len(decode_sound(path)) >= 31_000
