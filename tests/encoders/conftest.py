from pathlib import Path

import pytest

from tests.encoders.checkpoints import beats_file, clip_folder, pe_av_folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="session")
def beats_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beats_file(tmp_path_factory.mktemp("beats") / "tiny.pt")


@pytest.fixture(scope="session")
def pe_av_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pe_av_folder(tmp_path_factory.mktemp("pe-av") / "tiny")
