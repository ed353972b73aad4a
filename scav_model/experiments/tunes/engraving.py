"""Engraved tunes: a strip of the score, and when and where each note is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scav_model.experiments.tunes.corpus import package_folder
from scav_model.extras import needed_by
from scav_model.progress import Progress
from scav_model.storage.files import replacing, write_text

PROGRAM = Path(__file__).with_name("verovio_process.py")
HEIGHT = 128  # px of a strip, the staff in its middle
WIDTH = 64  # px of a window of the score: about 1.2 notes to either side
SECONDS = 600.0  # after which an engraving is given up; they take less than one
FAILED = ".failed"


@dataclass(frozen=True)
class Score:
    """The K notes of a tune, in order of their onsets."""

    onsets: NDArray[np.float64]  # (K,) quarter notes
    ends: NDArray[np.float64]  # (K,) quarter notes
    pitches: NDArray[np.int64]  # (K,) MIDI
    places: NDArray[np.float64]  # (K,) px, the middle of the note's head on the strip
    bars: NDArray[np.int64]  # (K,)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return what the class has of a file that `Engraving.save` wrote."""
        with np.load(path) as found:
            return cls(**{entry.name: found[entry.name] for entry in fields(cls)})


@dataclass(frozen=True)
class Engraving(Score):
    """A tune on one long staff."""

    strip: NDArray[np.uint8]  # (HEIGHT, width), gray

    def save(self, path: Path) -> None:
        with replacing(path) as file:
            np.savez_compressed(file, **vars(self))


class EngravingError(RuntimeError):
    """A tune that cannot be engraved."""


def engrave(abc: str) -> Engraving:
    """Return the engraving of a tune.

    Raises:
        EngravingError: Verovio crashed, took too long, or cannot read the tune.
    """
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "score.png"
        try:
            ran = subprocess.run(
                [sys.executable, str(PROGRAM), str(picture)],
                input=abc,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                # Ctrl-C of this process is no failure of the tune.
                process_group=0,
            )
        except subprocess.TimeoutExpired as error:
            raise EngravingError(f"Verovio took more than {SECONDS:g} s") from error
        if -ran.returncode in (signal.SIGKILL, signal.SIGTERM):
            raise RuntimeError(
                "something killed the process that engraves; is the memory used up? Repeat with --resume"
            )
        if ran.returncode:
            told = " ".join(ran.stderr.split()[-20:]) or f"Verovio ended with code {ran.returncode}"
            raise EngravingError(told)
        return from_score(json.loads(ran.stdout), read_gray(picture))


def from_score(score: Mapping[str, Any], picture: NDArray[np.uint8]) -> Engraving:
    """Return the engraving from what the program printed and drew."""
    if not score["notes"]:
        raise EngravingError("the tune has no notes")
    onsets, ends, pitches, places, bars = (np.array(column) for column in zip(*score["notes"], strict=True))
    places = places / score["scale"]
    middle = round(score["staff"] / score["scale"])
    strip = np.full((HEIGHT, picture.shape[1]), 255, dtype=np.uint8)
    top = middle - HEIGHT // 2
    shown = picture[max(0, top) : top + HEIGHT]
    strip[max(0, -top) : max(0, -top) + len(shown)] = shown
    # Clef, key and meter stand at the start of a tune alone: they would tell its first clip.
    strip[:, : max(0, int(places[0]) - WIDTH // 8)] = 255
    return Engraving(onsets.astype(np.float64), ends.astype(np.float64), pitches, places, bars, strip)


def read_gray(path: Path) -> NDArray[np.uint8]:
    """Return a picture (H, W) in gray."""
    with needed_by("scav demo tunes", "PIL"):
        from PIL import Image
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=np.uint8)


def engrave_all(abcs: Mapping[str, str], folder: Path, workers: int, description: str) -> dict[str, Score]:
    """Return the scores by name, in the order of `abcs`, less those of tunes that cannot be engraved.

    The engravings are kept in `folder`; those that are there are not made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in abcs if not any((folder / f"{name}{end}").exists() for end in (".npz", FAILED))]
    for package in ("verovio", "resvg_py"):
        package_folder(package)

    def make(name: str) -> None:
        try:
            engrave(abcs[name]).save(folder / f"{name}.npz")
        except EngravingError as error:
            write_text(folder / f"{name}{FAILED}", f"{error}\n")

    if missing:
        with ThreadPoolExecutor(max(1, workers)) as threads:
            try:
                for _ in Progress(threads.map(make, missing), total=len(missing), desc=description, unit="tune"):
                    pass
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
    return {name: Score.load(folder / f"{name}.npz") for name in abcs if (folder / f"{name}.npz").exists()}
