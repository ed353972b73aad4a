"""Joining a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from scav_model.extras import needed_by

LOCAL = "local"
# Ray's own ways that nobody asked for: it reports its use, and hides the GPUs of what asks for none.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Bytes of a folder's name, for Ray's sockets lie below it, and a socket's name has at most 107.
FOLDER_BYTES = 36
# Seconds that Ray's processes have to end by themselves.
GRACE = 1.0


class ClusterError(RuntimeError):
    """A cluster cannot do what was asked, or a worker did not stay alive; the message says what to do."""


def import_ray() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with needed_by("work on several machines", "ray", "leave --ray out to work on this machine alone"):
        import ray
    return ray


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Ray for the length of a block; where this process has connected to Ray already, that connection is used.

    Args:
        address: `local` starts Ray on this machine, and ends it after the block. Its processes listen on the loopback
            interface alone, take work only with a token that is made for the block, and keep their files in a folder
            that only this user can enter. `auto` joins the cluster that this machine is part of, HOST:PORT the one
            whose head is there, and both leave it running; `RAY_AUTH_TOKEN` or `RAY_AUTH_TOKEN_PATH` has the token of a
            cluster that asks for one.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: no cluster at the address, or one that does not take the token.
        ClusterError: Ray does not keep to the loopback interface.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    with _local(ray) if address == LOCAL else _joined(ray, address):
        yield


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    with _environment({"RAY_AUTH_MODE": "token"} if token and "RAY_AUTH_MODE" not in os.environ else {}):
        try:
            try:
                _reach(ray, address)
                ray.init(address=address, logging_level="error", log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
                if isinstance(error, ray.exceptions.AuthenticationError):
                    raise ConnectionError(
                        f"expected the token of the Ray cluster at {address!r}, got none that it takes; set "
                        "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, as where it was started"
                    ) from error
                raise ConnectionError(
                    f"expected a Ray cluster at {address!r}, got none ({error}); ray start --head starts one, and "
                    "local is one on this machine alone"
                ) from error
            yield
        finally:
            ray.shutdown()


@contextmanager
def _local(ray: Any) -> Iterator[None]:
    # Ray vendors psutil.
    import psutil
    from ray._private import ray_constants

    this = psutil.Process()
    before, started = set(this.children()), None
    parent = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent if len(os.fsencode(parent)) <= FOLDER_BYTES else "/tmp")
    # Ray then takes the loopback interface for this machine's address, and its processes listen there alone.
    cluster, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            try:
                # Ray makes its own folder open to all, so it is one below.
                ray.init(
                    address=LOCAL,
                    include_dashboard=False,
                    logging_level="error",
                    log_to_driver=False,
                    _temp_dir=os.path.join(folder, "ray"),
                )
                started = [child for child in this.children() if child not in before]
                _check_loopback(ray)
                yield
            finally:
                # After Ctrl-C too, and in the middle of the start: what was started here ends here.
                daemons = started if started is not None else set(this.children()) - before
                processes = [process for daemon in daemons for process in _family(psutil, daemon)]
                ray.shutdown()
                for process in psutil.wait_procs(processes, timeout=GRACE)[1]:
                    process.kill()
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = cluster
        shutil.rmtree(folder, ignore_errors=True)


def _family(psutil: Any, process: Any) -> list[Any]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _check_loopback(ray: Any) -> None:
    """
    Raises:
        ClusterError: Ray has another address than the loopback interface's, and so listens on all interfaces.
    """
    address = ray.util.get_node_ip_address()
    if not ip_address(address).is_loopback:
        raise ClusterError(
            f"expected Ray to listen on the loopback interface alone, got {address}; Ray {ray.__version__} cannot be "
            "kept from the network: pip install 'scav-kernels[ray]' installs a version that can"
        )


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Environment variables for the length of a block; Ray, which keeps those of its tokens, reads them again."""
    if not changes:
        yield
        return
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    _read_tokens_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_tokens_again()


def _read_tokens_again() -> None:
    import ray

    compiled: Any = ray._raylet
    # In this order: what still runs and reads the token asks the settings first.
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def _reach(ray: Any, address: str) -> None:
    """Raise an error at once; Ray tries for minutes to reach a head that is not there, or does not take its token."""
    host, separator, port = address.rpartition(":")
    if not separator or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error
    ray._raylet.GcsClient(address=address)


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
