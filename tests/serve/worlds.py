"""A small index of media files of several formats, its model, and servers of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from scav_model.cli import main
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip, write_manifest
from scav_model.encoders import audio_encoder, visual_encoder
from scav_model.index import SearchIndex
from scav_model.serve.engine import Engine
from scav_model.serve.run import load_encoding
from scav_model.serve.uploads import UploadLimits
from tests.index.test_cli_search import make_checkpoint, make_media

SPLIT = "test"


@dataclass(frozen=True)
class World:
    """Files and the index of them."""

    folder: Path
    index: Path

    def open(self) -> SearchIndex:
        return SearchIndex.open(self.index)

    def engine(self, **limits) -> Engine:
        opened = self.open()
        encoding, problem = load_encoding(opened, None, {"video": None, "audio": None}, "cpu")
        assert not problem
        return Engine(opened, encoding, problem, UploadLimits(**limits))


def make_world(folder: Path, seconds: float = 1.0) -> World:
    """Return an index of five clips: two mp4, a Matroska, an AVI and one whose file is gone afterwards."""
    clips = []
    for number, (name, pitch) in enumerate(
        (("bell.mp4", 200), ("drum.mp4", 500), ("wood.mkv", 1200), ("horn.avi", 2400), ("gone.mp4", 3000))
    ):
        path = folder / name
        (make_avi if path.suffix == ".avi" else make_media)(path, pitch, seconds)
        clips.append(Clip(path.stem, path, SPLIT, label=f"kind {number % 2}"))
    write_manifest(folder / "manifest.jsonl", clips)
    visual, audio = visual_encoder("patches"), audio_encoder("log_mel")
    extract(clips, folder / "store", visual, audio, ExtractionConfig(workers=0))
    make_checkpoint(folder / "checkpoint.pt", visual.dim, audio.dim)
    arguments = ["--checkpoint", str(folder / "checkpoint.pt"), "--features", str(folder / "store")]
    assert main(["index", "build", str(folder / "clips.index"), *arguments]) == 0
    (folder / "gone.mp4").unlink()
    return World(folder, folder / "clips.index")


def make_avi(path: Path, pitch: int, seconds: float = 1.0) -> None:
    """Write a file with MPEG-4 pictures and uncompressed sound, which browsers do not play."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=25)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number in range(round(25 * seconds)):
            picture = np.full((48, 64, 3), (7 * number) % 256, dtype=np.uint8)
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(pictures.encode(None))
        container.mux(sound.encode(tone(pitch, seconds)))
        container.mux(sound.encode(None))


def make_sound(path: Path, pitch: int, seconds: float = 1.0) -> None:
    with av.open(str(path), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        container.mux(sound.encode(tone(pitch, seconds)))
        container.mux(sound.encode(None))


def tone(pitch: int, seconds: float) -> av.AudioFrame:
    samples = 0.5 * np.sin(2 * math.pi * pitch * np.arange(round(16_000 * seconds)) / 16_000)
    frame = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
    return frame
