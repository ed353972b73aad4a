"""Writes that fail name the file and say why."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import ENVIRONMENT

from scav_model import checkpoint
from scav_model.model import AudioVisualModel
from scav_model.storage.files import replacing, write_text, writing

# The command, with a limit on the size of a file, as `ulimit -f` sets it.
PROGRAM = """
import resource, signal, sys
from scav_model.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""
SETTINGS = {
    "model": {"dim": 16, "visual_blocks": 1, "audio_blocks": 1, "heads": 2, "conv_kernel": 4, "conv_groups": 4},
    "optim": {"epochs": 1, "batch_size": 16},
    "retrieval": {"every": 0},
}


class Full:
    """A file whose disk fills up after some writes."""

    def __init__(self, file, error):
        self.file, self.error, self.writes = file, error, 0

    def write(self, content):
        self.writes += 1
        if self.writes > 3:
            raise self.error
        return self.file.write(content)

    def flush(self):
        self.file.flush()


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; make room, then repeat"),
        (errno.EDQUOT, "this user's share of the disk is used up; make room, then repeat"),
        (errno.EIO, "the disk failed; check it, then repeat"),
    ],
)
def test_the_error_of_a_full_disk_names_the_checkpoint(number, message, tmp_path):
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises(OSError, match=message) as caught, replacing(path) as file:
        torch.save({"weights": torch.zeros(1000)}, Full(file, OSError(number, os.strerror(number))))
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert len(str(caught.value).splitlines()) == 1
    assert checkpoint.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_pytorchs_own_error_names_the_checkpoint(tmp_path):
    with pytest.raises(OSError, match="the disk failed") as caught, writing(tmp_path / "checkpoint.pt"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")
    assert caught.value.filename == str(tmp_path / "checkpoint.pt")


def test_ctrl_c_while_a_checkpoint_is_written_is_ctrl_c(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        torch.save({"weights": torch.zeros(1000)}, Full(file, KeyboardInterrupt()))
    assert not list(tmp_path.iterdir())


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="of a model"), writing(tmp_path / "a"):
        raise RuntimeError("of a model")
    with pytest.raises(FileNotFoundError) as caught, writing(tmp_path / "a"):
        (tmp_path / "none").read_bytes()
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "none" / "a", "")
    assert caught.value.filename == str(tmp_path / "none" / "a")


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "name"), [(20_000, "checkpoint.pt"), (200, "config.yaml")])
def test_train_names_the_file_that_could_not_be_written(limit, name, feature_files, tmp_path):
    options = [f"--config={json.dumps(SETTINGS)}", f"--train_features={feature_files[0]}", f"--out={tmp_path}"]
    command = [sys.executable, "-c", PROGRAM, str(limit), "train", "--tensorboard=false", *options]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"scav train: error: {tmp_path / name}: File too large: the file is larger than the file system or ulimit -f "
        "allows; raise the limit, then repeat"
    )
    assert "Traceback" not in done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "scav", folder], capture_output=True).returncode:
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_every_kind_of_file_names_itself_on_a_full_disk(small_disk: Path, train_features):
    from scav_model.experiments.demo.render import render
    from scav_model.experiments.demo.scene import SceneConfig, make_scene
    from scav_model.experiments.style import Figure
    from scav_model.storage.files import write_figure

    (small_disk / "filling").write_bytes(bytes(252 << 10))
    for name, write in {
        "checkpoint.pt": lambda path: checkpoint.save(path, {"weights": torch.zeros(100, 1000)}),
        "model.safetensors": lambda path: AudioVisualModel().save_pretrained(path.parent),
        "features.safetensors": train_features.save,
        "results.json": lambda path: write_text(path, "x" * 10_000),
        "plot.png": lambda path: write_figure(path, Figure(figsize=(8, 6))),
        "clip.mp4": lambda path: render(make_scene(0, "train", 0, SceneConfig()), path),
    }.items():
        with pytest.raises(OSError, match="the disk is full; make room, then repeat") as caught:
            write(small_disk / name)
        assert caught.value.filename == str(small_disk / name)
        assert [path.name for path in small_disk.iterdir()] == ["filling"]
