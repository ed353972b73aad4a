"""The files in cases/, each with one oddity, and what is right of it."""

from pathlib import Path

import numpy as np
import pytest
from marked_media import loud_spans, spans
from numpy.typing import NDArray

from scav_model.data.decode import DecodeError, Media, decode_sound, media_seconds, read_clip

CASES = Path(__file__).parent / "cases"
FLASHES = [(1.0, 1.2), (2.6, 2.8)]


def flashes(media: Media) -> list[tuple[float, float]]:
    return spans(media.frames[:, 24:40, 40:56].mean((1, 2, 3)) > 190, 25)


def check_spans(found: list[tuple[float, float]], expected: list[tuple[float, float]], tolerance: float) -> None:
    assert len(found) == len(expected)
    assert np.abs(np.array(found) - np.array(expected)).max() <= tolerance, found


# Seconds by which the first picture comes after the container's start, whose first packet is sound.
LATE = {"late_clock.ts": 0.064, "shorter_video.mkv": 0.064, "last_frame_untimed.asf": 0.032}


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("plain.mp4", 4.0),
        ("late_clock.ts", 4.064),
        ("shorter_video.mkv", 3.144),
        ("same_in_both_channels.mov", 4.0),
        ("second_track_is_default.mp4", 4.0),
        ("last_frame_untimed.asf", 4.032),
        ("latin1_title.mp4", 4.0),
    ],
)
def test_flashes_and_tones_come_at_their_times(name: str, seconds: float) -> None:
    media = read_clip(CASES / name)
    assert media.frames.shape[1:] == (64, 96, 3)
    assert len(media.audio) == pytest.approx(16_000 * seconds, abs=160)
    assert abs(len(media.frames) / 25 - seconds) < 0.04
    late = LATE.get(name, 0.0)
    shown = [(first + late, last + late) for first, last in FLASHES]
    check_spans(flashes(media), shown, 0.04 if late else 1e-6)
    check_spans(loud_spans(media.audio), shown, 0.012)
    assert np.abs(media.audio).max() == pytest.approx(0.8, abs=0.03)
    assert corner(media.frames[0], 0, 0) == "red"
    assert media_seconds(CASES / name) == pytest.approx(seconds, abs=0.01)


def corner(frame: NDArray[np.uint8], row: int, column: int) -> str:
    red, green, _ = frame[row * (frame.shape[0] - 8) :, column * (frame.shape[1] - 8) :][:8, :8].mean((0, 1))
    return "red" if red > green + 100 else "gray"


def test_a_part_of_a_late_clock_counts_from_the_containers_start() -> None:
    media = read_clip(CASES / "late_clock.ts", start=2.4, duration=1)
    assert media.frames.shape[0] == 25
    check_spans(flashes(media), [(0.264, 0.464)], 0.04)
    check_spans(loud_spans(media.audio), [(0.264, 0.464)], 0.012)


def test_a_display_matrix_turns_the_picture() -> None:
    frames = read_clip(CASES / "rotated90.mp4").frames
    assert frames.shape[1:] == (96, 64, 3)
    assert corner(frames[0], 1, 0) == "red"
    assert corner(frames[0], 0, 0) == "gray"


def test_a_guessed_length_loses_nothing() -> None:
    assert len(decode_sound(CASES / "guessed_length.aac")) == pytest.approx(12 * 16_000, rel=0.01)


def test_a_text_that_names_another_file_is_no_media_file() -> None:
    with pytest.raises(DecodeError, match="not a readable media file"):
        read_clip(CASES / "playlist_named.mp4")
