"""Extraction on rendered files: what is made, what is skipped, and going on after a kill."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from scav_model.data import FeatureStore
from scav_model.data.decode import decode
from scav_model.data.extract import Extraction, ExtractionConfig, ExtractionError, extract
from scav_model.data.frontends import FramePatchConfig, FramePatches, LogMel, LogMelConfig
from scav_model.data.manifest import Clip, write_manifest
from scav_model.data.pictures import Square
from scav_model.data.store import StoreError
from scav_model.encoders import EncoderOptions, audio_encoder, visual_encoder
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
from tests.encoders.checkpoints import beats_file, clip_folder

Maker = Callable[..., Path]
FRAMES, SPECTRA = FramePatchConfig(frame_size=16), LogMelConfig(mels=32)
VISUAL, AUDIO = FramePatchEncoder(FRAMES), LogMelEncoder(SPECTRA)


def clips_of(files: list[Path]) -> list[Clip]:
    return [
        Clip(file.stem, file, "train" if index % 2 else "test", label=f"label {index}")
        for index, file in enumerate(files)
    ]


def run(clips: list[Clip], out: Path, **settings: object) -> Extraction:
    config = ExtractionConfig(**{"workers": 0, "frame_rate": 12.5, **settings})  # type: ignore[arg-type]
    return extract(clips, out, VISUAL, AUDIO, config)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_of_what_the_front_ends_make(make_media: Maker, tmp_path: Path, workers: int) -> None:
    files = [make_media(f"{index}.mp4", seconds=1 + 0.4 * index) for index in range(3)]
    done = run(clips_of(files), tmp_path / "store", workers=workers, batch_clips=2)
    assert (done.clips, done.skipped) == (3, [])
    assert done.media_seconds == pytest.approx(1 + 1.4 + 1.8)
    store = FeatureStore.open(tmp_path / "store")
    assert store.ids == ["0", "1", "2"]
    assert store.splits == ["test", "train", "test"]
    assert store.labels == ["label 0", "label 1", "label 2"]
    assert store.video_lengths.tolist() == [12, 17, 22]  # at 12.5 steps/s
    assert store.audio_lengths.tolist() == [15, 21, 28]  # at 15.625 steps/s
    assert store.header.finished
    assert store.header.video["rate_hz"] == 12.5
    assert store.header.audio["rate_hz"] == 15.625
    assert store.header.video["preprocessing"] == {"frame_size": 16, "patch_size": 8}
    assert {"scav-kernels", "torch", "torchaudio", "av"} <= set(store.header.versions)
    for index, file in enumerate(files):
        media = decode(file, frame_rate=12.5, picture=Square(16))
        video, audio = store.clip(index)
        assert torch.equal(video, FramePatches(FRAMES)(media.frames))
        assert torch.equal(audio, LogMel(SPECTRA)(media.audio))


def test_workers_and_batches_change_nothing(make_media: Maker, tmp_path: Path) -> None:
    clips = clips_of([make_media(f"{index}.mp4", seconds=1) for index in range(3)])
    run(clips, tmp_path / "alone")
    run(clips, tmp_path / "shared", workers=1, batch_clips=1)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")


def test_throughput_is_shown(
    make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scav_model.progress.EVERY", 0.0)
    done = run(clips_of([make_media(seconds=2.0)]), tmp_path / "store")
    shown = capsys.readouterr().err
    assert "features: 1 of 1 clip, " in shown
    assert "clips/s" in shown or "s for a clip" in shown
    assert "× real time" in shown
    half = Extraction(clips=8, skipped=[], media_seconds=80.0, wall_seconds=4.0)
    assert half.summary() == "8 clips, 80 s of media, in 4.0 s: 2.00 clips/s, 20.0 × real time"
    assert done.wall_seconds > 0


def test_bad_files_are_skipped_named_listed_and_not_tried_again(
    make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_media(f"good{index}.mp4", seconds=1) for index in range(3)]
    (tmp_path / "broken.mp4").write_bytes(b"no film, " * 50)
    files[1:1] = [make_media("mute.mp4", seconds=1, audio=False), tmp_path / "lost.mp4", tmp_path / "broken.mp4"]
    clips = clips_of(files)
    done = run(clips, tmp_path / "store", max_bad_share=0.6)
    reasons = [(clip.id, clip.reason) for clip in done.skipped]
    assert reasons[:2] == [("mute", "no audio stream"), ("lost", "no such file")]
    assert reasons[2][1].startswith("not a readable media file")
    printed = capsys.readouterr().out
    assert f"skipped mute ({tmp_path}/mute.mp4): no audio stream" in printed
    assert "3 of 6 clips (50.0%) could not be used" in printed
    assert FeatureStore.open(tmp_path / "store").ids == ["good0", "good1", "good2"]
    listed = (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    assert len(listed) == 3
    assert '"id":"mute"' in listed[0]
    before = contents(tmp_path / "store")
    again = run(clips, tmp_path / "store", max_bad_share=0.6)
    assert (again.clips, again.skipped) == (0, [])
    assert contents(tmp_path / "store") == before
    make_media("lost.mp4", seconds=1)
    retried = run(clips, tmp_path / "store", max_bad_share=0.6, retry_skipped=True)
    assert (retried.clips, [clip.id for clip in retried.skipped]) == (1, ["mute", "broken"])
    assert FeatureStore.open(tmp_path / "store").ids[-1] == "lost"


def test_too_many_bad_files_fail_the_run_and_keep_the_rest(make_media: Maker, tmp_path: Path) -> None:
    files = [make_media("good.mp4", seconds=1), tmp_path / "lost.mp4", make_media("mute.mp4", seconds=1, audio=False)]
    with pytest.raises(
        ExtractionError, match=r"2 of 3 clips .* max_bad_share = 50\.0%.* lost .*no such file"
    ) as raised:
        run(clips_of(files), tmp_path / "store", max_bad_share=0.5)
    told = str(raised.value)
    assert f"The other 1 clips are complete in {tmp_path}/store" in told
    assert "skipped 2 (1 no such file, 1 no audio stream)" in told
    assert f"scav features info {tmp_path}/store" in told
    assert "Raise --max_bad_share" in told
    assert FeatureStore.open(tmp_path / "store").ids == ["good"]
    with pytest.raises(ExtractionError, match=r"2 of 3 clips .* max_bad_share"):
        run(clips_of(files), tmp_path / "store", max_bad_share=0.5)
    with pytest.raises(ExtractionError, match="so none is left"):
        run([Clip("lost", tmp_path / "lost.mp4", "train")], tmp_path / "none", max_bad_share=1.0)


def test_an_unforeseen_error_is_the_files(make_media: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("by this file")

    files = [make_media("a.mp4", seconds=1)]
    monkeypatch.setattr("scav_model.data.extract.decode", broken)
    with pytest.raises(ExtractionError, match=r"a .*ZeroDivisionError: by this file"):
        run(clips_of(files), tmp_path / "store")


class Faulty(FramePatchEncoder):
    """Crashes or hangs its worker, as a decoder would."""

    @property
    def prepare(self) -> Callable[..., np.ndarray]:
        return crash_or_hang


def crash_or_hang(frames: np.ndarray) -> np.ndarray:
    if len(frames) == 20:
        os.kill(os.getpid(), signal.SIGSEGV)
    if len(frames) == 30:
        time.sleep(300)
    return FramePatchEncoder(FRAMES).prepare(frames)


class Unloadable(FramePatchEncoder):
    """A front end whose import fails in the worker."""

    @property
    def prepare(self) -> Callable[..., np.ndarray]:
        return ExitWhenUnpickled()  # type: ignore[return-value]


class ExitWhenUnpickled:
    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (9,)


def test_names_are_printed_on_any_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["tab\t", "line\n", "caf\xe9", "broken\udce9", "escape\x1b[2J", "two\u2028"]
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    clips = [Clip(f"{number}", tmp_path / f"{name}.mp4", "test") for number, name in enumerate(names)]
    with pytest.raises(ExtractionError, match="6 of 6 clips") as error:
        run(clips, tmp_path / "store")
    assert str(error.value).isprintable()
    out.flush()
    lines = out.buffer.getvalue().decode("ascii").splitlines()  # type: ignore[attr-defined]
    shown = ["tab\\t", "line\\n", "caf\\xe9", "broken\\udce9", "escape\\x1b[2J", "two\\u2028"]
    assert [line.partition(f"{tmp_path}/")[2] for line in lines] == [f"{name}.mp4): no such file" for name in shown]


@pytest.mark.slow
def test_a_clip_that_hangs_or_crashes_its_decoder_is_skipped(
    make_media: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The front end tells them by their length.
    lengths = {"a": 1.0, "crash": 2.0, "b": 1.0, "hang": 3.0, "c": 1.0}
    clips = clips_of([make_media(f"{name}.mp4", seconds=seconds) for name, seconds in lengths.items()])
    config = ExtractionConfig(workers=2, frame_rate=10, batch_clips=2, max_bad_share=0.5, clip_timeout=5)
    done = extract(clips, tmp_path / "store", Faulty(FRAMES), AUDIO, config)
    reasons = {
        "crash": "crashed the decoder (SIGSEGV)",
        "hang": "took longer than clip_timeout to decode",
    }
    assert {clip.id: clip.reason for clip in done.skipped} == reasons
    assert done.summary().endswith(f"; skipped 2 (1 {reasons['crash']}, 1 {reasons['hang']})")
    assert FeatureStore.open(tmp_path / "store").ids == ["a", "b", "c"]
    assert f"skipped hang ({tmp_path}/hang.mp4): {reasons['hang']}" in capsys.readouterr().out
    # As other bad clips: not tried again, unless that is asked for.
    assert extract(clips, tmp_path / "store", Faulty(FRAMES), AUDIO, config).skipped == []
    assert run(clips, tmp_path / "store", frame_rate=10, retry_skipped=True).clips == 2


def test_a_worker_that_cannot_start_is_told_and_what_was_done_kept(make_media: Maker, tmp_path: Path) -> None:
    clips = clips_of([make_media(f"{index}.mp4", seconds=1) for index in range(2)])
    run(clips[:1], tmp_path / "store")
    config = ExtractionConfig(workers=1, frame_rate=12.5)
    with pytest.raises(ExtractionError, match=r"could not start .*the same command goes on"):
        extract(clips, tmp_path / "store", Unloadable(FRAMES), AUDIO, config)
    assert FeatureStore.open(tmp_path / "store").ids == ["0"]
    assert run(clips, tmp_path / "store").clips == 1


def test_features_that_are_not_finite_are_a_bad_clip(make_media: Maker, tmp_path: Path) -> None:
    class Hot(LogMelEncoder):
        def encode(self, clips: object) -> list[torch.Tensor]:
            return [torch.full((3, self.dim), torch.inf)]

    config = ExtractionConfig(workers=0, max_bad_share=1.0)
    with pytest.raises(ExtractionError, match=r"so none is left.*audio features are not finite in float32"):
        extract(clips_of([make_media(seconds=1)]), tmp_path / "store", VISUAL, Hot(SPECTRA), config)


def test_more_clips_may_follow_and_other_settings_may_not(make_media: Maker, tmp_path: Path) -> None:
    clips = clips_of([make_media(f"{index}.mp4", seconds=1) for index in range(3)])
    run(clips[:2], tmp_path / "store")
    done = run(clips, tmp_path / "store")
    assert done.clips == 1
    assert FeatureStore.open(tmp_path / "store").ids == ["0", "1", "2"]
    with pytest.raises(StoreError, match=r"begun with other settings \(video.rate_hz: there 12\.5, now 5\.0\)"):
        run(clips, tmp_path / "store", frame_rate=5.0)


def test_bad_settings() -> None:
    nan = float("nan")
    bad = {"frame_rate": [0.0, nan], "batch_clips": [0], "max_bad_share": [1.1], "clip_timeout": [0.0, -1.0, nan]}
    for name, value in ((name, value) for name, values in bad.items() for value in values):
        with pytest.raises(ValueError, match=f"expected {name} "):
            ExtractionConfig(**{name: value})  # type: ignore[arg-type]


def test_files_of_every_sort(make_media: Maker, tmp_path: Path) -> None:
    files = [
        make_media("ntsc.mp4", frame_rate=Fraction(30_000, 1001), sample_rate=44_100, channels=2, seconds=2.0),
        make_media("film.mp4", frame_rate=Fraction(24_000, 1001), sample_rate=48_000, channels=1, seconds=2.0),
        make_media("slow.mp4", frame_rate=Fraction(25, 2), sample_rate=22_050, channels=2, seconds=2.0),
        make_media("second.mp4", seconds=1.0, size=(64, 34)),
    ]
    done = run(clips_of(files), tmp_path / "store", frame_rate=5.0)
    assert done.skipped == []
    store = FeatureStore.open(tmp_path / "store")
    assert store.video_lengths.tolist() == [10, 10, 10, 5]
    assert store.audio_lengths.tolist() == [31, 31, 31, 15]
    # The click a second in lies in steps 15.6 to 17.2, whatever the file's own rate and channels.
    for index in range(3):
        loudness = store.clip(index)[1].mean(1)
        assert int(loudness.argmax()) in (15, 16, 17)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny CLIP and a tiny BEATs."""
    folder = tmp_path_factory.mktemp("models")
    return clip_folder(folder / "clip"), beats_file(folder / "beats.pt")


@pytest.mark.slow
def test_clip_and_beats(make_media: Maker, tmp_path: Path, models: tuple[Path, Path]) -> None:
    clip, beats = models
    files = [make_media("wide.mp4", size=(96, 32), seconds=2.0), make_media("high.mp4", size=(32, 64), seconds=1.0)]
    visual, audio = visual_encoder(f"clip:{clip}"), audio_encoder(f"beats:{beats}")
    config = ExtractionConfig(workers=1, dtype="bfloat16")
    done = extract(clips_of(files), tmp_path / "store", visual, audio, config)
    assert done.skipped == []
    store = FeatureStore.open(tmp_path / "store")
    assert (store.video_dim, store.audio_dim) == (64, 48)
    assert (store.video_rate_hz, store.audio_rate_hz) == (5.0, 6.25)
    assert store.video_lengths.tolist() == [10, 5]
    assert store.audio_lengths.tolist() == [12, 6]
    # Its own resizing: the shorter side to 28 pixels, then the middle; the picture is not squeezed.
    media = decode(files[0], frame_rate=5, picture=visual.picture)
    assert media.frames.shape == (10, 28, 28, 3)
    expected = visual.encode([media.frames])[0].bfloat16().float()
    torch.testing.assert_close(store.clip(0)[0], expected, rtol=0.01, atol=0.01)
    bright = store.clip(0)[0]
    assert torch.equal(bright[0], bright[3])
    assert not torch.allclose(bright[3], bright[7], atol=0.1)
    other = visual_encoder(f"clip:{clip}", EncoderOptions(clip_features="pooled"))
    with pytest.raises(StoreError, match=r"video\.features: there 'cls\+patches', now 'pooled'"):
        extract(clips_of(files), tmp_path / "store", other, audio, config)


@pytest.mark.slow
def test_ten_minutes(make_media: Maker, tmp_path: Path) -> None:
    quick = {"encoder_layers": 1, "relative_position_embedding": False, "gru_rel_pos": False}
    path = make_media("long.mp4", seconds=600.0, frame_rate=1, sample_rate=8_000, size=(16, 16))
    audio = audio_encoder(f"beats:{beats_file(tmp_path / 'beats.pt', **quick)}")
    config = ExtractionConfig(workers=0, frame_rate=1.0)
    clips = [Clip("whole", path, "test"), Clip("part", path, "test", start=590.0, duration=10.0)]
    done = extract(clips, tmp_path / "store", VISUAL, audio, config)
    assert done.skipped == []
    store = FeatureStore.open(tmp_path / "store")
    assert store.video_lengths.tolist() == [600, 10]
    assert store.audio_lengths.tolist() == [3749, 62]
    assert done.media_seconds == pytest.approx(610, abs=0.2)


PROGRAM = """
import signal
import sys
from pathlib import Path
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.frontends import FramePatchConfig, LogMelConfig
from scav_model.data.manifest import read_manifest
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
if __name__ == "__main__":
    # A background job of a shell is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = ExtractionConfig(workers=1, shard_bytes=30_000, batch_clips=1, frame_rate=12.5)
    visual, audio = FramePatchEncoder(FramePatchConfig(frame_size=16)), LogMelEncoder(LogMelConfig(mels=32))
    extract(read_manifest(sys.argv[1]), sys.argv[2], visual, audio, config)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_stopped_and_begun_again_it_ends_in_the_same_features(
    make_media: Maker, tmp_path: Path, how: signal.Signals
) -> None:
    # One file many times over: rendering costs more than what is tested.
    path = make_media(seconds=2.0)
    clips = [Clip(f"clip-{index}", path, "train", start=0.01 * index) for index in range(40)]
    manifest, program = tmp_path / "manifest.jsonl", tmp_path / "program.py"
    write_manifest(manifest, clips)
    program.write_text(PROGRAM)
    running = subprocess.Popen(
        [sys.executable, str(program), str(manifest), str(tmp_path / "store")], stderr=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while not (tmp_path / "store" / "shard-00001.safetensors").exists():
        assert time.monotonic() < end
        assert running.poll() is None, running.communicate()
        time.sleep(0.002)
    running.send_signal(how)
    running.communicate()
    stopped = FeatureStore.open(tmp_path / "store")
    assert 0 < len(stopped) < 40
    assert not stopped.header.finished
    assert stopped.ids == [clip.id for clip in clips[: len(stopped)]]
    visual, audio = VISUAL, AUDIO
    config = ExtractionConfig(workers=0, shard_bytes=30_000, frame_rate=12.5)
    again = extract(clips, tmp_path / "store", visual, audio, config)
    assert again.clips == 40 - len(stopped)
    extract(clips, tmp_path / "whole", visual, audio, config)
    resumed, whole = FeatureStore.open(tmp_path / "store"), FeatureStore.open(tmp_path / "whole")
    assert resumed.ids == whole.ids
    assert resumed.header.finished
    assert not [name for name in contents(tmp_path / "store") if name.endswith(".partial")]
    if how == signal.SIGKILL:
        assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    for index in range(40):
        for found, expected in zip(resumed.clip(index), whole.clip(index), strict=True):
            assert np.array_equal(found, expected)
