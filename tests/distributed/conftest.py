"""A Ray cluster on this machine, of two CPUs."""

import fcntl
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scav_model.distributed.connection import import_ray

# Without the extra `ray` there is one test: that it is asked for.
collect_ignore_glob = (
    []
    if importlib.util.find_spec("ray")
    else [
        "test_sharded.py",
        "test_extraction.py",
        "test_connection.py",
    ]
)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Processes that test at the same time have their clusters one after the other, for a cluster takes a gigabyte."""
    with (Path(tempfile.gettempdir()) / "scav-test-cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster."""
    ray = import_ray()
    with one_at_a_time():
        try:
            started = ray.init(
                address="local",
                num_cpus=2,
                object_store_memory=80 << 20,
                include_dashboard=False,
                logging_level="error",
                log_to_driver=False,
            )
            yield started.address_info["gcs_address"]
        finally:
            ray.shutdown()
