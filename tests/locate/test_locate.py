"""Sounds and pictures are found in a long recording, by front ends and by a model, and reported in every format."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scav_kernels import reference
from scav_model.cli import main
from scav_model.config import ModelConfig
from scav_model.data.decode import DecodeError
from scav_model.locate import Located, locate
from scav_model.locate.report import as_text, clock
from scav_model.locate.steps import StepReader
from scav_model.model import AudioVisualModel
from tests.index.test_cli_search import make_checkpoint

RATE = 16_000
LENGTH, FRAME_RATE = 40.0, 5  # seconds, frames/s
CUT = (17.3, 21.3)  # seconds, of the query


def write(path: Path, sound: NDArray[np.float32], frames: NDArray[np.uint8] | None = None) -> Path:
    """Write a wav, or an mp4 with frames."""
    codec, kind = ("pcm_f32le", "flt") if path.suffix == ".wav" else ("aac", "fltp")
    with av.open(str(path), "w") as file:
        if frames is not None:
            pictures = file.add_stream("libx264", rate=FRAME_RATE, options={"preset": "ultrafast"})
            pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        stream = file.add_stream(codec, rate=RATE, layout="mono")
        for frame in () if frames is None else frames:
            file.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if frames is not None:
            file.mux(pictures.encode(None))
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format=kind, layout="mono")
        block.sample_rate, block.pts = RATE, 0
        file.mux(stream.encode(block))
        file.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tune in noise with changing colors, and as queries a part of it, louder, and its pictures."""
    folder = tmp_path_factory.mktemp("media")
    random = np.random.default_rng(0)
    times = np.arange(round(LENGTH * RATE)) / RATE
    pitches = 200 * 2 ** random.uniform(0, 4, size=round(LENGTH / 0.25))
    phases = 2 * np.pi * np.cumsum(pitches[(times / 0.25).astype(int)]) / RATE
    sound = (0.3 * np.sin(phases) + 0.005 * random.standard_normal(len(times))).astype(np.float32)
    patches = random.integers(0, 256, (round(LENGTH * FRAME_RATE), 4, 4, 3), dtype=np.uint8)
    frames = patches.repeat(16, axis=1).repeat(16, axis=2)
    write(folder / "long.mp4", sound, frames)
    part = slice(*(round(second * RATE) for second in CUT))
    noise = 0.005 * random.standard_normal(part.stop - part.start).astype(np.float32)
    write(folder / "query.wav", sound[part] + noise)
    write(folder / "query.mp4", sound[part], frames[slice(*(round(second * FRAME_RATE) for second in CUT))])
    return folder


@pytest.fixture(scope="module")
def model() -> AudioVisualModel:
    torch.manual_seed(0)
    config = ModelConfig(
        visual_input=384, audio_input=256, dim=8, visual_blocks=1, audio_blocks=1, heads=2, conv_kernel=4, conv_groups=4
    )
    model = AudioVisualModel(config).eval()
    model.use_front_ends("patches", "log_mel", frame_rate=5.0)
    return model


def find(media: Path, query: str = "query.wav", **options: Any) -> Located:
    return locate(media / query, media / "long.mp4", progress=False, **options)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("query.wav", {}),
        ("query.wav", {"cost": "cosine", "window_seconds": 3.0}),
        ("query.mp4", {"side": "video"}),
        ("query.mp4", {"side": "video", "step_penalty": 0.5, "diagonal_weight": 2.0}),
    ],
)
def test_the_part_is_found_where_it_is(media: Path, query: str, options: dict[str, Any]) -> None:
    located = find(media, query, k=3, **options)
    first, *others = located.places
    assert (first.start, first.end) == pytest.approx(CUT, abs=0.25)
    assert located.seconds == pytest.approx(LENGTH, abs=0.3)
    assert all(place.distance > 1.3 * first.distance for place in others)
    assert [place.rank for place in located.places] == [1, 2, 3]


@pytest.mark.parametrize("side", ["audio", "video"])
def test_steps_of_windows_are_those_of_the_whole(media: Path, side: str) -> None:
    reader = StepReader.of_front_end(side, None, None)
    whole = reader.whole(media / "long.mp4")
    for seconds in (0.3, 7.7, 1000.0):
        windows = torch.cat(list(reader.windows(media / "long.mp4", seconds, 0.0)))
        torch.testing.assert_close(windows, whole, rtol=0, atol=1e-5)


def test_the_answer_is_that_of_the_slow_oracle(media: Path) -> None:
    located = find(media, "query.mp4", side="video", k=1)
    reader = StepReader.of_front_end("video", None, None)
    x, y = (reader.whole(media / name)[None].double() for name in ("query.mp4", "long.mp4"))
    expected = reference.dtw(x, y, open_begin=True, open_end=True)
    assert located.places[0].distance == pytest.approx(expected.item(), rel=1e-6)


def test_a_model_encodes_both_files(media: Path, model: AudioVisualModel) -> None:
    located = find(media, "query.mp4", model=model, side="video", window_seconds=4.0)
    assert (located.places[0].start, located.places[0].end) == pytest.approx(CUT, abs=0.25)
    reader = StepReader.of_model(model, "audio")
    window = next(reader.windows(media / "long.mp4", 4.0, 1.0))
    assert window.shape == (62, 8)
    # With what comes after it, as the model saw it.
    sound = StepReader.of_front_end("audio", None, None).whole(media / "long.mp4")[: 62 + 16]
    with torch.no_grad():
        torch.testing.assert_close(window, model.audio(sound[None])[0, :62], rtol=1e-3, atol=1e-3)
    across = find(media, "query.wav", model=model, searched="video", k=1)
    assert (across.side, across.searched, across.rate_hz) == ("audio", "video", 5.0)


def test_wrong_options_and_files(media: Path, model: AudioVisualModel, tmp_path: Path) -> None:
    for wrong, words in (
        ({"k": 0}, "expected k to be at least 1, got 0"),
        ({"side": "text"}, "expected side to be audio or video, got 'text'"),
        ({"cost": "manhattan"}, "expected cost to be euclidean, sqeuclidean or cosine"),
        ({"window_seconds": 0.0}, "expected window_seconds to be above 0"),
        ({"step_penalty": -1.0}, "expected step_penalty to be 0 or more"),
        ({"searched": "video"}, "expected a checkpoint to find audio in video"),
    ):
        with pytest.raises(ValueError, match=words):
            find(media, **wrong)
    with pytest.raises(DecodeError, match=r"the query .*query\.wav cannot be used: no video stream"):
        find(media, side="video")
    with pytest.raises(DecodeError, match=r"the recording .* cannot be used: no such file"):
        locate(media / "query.wav", tmp_path / "none.mp4")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def command(*arguments: object) -> tuple[Any, str, str]:
        try:
            code: Any = main(["locate", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return command


def test_command(media: Path, tmp_path: Path, run: Any) -> None:
    files = media / "query.wav", media / "long.mp4"
    code, out, _ = run(*files, "-k", 2)
    assert code == 0
    assert out == as_text(find(media, k=2)) + "\n"
    assert re.search(r"^   1   0:00:17\.\d\d   0:00:21\.\d\d  ", out, re.MULTILINE)
    code, out, _ = run(*files, "--format", "json", "--k", 2)
    found = json.loads(out)
    assert found["places"][0]["start"] == find(media, k=1).places[0].start
    assert (found["side"], found["rate_hz"], len(found["places"])) == ("audio", 15.625, 2)
    code, out, err = run(*files, "--output", tmp_path / "plot.png")
    assert (code, out) == (0, f"{tmp_path / 'plot.png'}: 5 places\n"), err
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(*files, "--output", tmp_path / "page.html", "--k", 3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<video") == 3
    assert page.count("<audio") == 1
    assert len(re.findall(r"#t=1[67]\.\d+,21\.\d+", page)) == 1
    assert "data:image/png;base64," in page


def test_command_with_a_checkpoint(media: Path, tmp_path: Path, run: Any) -> None:
    make_checkpoint(tmp_path / "checkpoint.pt", 384, 256)
    arguments = (media / "query.wav", media / "long.mp4", "--checkpoint", tmp_path / "checkpoint.pt")
    code, _, err = run(*arguments)
    assert code == 1
    assert "the model does not remember the audio front end" in err
    code, out, err = run(*arguments, "--audio", "log_mel", "--k", 1)
    assert code == 0, err
    assert "0:00:17" in out


def test_wrong_commands(media: Path, tmp_path: Path, run: Any) -> None:
    files = media / "query.wav", media / "long.mp4"
    assert "expected --output NAME.png to write a plot to" in run(*files, "--format", "png")[2]
    assert "to end in .json, .html, .png or .txt" in run(*files, "--output", tmp_path / "a.csv")[2]
    assert "cannot be used: no such file" in run(tmp_path / "none.wav", files[1])[2]
    assert "which is a folder" in run(tmp_path, files[1])[2]


def test_times_are_rounded_once() -> None:
    assert clock(3599.999) == "1:00:00.00"
    assert clock(7325.256) == "2:02:05.26"
