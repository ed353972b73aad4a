"""Packages that are missing."""

import re
import subprocess
import sys

import pytest
from processes import ENVIRONMENT

from scav_model.extras import ALONE, EXTRAS, MissingPackageError, needed_by

pytestmark = pytest.mark.slow

# The process finds no package of that name, and runs the statement.
PROGRAM = """
import sys
sys.modules[sys.argv[1]] = None
try:
    exec(sys.argv[2])
except ImportError as error:
    print(error)
"""
TRAIN = """
import torch
from pathlib import Path
from tempfile import mkdtemp
from scav_model.config import Config, ModelConfig, OptimConfig
from scav_model.data import FeatureSet
from scav_model.train import train
clips = FeatureSet(list("abcd"), [torch.randn(10, 6)] * 4, [torch.randn(12, 5)] * 4)
sizes = ModelConfig(dim=16, visual_blocks=1, audio_blocks=1, heads=2, conv_groups=4, conv_kernel=4)
train(Config(model=sizes, optim=OptimConfig(epochs=1, batch_size=4)), clips, out=Path(mkdtemp()))
"""
HDF5 = "from scav_model.data.importers.hdf5 import read_hdf5; next(read_hdf5(None, None, None))"
WANDB = """
from pathlib import Path
from scav_model.config import Config
from scav_model.training.loggers import WeightsAndBiases
WeightsAndBiases("project", Path("run"), Config())
"""
PE_AV = """
import pathlib, tempfile
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "config.json").write_text("{}")
from scav_model.encoders.pe_av import load
load(folder, "video")
"""
LINEAR = "from scav_model.experiments.downstream.classify import linear; linear(None, None, None, 1.0)"
PUSH = "from scav_model.model import AudioVisualModel; AudioVisualModel.from_pretrained('owner/name')"


@pytest.mark.parametrize(
    ("package", "statement", "extra"),
    [
        ("tensorboard", TRAIN, "model"),
        ("lightning_fabric", "import scav_model.train", "model"),
        ("orjson", "import scav_model.data", "model"),
        ("huggingface_hub", PUSH, "model"),
        ("matplotlib", "import scav_model.experiments.style", "model"),
        ("ray", "from scav_model.distributed.connection import import_ray; import_ray()", "ray"),
        ("open_clip", "from scav_model.encoders.clip import import_open_clip; import_open_clip()", "encoders"),
        ("speechbrain", "from scav_model.encoders.beats import speechbrain_beats; speechbrain_beats()", "encoders"),
        ("transformers", PE_AV, "encoders"),
        ("timm", PE_AV, "encoders"),
        ("h5py", HDF5, "importers"),
        ("mteb", "import scav_model.mteb", "model,mteb"),
        ("wandb", WANDB, "wandb"),
        ("sklearn", LINEAR, "model,probe"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(package, statement, extra):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, package, statement], env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert f" needs {package} (" in lines[0]
    assert re.search(rf"; pip install 'scav-kernels\[{extra}\]'(, or .+)?$", lines[0])


@pytest.mark.parametrize("package", EXTRAS)
def test_every_package_of_an_extra_is_explained_once(package):
    with pytest.raises(MissingPackageError) as caught, needed_by("the page"), needed_by("search"):
        raise ModuleNotFoundError(f"No module named '{package}'", name=f"{package}.part")
    expected = f"search needs {package} (No module named '{package}'); pip install 'scav-kernels[{EXTRAS[package]}]'"
    assert str(caught.value) == expected


@pytest.mark.parametrize("package", ALONE)
def test_a_package_without_an_extra_is_explained(package):
    with pytest.raises(MissingPackageError) as caught, needed_by("the front end"):
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    expected = f"the front end needs {package} (No module named '{package}'); pip install --no-deps {ALONE[package]}"
    assert str(caught.value) == expected


def test_other_import_errors_stay_as_they_are():
    error = ImportError("cannot import name 'Fabrik'", name="scav_model.training")
    with pytest.raises(ImportError) as caught, needed_by("training"):
        raise error
    assert caught.value is error


def test_a_package_that_another_needs_is_explained_with_what_does_without() -> None:
    with pytest.raises(MissingPackageError) as caught, needed_by("BEATs", "speechbrain", "take log_mel"):
        raise ModuleNotFoundError("No module named 'hyperpyyaml'", name="hyperpyyaml")
    expected = "BEATs needs speechbrain (No module named 'hyperpyyaml'); "
    assert str(caught.value) == expected + "pip install 'scav-kernels[encoders]', or take log_mel"


@pytest.mark.parametrize("error", [OSError("Could not load x.so"), RuntimeError("operator x does not exist")])
def test_a_package_for_another_torch_is_explained(error) -> None:
    with pytest.raises(MissingPackageError) as caught, needed_by("a log-mel front end", "torchaudio"):
        raise error from OSError("no libcudart.so.13")
    assert str(caught.value) == (
        "a log-mel front end needs torchaudio, which cannot load its libraries with this torch (no libcudart.so.13); "
        "install the build of torchaudio for this torch, from where torch came"
    )
    with pytest.raises(type(error)), needed_by("training"):
        raise error


def test_only_sound_needs_torchaudio() -> None:
    program = "import sys; sys.modules['torchaudio'] = None; import scav_model.data.player, scav_model.training"
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True)
