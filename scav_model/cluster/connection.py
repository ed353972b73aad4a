"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LOCAL = "local"
# Ray's own ways that nobody asked for: it reports its use, and hides the GPUs of what asks for none.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class ClusterError(RuntimeError):
    """What a cluster cannot do as asked, or a worker that could not be kept alive; the message says what to do."""


def import_ray() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"work on several machines needs Ray ({error}); pip install 'scav-kernels[ray]'; "
            "without --ray all is done on this machine"
        ) from error
    return ray


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Ray for the length of a block; where this process has connected to Ray already, that connection is used.

    Args:
        address: `local` starts Ray on this machine, and ends it after the block; `auto` joins the cluster that this
            machine is part of, HOST:PORT the one whose head is there, and both leave it running.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    settings: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        try:
            _reach(address)
            ray.init(address=address, logging_level="error", log_to_driver=False, **settings)
        except (ConnectionError, ValueError) as error:
            raise ConnectionError(
                f"expected a Ray cluster at {address!r}, got none ({error}); ray start --head starts one, and local is "
                "one on this machine alone"
            ) from error
        yield
    finally:
        # After Ctrl-C too: what was started here ends here.
        ray.shutdown()


def _reach(address: str) -> None:
    """Ray tries for minutes to reach a head that is not there."""
    host, separator, port = address.rpartition(":")
    if not separator or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def check_resources(workers: int, gpus_per_worker: float, option: str = "--workers") -> None:
    """
    Raises:
        ClusterError: workers that the whole cluster has no room for, and that would be waited for for ever.
    """
    held = import_ray().cluster_resources()
    for name, each in (("CPU", 1.0), ("GPU", gpus_per_worker)):
        if workers * each > held.get(name, 0.0):
            raise ClusterError(
                f"expected a cluster of at least {workers * each:g} {name}s for {workers} workers with {each:g} each, "
                f"got one of {held.get(name, 0.0):g}; lower {option}, or add machines"
            )


def room(gpus_per_worker: float) -> int:
    """Workers that the whole cluster has room for, each with a CPU of its own and `gpus_per_worker`; at least 1."""
    held = import_ray().cluster_resources()
    counts = [held.get("CPU", 0.0)] + ([held.get("GPU", 0.0) / gpus_per_worker] if gpus_per_worker else [])
    return max(1, int(min(counts)))
