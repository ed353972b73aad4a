"""A Ray cluster on this machine, of two CPUs."""

import fcntl
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scav_model.cluster.connection import import_ray

# Without the extra `ray` there is one test: that it is asked for.
collect_ignore_glob = [] if importlib.util.find_spec("ray") else ["test_sharded.py", "test_extraction.py"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Its address. Processes that test at the same time have theirs one after the other, for a cluster takes a
    gigabyte."""
    ray = import_ray()
    with (Path(tempfile.gettempdir()) / "scav-test-cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
