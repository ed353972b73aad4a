"""Write the figures of benchmarks, with the machine, to a results file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.machine import about, commit

Record = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="tiny workloads, once: do the benchmarks work?")
    parser.addoption("--results", type=Path, help="JSON file to add the figures to as they come")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("smoke"):
        # Threads would spend longer waiting for each other.
        torch.set_num_threads(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("smoke"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_benchmark_update_machine_info(config: object, machine_info: dict[str, Any]) -> None:
    machine_info["scav"] = about()


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("smoke")


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    """Sections of named records, as far as they have come."""
    return {"machine": about()}


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest, results: dict[str, Any]) -> Record:
    """record(section, name, **facts), written at once, so that an interrupted run leaves what it has."""
    path: Path | None = request.config.getoption("results")
    if path and path.exists():
        results |= json.loads(path.read_text(encoding="utf-8")) | results

    def add(section: str, name: str, /, **facts: Any) -> None:
        results.setdefault(section, {})[name] = facts | {"commit": commit(), "threads": torch.get_num_threads()}
        if path:
            unfinished = path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            unfinished.rename(path)

    return add
