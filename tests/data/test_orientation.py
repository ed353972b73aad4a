"""Frames stand upright and have square pixels, in every front end."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from marked_media import make_marked
from numpy.typing import NDArray

from scav_model.data.decode import DecodeError, Limits, decode, read_clip
from scav_model.data.pictures import Square

ONE = 1 << 16


def matrix(a: int, b: int, c: int, d: int) -> list[int]:
    return [a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]


def turned_copy(path: Path, wanted: list[int]) -> Path:
    """Write a copy of an mp4 file whose first track's header has another display matrix."""
    content = path.read_bytes()
    track = content.index(b"tkhd")
    place = content.index(struct.pack(">9i", *matrix(1, 0, 0, 1)), track)
    copy = path.with_name("turned.mp4")
    copy.write_bytes(content[:place] + struct.pack(">9i", *wanted) + content[place + 36 :])
    return copy


# Display matrices (a b, c d), and where the red box of the top left corner, and the white block that frame 1 has at the
# left of its middle, come to lie: (rows, columns) of a frame as (height, width, 3).
TURNS = {
    "none": ((1, 0, 0, 1), lambda pixels: pixels),
    "clockwise": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels)),
    "half": ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    "left and right swapped": ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
    "transposed": ((0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_display_matrix_turns_and_flips(tmp_path: Path, name: str) -> None:
    numbers, turn = TURNS[name]
    path = make_marked(tmp_path / "plain.mp4")
    plain = read_clip(path).frames
    turned = read_clip(turned_copy(path, matrix(*numbers))).frames
    expected = np.stack([turn(frame) for frame in plain])
    assert turned.shape == expected.shape
    assert np.array_equal(turned, expected)


def test_the_transform_is_that_of_the_specification(tmp_path: Path) -> None:
    """ISO 14496-12: the point (p, q), q downwards, is shown at (a p + c q, b p + d q)."""
    path = make_marked(tmp_path / "plain.mp4")
    plain = read_clip(path).frames[1]
    height, width = plain.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    for name, ((a, b, c, d), _) in TURNS.items():
        x, y = a * columns + c * rows, b * columns + d * rows
        x, y = x - x.min(), y - y.min()
        expected = np.zeros((int(y.max()) + 1, int(x.max()) + 1, 3), dtype=np.uint8)
        expected[y, x] = plain
        turned = read_clip(turned_copy(path, matrix(a, b, c, d))).frames[1]
        assert np.array_equal(turned, expected), name


def test_an_odd_angle_keeps_the_frames_size(tmp_path: Path) -> None:
    cosine, sine = round(ONE * np.cos(np.pi / 6)), round(ONE * np.sin(np.pi / 6))
    path = make_marked(tmp_path / "turned.mp4", matrix=[cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30])
    frame = read_clip(path).frames[0]
    assert frame.shape == (64, 96, 3)
    assert frame[0, 0].max() < 20
    # The box at the top left, 48 pixels left of the middle and 32 above it, moves up and to the right of its old place.
    x, y = -40, -24
    right = round(48 + x * np.cos(np.pi / 6) - y * np.sin(np.pi / 6))
    down = round(32 + x * np.sin(np.pi / 6) + y * np.cos(np.pi / 6))
    assert down < 0 or frame[down, right, 0] > 150


@pytest.mark.parametrize(
    ("aspect", "numbers", "size"),
    [
        (Fraction(4, 3), None, (64, 128)),
        (Fraction(1, 2), None, (64, 48)),
        (Fraction(4, 3), (0, -1, 1, 0), (128, 64)),
        (Fraction(1), None, (64, 96)),
    ],
)
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_pixels_become_square(
    tmp_path: Path, name: str, aspect: Fraction, numbers: tuple[int, int, int, int] | None, size: tuple[int, int]
) -> None:
    path = make_marked(tmp_path / name, aspect=aspect, matrix=None if numbers is None else matrix(*numbers))
    frame = read_clip(path).frames[0]
    assert frame.shape == (*size, 3)
    corner = frame[-8:, :8] if numbers else frame[:8, : round(8 * aspect)]
    red, green, _ = corner.mean((0, 1))
    assert red > green + 100


def through_pillow(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_image())


@pytest.mark.parametrize("picture", [Square(32), through_pillow])
def test_every_front_end_is_given_upright_frames(tmp_path: Path, picture: Any) -> None:
    path = make_marked(tmp_path / "turned.mp4", matrix=matrix(0, -1, 1, 0))
    frame = decode(path, frame_rate=5, picture=picture).frames[0]
    height, width = frame.shape[:2]
    red, green, _ = frame[-height // 10 :, : width // 8].mean((0, 1))
    assert red > green + 100


def test_a_stretched_frame_is_bounded_too(tmp_path: Path) -> None:
    path = make_marked(tmp_path / "wide.mkv", aspect=Fraction(8, 1))
    with pytest.raises(DecodeError, match=r"max_pixels = 20000 at most, got 768 × 64"):
        read_clip(path, limits=Limits(max_pixels=20_000))
