"""Small indexes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scav_model.index import IndexWriter, SearchIndex
from tests.index.worlds import clip, header
from tests.small_features import one_thread as one_thread

Maker = Callable[..., Path]


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
