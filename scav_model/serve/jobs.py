"""Work on media files, done in worker processes: a file may be damaged, slow or hostile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from scav_model.data.decode import DEFAULT_LIMITS, DecodeError, Limits, decode_frames, decode_sound
from scav_model.data.frontends import LogMel, LogMelConfig
from scav_model.data.media_file import open_media
from scav_model.data.pictures import Square, WholeFrame
from scav_model.index.media import QueryReader
from scav_model.index.thumbnails import SIZE, jpeg

POSTER_WIDTH = 320  # px
TILES = 12  # pictures of an upload's film strip
MAX_SPECTRA = 1000  # columns of a spectrogram
# Seconds of a clip that are drawn.
PICTURED = Limits(max_seconds=3600.0, max_bytes=1 << 30)

Job = tuple[Callable[..., Any], tuple[Any, ...]]


def do(job: Job) -> Any:
    """Do a job: a function of a module, and its arguments."""
    function, arguments = job
    return function(*arguments)


@dataclass(frozen=True)
class Spectrogram:
    """Loudness of sound: bytes (bands, spectra), row by row from the lowest band, 255 the loudest."""

    seconds: float
    bands: int
    spectra: int
    values: bytes = field(repr=False)


@dataclass(frozen=True)
class Decoded:
    """A query as a worker read it.

    Attributes:
        prepared: what a front end encodes, by side.
        missing: why a side is not there.
        seconds: length of the file.
        film: JPEG of pictures side by side; None without pictures.
        sound: None without sound.
    """

    prepared: dict[str, Any]
    missing: dict[str, str]
    seconds: float
    film: bytes | None
    sound: Spectrogram | None = field(repr=False)


def read_query(path: Path, readers: Mapping[str, QueryReader], limits: Limits) -> Decoded:
    """Decode a media file of a user for the front ends of both sides.

    Raises:
        DecodeError: neither side can be read, or the file is longer than the limit.
    """
    seconds = media_length(path)
    if seconds is not None and seconds > limits.max_seconds + 0.5:
        raise DecodeError(f"expected at most {limits.max_seconds:g} seconds, got {seconds:.0f}; cut the file")
    # Half a second for packets that reach over the end.
    limits = replace(limits, max_seconds=limits.max_seconds + 0.5)
    prepared, missing = {}, {}
    for side, reader in readers.items():
        try:
            prepared[side] = reader(path, limits)
        except DecodeError as error:
            missing[side] = str(error)
    if not prepared:
        raise DecodeError("; ".join(dict.fromkeys(missing.values())))
    sound = None if "audio" in missing else spectrogram(path, 0.0, None, limits)
    if seconds is None:
        seconds = 0.0 if sound is None else sound.seconds
    pictured = None if "video" in missing or not seconds else film(path, 0.0, seconds, TILES)
    return Decoded(prepared, missing, seconds, pictured, sound)


def media_length(path: Path) -> float | None:
    """Return the seconds that a file's header claims; None where it claims nothing."""
    with open_media(path, kinds=()) as container:
        return None if container.duration is None else container.duration / av.time_base


def film(path: Path, start: float, seconds: float, tiles: int) -> bytes:
    """Return pictures evenly through a clip, side by side, as JPEG."""
    frames = decode_frames(
        path, frame_rate=tiles / seconds, picture=Square(SIZE), start=start, duration=seconds, limits=PICTURED
    )
    frames = np.concatenate((frames, np.repeat(frames[-1:], max(0, tiles - len(frames)), axis=0)))
    return jpeg(np.concatenate(list(frames[:tiles]), axis=1))


def poster(path: Path, start: float, seconds: float | None) -> bytes:
    """Return a picture from the middle of a clip, as JPEG."""
    if seconds is None:
        seconds = max(0.0, (media_length(path) or 0.0) - start)
    frames = decode_frames(path, frame_rate=10.0, picture=WholeFrame(), start=start + seconds / 2, duration=0.1)
    return jpeg(frames[0], width=min(POSTER_WIDTH, frames.shape[2]))


def spectrogram(
    path: Path, start: float = 0.0, seconds: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Spectrogram:
    """Return the log-mel spectrogram of a clip's sound, as loud as its loudest moment allows."""
    config = LogMelConfig()
    sound = decode_sound(path, sample_rate=config.sample_rate, start=start, duration=seconds, limits=limits)
    levels = LogMel(config)(sound).reshape(-1, config.mels).T  # (mels, spectra)
    if levels.shape[1] > MAX_SPECTRA:
        levels = torch.nn.functional.adaptive_avg_pool1d(levels[None], MAX_SPECTRA)[0]
    values = as_bytes(levels.numpy())
    return Spectrogram(len(sound) / config.sample_rate, config.mels, values.shape[1], values.tobytes())


def as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return numbers scaled so that the smallest is 0 and the largest 255."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
    return np.asarray(np.round(scaled), dtype=np.uint8)
