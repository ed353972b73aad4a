"""The Space of examples/space: what it computes, its files as Hugging Face wants them, and that it starts."""

import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from tests.index.test_cli_search import make_checkpoint

FOLDER = Path(__file__).parents[1] / "examples" / "space"


@pytest.fixture(scope="module")
def space() -> ModuleType:
    spec = util.spec_from_file_location("compare", FOLDER / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules["compare"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clips(space: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return space.render_examples(tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize("way", ["sound with sound", "pictures with pictures"])
@pytest.mark.parametrize("metric", ["dtw", "soft_dtw", "sinkhorn"])
def test_the_same_clip_slower_is_nearer_than_another(
    space: ModuleType, clips: list[Path], metric: str, way: str
) -> None:
    first, slower, other = clips
    near, far = (space.compare(first, second, metric, way) for second in (slower, other))
    assert near.distance < far.distance
    assert metric in near.words
    axes = near.figure.axes[0]
    assert np.diff(axes.get_xlim())[0] == pytest.approx(4 * space.SLOWER, rel=0.1)  # seconds


def test_a_model_compares_pictures_with_sound(space: ModuleType, clips: list[Path], tmp_path: Path) -> None:
    from scav_model import AudioVisualModel
    from scav_model.encoders import audio_encoder, visual_encoder

    make_checkpoint(tmp_path / "checkpoint.pt", visual_encoder("patches").dim, audio_encoder("log_mel").dim)
    model = AudioVisualModel.from_pretrained(tmp_path / "checkpoint.pt")
    model.use_front_ends("patches", "log_mel", frame_rate=space.FRAME_RATE)
    assert space.ways(model)[0] == space.ACROSS
    found = space.compare(clips[0], clips[2], "dtw", space.ACROSS, model)
    assert np.isfinite(found.distance)


def test_bad_arguments_and_files_are_refused_in_words(space: ModuleType, clips: list[Path], tmp_path: Path) -> None:
    first, second, _ = clips
    with pytest.raises(ValueError, match="expected metric to be one of dtw, soft_dtw, sinkhorn, got 'mean'"):
        space.compare(first, second, "mean", space.SOUND)
    with pytest.raises(ValueError, match="expected the way to be one of sound with sound, "):
        space.compare(first, second, "dtw", space.ACROSS)
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 999)
    with pytest.raises(ValueError, match="not a readable media file"):
        space.compare(first, tmp_path / "noise.mp4", "dtw", space.SOUND)


def test_long_clips_are_refused(space: ModuleType, clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MAX_SECONDS", 1.0)
    with pytest.raises(ValueError, match="expected clips of at most 1 seconds, got 4; cut the file"):
        space.compare(*clips[:2], "dtw", space.SOUND)


def test_the_card_is_as_hugging_face_wants_it() -> None:
    """https://huggingface.co/docs/hub/spaces-config-reference"""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    card = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)[1])
    assert card["sdk"] == "gradio"
    assert re.fullmatch(r"\d+\.\d+\.\d+", card["sdk_version"])
    assert (FOLDER / card["app_file"]).is_file()
    colors = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {card["colorFrom"], card["colorTo"]} <= colors
    assert len(card["short_description"]) <= 60
    # Hugging Face installs Gradio itself, of sdk_version.
    assert (FOLDER / "requirements.txt").read_text(encoding="utf-8").split() == ["scav-kernels[model]"]


def test_the_space_starts_and_answers(clips: list[Path]) -> None:
    """`PYTHONPATH=FOLDER pytest -W default tests/test_space.py`, where `pip install --target FOLDER gradio` put Gradio.

    It needs an older Pillow than the pins, so that it is none of them.
    """
    client = pytest.importorskip("gradio_client", reason="gradio is not installed: pip install gradio")
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-u", "app.py"]
    with subprocess.Popen(command, cwd=FOLDER, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = iter(process.stdout.readline, "")
            address = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            app = client.Client(address, verbose=False)
            files = [client.handle_file(str(path)) for path in clips[:2]]
            plot, words = app.predict(*files, "dtw", "sound with sound", api_name="/compare")
            assert plot["type"] == "matplotlib"
            assert words.startswith("dtw, sound with sound: ")
            with pytest.raises(client.exceptions.AppError, match="choose or upload two clips"):
                app.predict(None, None, "dtw", "sound with sound", api_name="/compare")
        finally:
            process.terminate()
