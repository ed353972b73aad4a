"""Small indexes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scav_model.search import IndexWriter, SearchIndex
from tests.search.worlds import clip, header

Maker = Callable[..., Path]


@pytest.fixture(autouse=True)
def one_thread():
    """These worlds are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_index(tmp_path: Path) -> Maker:
    """An index of clips 0 to count − 1, `per_shard` of them in a shard."""

    def make(count: int = 30, per_shard: int = 8, name: str = "index", **changes) -> Path:
        with IndexWriter.create(tmp_path / name, header(**changes)) as writer:
            for number in range(count):
                writer.add(clip(number))
                if number % per_shard == per_shard - 1:
                    writer.commit()
        return tmp_path / name

    return make


@pytest.fixture
def index(make_index: Maker) -> SearchIndex:
    return SearchIndex.open(make_index())
