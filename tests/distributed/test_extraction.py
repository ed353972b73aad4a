"""Extraction by Ray Data: the store of one process, whatever happens on the way."""

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from scav_model.data import FeatureStore
from scav_model.data.extract import ExtractionConfig, ExtractionError, extract
from scav_model.data.frontends import FramePatchConfig, LogMelConfig
from scav_model.data.manifest import Clip, write_manifest
from scav_model.distributed import ClusterError, OverRay
from scav_model.encoders import EncoderOptions, both_encoders
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
from tests.data.conftest import make_media  # noqa: F401
from tests.encoders.checkpoints import beats_file, clip_folder

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray")
Maker = Callable[..., Path]
FRAMES = FramePatchConfig(frame_size=16)
VISUAL, AUDIO = FramePatchEncoder(FRAMES), LogMelEncoder(LogMelConfig(mels=32))
# Workers cannot import tests.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
CONFIG = ExtractionConfig(workers=0, frame_rate=12.5, batch_clips=2, max_bad_share=0.6)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_store_is_that_of_one_process(make_media: Maker, tmp_path: Path, cluster: str) -> None:  # noqa: F811
    files = [make_media(f"{number}.mp4", seconds=1 + 0.2 * number) for number in range(3)]
    files[1:1] = [make_media("mute.mp4", seconds=1, audio=False), tmp_path / "lost.mp4"]
    clips = [Clip(file.stem, file, "test", label="label") for file in files]
    alone = extract(clips, tmp_path / "alone", VISUAL, AUDIO, CONFIG)
    spread = extract(clips, tmp_path / "spread", VISUAL, AUDIO, CONFIG, OverRay(2))
    assert (spread.clips, spread.media_seconds, spread.skipped) == (3, alone.media_seconds, alone.skipped)
    assert [(clip.id, clip.reason) for clip in spread.skipped] == [
        ("mute", "no audio stream"),
        ("lost", "no such file"),
    ]
    assert contents(tmp_path / "spread") == contents(tmp_path / "alone")
    again = extract(clips, tmp_path / "spread", VISUAL, AUDIO, CONFIG, OverRay(2))
    assert (again.clips, again.skipped) == (0, [])


def test_encoders_with_weights_are_made_where_they_work(make_media: Maker, tmp_path: Path, cluster: str) -> None:  # noqa: F811
    specs = f"clip:{clip_folder(tmp_path / 'clip')}", f"beats:{beats_file(tmp_path / 'beats.pt')}"
    make = functools.partial(both_encoders, *specs, EncoderOptions())
    clips = [Clip(f"{number}", make_media(f"{number}.mp4", seconds=1.5), "test") for number in range(2)]
    extract(clips, tmp_path / "alone", *make(), ExtractionConfig(workers=0))
    extract(clips, tmp_path / "spread", *make(), ExtractionConfig(workers=0), OverRay(1, encoders=make))
    alone, spread = (FeatureStore.open(tmp_path / name) for name in ("alone", "spread"))
    assert alone.ids == spread.ids
    for number in range(2):
        for found, expected in zip(spread.clip(number), alone.clip(number), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


PROGRAM = """
import sys
import ray
from scav_model.distributed import OverRay
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.frontends import FramePatchConfig, LogMelConfig
from scav_model.data.manifest import read_manifest
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
if __name__ == "__main__":
    ray.init(address=sys.argv[3], log_to_driver=False)
    config = ExtractionConfig(shard_bytes=30_000, batch_clips=2, frame_rate=12.5)
    visual, audio = FramePatchEncoder(FramePatchConfig(frame_size=16)), LogMelEncoder(LogMelConfig(mels=32))
    extract(read_manifest(sys.argv[1]), sys.argv[2], visual, audio, config, OverRay(1))
"""


def test_killed_and_begun_again_it_ends_in_the_same_store(make_media: Maker, tmp_path: Path, cluster: str) -> None:  # noqa: F811
    path = make_media(seconds=2.0)
    clips = [Clip(f"clip-{number}", path, "train", start=0.01 * number) for number in range(40)]
    manifest, program = tmp_path / "manifest.jsonl", tmp_path / "program.py"
    write_manifest(manifest, clips)
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(manifest), str(tmp_path / "store"), cluster]
    running = subprocess.Popen(command, stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while not (tmp_path / "store" / "shard-00001.safetensors").exists():
        assert time.monotonic() < end
        assert running.poll() is None, running.communicate()
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    stopped = FeatureStore.open(tmp_path / "store")
    assert 0 < len(stopped) < 40
    assert stopped.ids == [clip.id for clip in clips[: len(stopped)]]
    config = ExtractionConfig(workers=0, shard_bytes=30_000, frame_rate=12.5)
    again = extract(clips, tmp_path / "store", VISUAL, AUDIO, config, OverRay(2))
    assert again.clips == 40 - len(stopped)
    extract(clips, tmp_path / "whole", VISUAL, AUDIO, config)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


class Faulty(FramePatchEncoder):
    """Crashes or hangs who decodes, as a decoder would."""

    @property
    def prepare(self) -> Callable[..., np.ndarray]:
        prepare = super().prepare

        def crash_or_hang(frames: np.ndarray) -> np.ndarray:
            if len(frames) == 20:
                os.kill(os.getpid(), signal.SIGSEGV)
            if len(frames) == 30:
                time.sleep(300)
            return prepare(frames)

        return crash_or_hang


def test_a_clip_that_hangs_or_crashes_its_decoder_is_skipped(
    make_media: Maker,  # noqa: F811
    tmp_path: Path,
    cluster: str,
) -> None:
    lengths = {"a": 1.0, "crash": 2.0, "b": 1.0, "hang": 3.0, "c": 1.0}
    clips = [Clip(name, make_media(f"{name}.mp4", seconds=seconds), "test") for name, seconds in lengths.items()]
    config = ExtractionConfig(frame_rate=10, batch_clips=2, max_bad_share=0.5)
    done = extract(clips, tmp_path / "store", Faulty(FRAMES), AUDIO, config, OverRay(1, clip_timeout=5))
    assert {clip.id: clip.reason for clip in done.skipped} == {
        "crash": "crashed the decoder (SIGSEGV)",
        "hang": "took longer than clip_timeout to decode",
    }
    assert FeatureStore.open(tmp_path / "store").ids == ["a", "b", "c"]


class Crashing(FramePatchEncoder):
    """Takes its worker down with it."""

    def encode(self, clips: object) -> list[torch.Tensor]:
        os._exit(7)


def test_a_worker_that_dies_again_and_again_is_told_and_what_was_done_kept(
    make_media: Maker,  # noqa: F811
    tmp_path: Path,
    cluster: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scav_model.distributed.extraction.RESTARTS", 1)
    clips = [Clip(f"{number}", make_media(f"{number}.mp4", seconds=1), "test") for number in range(2)]
    extract(clips[:1], tmp_path / "store", VISUAL, AUDIO, CONFIG)
    with pytest.raises(ExtractionError, match=r"a worker died.*the same command goes on"):
        extract(clips, tmp_path / "store", Crashing(FRAMES), AUDIO, CONFIG, OverRay(1))
    assert FeatureStore.open(tmp_path / "store").ids == ["0"]


def test_settings() -> None:
    with pytest.raises(ClusterError, match="expected at least 1 worker over a cluster, got 0"):
        OverRay(0)
    with pytest.raises(ClusterError, match="expected gpus_per_worker to be 0 or more, got -1"):
        OverRay(1, -1)


def test_more_workers_than_there_is_room_for(make_media: Maker, tmp_path: Path, cluster: str) -> None:  # noqa: F811
    clips = [Clip("a", make_media(seconds=1), "test")]
    with pytest.raises(ClusterError, match="a cluster of at least 9 CPUs for 9 workers with 1 each, got one of 2"):
        extract(clips, tmp_path / "store", VISUAL, AUDIO, CONFIG, OverRay(9))
