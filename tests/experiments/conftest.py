"""Features of small clips, to train on and to search."""

import pytest

from scav_model.data import FeatureSet
from tests.small_features import one_thread as one_thread
from tests.small_features import walks


@pytest.fixture(scope="session")
def train_features() -> FeatureSet:
    return walks(64, seed=1, steps=(10, 17), views=7)


@pytest.fixture(scope="session")
def eval_features() -> FeatureSet:
    return walks(24, seed=2, steps=(10, 17), views=7)
