from collections.abc import Iterator

import pytest

from tests.serve.worlds import World, make_world
from tests.small_features import one_thread as one_thread

pytest.importorskip("fastapi", reason="the extra serve is not installed")
from fastapi.testclient import TestClient

from scav_model.serve.app import make_app
from scav_model.serve.engine import Engine
from scav_model.serve.guard import Guard, names_of_this_machine


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def engine(world: World) -> Iterator[Engine]:
    made = world.engine()
    yield made
    made.close()


def client_of(engine: Engine, token: str | None = None, **client) -> TestClient:
    app = Guard(make_app(engine), names_of_this_machine("127.0.0.1"), token=token)
    return TestClient(app, base_url="http://127.0.0.1:8000", **client)


@pytest.fixture
def client(engine: Engine) -> TestClient:
    return client_of(engine)
