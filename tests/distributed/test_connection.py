"""Nobody else on this machine or its network reaches the Ray of `--ray local`; a cluster is joined with its token."""

import http.client
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

import pytest

from scav_model.distributed import ClusterError, connect
from scav_model.distributed import connection as connection_module
from scav_model.distributed.connection import import_ray
from tests.distributed.conftest import one_at_a_time

pytestmark = pytest.mark.slow

ray = import_ray()
psutil = pytest.importorskip("psutil")  # comes with Ray
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
LISTENING = "0A"
# What a stranger on this machine does first. Ray itself would take the machine's other address.
STRANGER = """
import sys
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
client.internal_kv_put(b"key", b"value", True, None, 10)
print("let in")
"""


class Socket(NamedTuple):
    process: int
    address: IPv4Address | IPv6Address
    port: int


def listening_sockets() -> list[Socket]:
    """Return the listening sockets of this process and its descendants."""
    sockets = {}
    for file in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]:
            fields = line.split()
            host, port = fields[1].split(":")
            if fields[3] == LISTENING:
                # Words of 32 bits in the machine's order of bytes.
                raw = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
                address = IPv4Address(raw) if len(raw) == 4 else IPv6Address(raw)
                if isinstance(address, IPv6Address) and address.ipv4_mapped:
                    address = address.ipv4_mapped
                sockets[f"socket:[{fields[9]}]"] = (address, int(port, 16))
    this = psutil.Process()
    found = []
    for process in (this, *this.children(recursive=True)):
        folder = Path(f"/proc/{process.pid}/fd")
        targets = [os.readlink(file) for file in folder.iterdir() if file.is_symlink()] if process.is_running() else []
        found += [Socket(process.pid, *sockets[target]) for target in targets if target in sockets]
    return found


def outer_address() -> str | None:
    """An address of this machine on a network, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


@pytest.fixture(scope="class")
def local() -> Iterator[list[Socket]]:
    """Ray on this machine, and the sockets that listened before."""
    with one_at_a_time():
        before = listening_sockets()
        with connect("local"):
            yield before


def check_sockets(before: list[Socket]) -> None:
    sockets = set(listening_sockets()) - set(before)
    assert len(sockets) >= 4
    assert {str(listening.address) for listening in sockets if not listening.address.is_loopback} == set()
    if (outer := outer_address()) is None:
        return
    for listening in sockets:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((outer, listening.port), timeout=5)


def as_stranger(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
    return subprocess.run(
        [sys.executable, "-c", STRANGER, address],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestLocal:
    """One Ray for all of these."""

    def test_every_port_is_of_the_loopback_interface(self, local: list[Socket]) -> None:
        check_sockets(local)
        work = ray.remote(lambda: os.getpid())
        assert len(ray.get([work.remote() for _ in range(4)])) == 4
        check_sockets(local)

    def test_without_the_token_nobody_is_let_in(self, local: list[Socket]) -> None:
        address = ray.get_runtime_context().gcs_address
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
        for environment in ({"RAY_AUTH_MODE": "disabled"}, wrong):
            refused = as_stranger(address, **environment)
            assert "AuthenticationError" in refused.stderr
            assert refused.stdout == ""
        right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
        assert as_stranger(address, **right).stdout == "let in\n"
        # The agent that makes environments speaks HTTP.
        refusals = []
        for listening in set(listening_sockets()) - set(local):
            agent = http.client.HTTPConnection("127.0.0.1", listening.port, timeout=5)
            try:
                agent.request("POST", "/get_or_create_runtime_env", b"")
                refusals.append(agent.getresponse().status)
            except (http.client.HTTPException, OSError):
                continue  # gRPC
            finally:
                agent.close()
        assert refusals == [401]

    def test_no_other_user_reaches_its_files(self, local: list[Socket]) -> None:
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        assert stat.S_IMODE(session.parents[1].stat().st_mode) == 0o700


CONNECTED = """
import os
import sys
from pathlib import Path
from scav_model.distributed import connect
if __name__ == "__main__":
    before = dict(os.environ)
    with connect("local"):
        import psutil, ray
        folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
        assert folder.exists()
        children = psutil.Process().children(recursive=True)
        assert len(children) > 4
    assert not [child for child in children if child.is_running()]
    assert not folder.exists()
    changed = {name for name in os.environ.keys() | before.keys() if os.environ.get(name) != before.get(name)}
    assert not [name for name in changed if "AUTH" in name], changed
"""


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    with one_at_a_time():
        subprocess.run([sys.executable, "-c", CONNECTED], check=True, timeout=120)


def test_a_ray_that_cannot_be_kept_from_the_network_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "192.0.2.7")
    with pytest.raises(ClusterError, match=r"loopback interface alone, got 192\.0\.2\.7; Ray .* pip install"):
        connection_module._check_loopback(ray)


HEAD = """
import sys
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
JOINS = """
import sys
from scav_model.distributed import connect
try:
    with connect(sys.argv[1]):
        print("joined")
except ConnectionError as error:
    print(error)
"""


def test_a_cluster_is_joined_with_its_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef" * 4)
    clean = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
    # A cluster of this machine alone, and drivers that look for it there.
    clean |= {"HOME": str(tmp_path), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    secured = {**clean, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with (
        one_at_a_time(),
        subprocess.Popen(
            [sys.executable, "-c", HEAD],
            env=secured,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as head,
    ):
        assert head.stdout is not None
        address = head.stdout.readline().strip()

        def join(**environment: str) -> str:
            command = [sys.executable, "-c", JOINS, address]
            joins = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, timeout=90)
            return joins.stdout

        assert join(RAY_AUTH_TOKEN_PATH=str(token)) == "joined\n"
        assert join(RAY_AUTH_TOKEN=token.read_text()) == "joined\n"
        assert "expected the token of the Ray cluster" in join()
        assert "expected the token of the Ray cluster" in join(RAY_AUTH_TOKEN="fedcba9876543210" * 4)
