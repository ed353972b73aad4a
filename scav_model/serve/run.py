"""The command `scav serve`."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scav_model.devices import to_device
from scav_model.encoders.encoder import EncoderError
from scav_model.extras import needed_by
from scav_model.index.files import SearchIndex
from scav_model.index.header import SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.media import QueryReader, frame_rate, front_end
from scav_model.index.model import load_for
from scav_model.serve.engine import Engine
from scav_model.serve.places import find_index
from scav_model.serve.uploads import Encoding, UploadLimits
from scav_model.storage.text import printable

with needed_by("scav serve"):
    import uvicorn

    from scav_model.serve.app import make_app
    from scav_model.serve.guard import Guard, checked_token, is_loopback, names_of_this_machine

# Seconds in which answers may be finished once the command is stopped. A player that pauses never finishes.
STOPPING_SECONDS = 0.3


def serve(
    index: Path = Path("runs/demo"),
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    checkpoint: Path | None = None,
    visual: str | None = None,
    audio: str | None = None,
    device: str = "cpu",
    upload_megabytes: int = 200,
    upload_seconds: float = 120.0,
    decode_seconds: float = 30.0,
) -> None:
    """Serve a page on which to search an index, and a JSON API under /api, until Ctrl-C.

    Args:
        index: Folder of the index, of scav quickstart, or of scav demo, whose index is built if there is none.
        host: Address to listen at. If other machines can reach it, each request needs the token.
        port: Port to listen at; 0 takes a free one.
        token: Secret that each request needs, of 16 or more letters, digits or -._~; null makes one if other machines
            can reach the server, and needs none otherwise.
        checkpoint: Checkpoint that encoded the index, if it has moved; null takes the path that the index stores.
        visual: Front end of the pictures of uploads, as scav extract takes it; null takes the index's.
        audio: Front end of the sound of uploads, in the same way.
        upload_megabytes: Size in MiB above which a file cannot be uploaded.
        upload_seconds: Length in seconds above which a clip cannot be uploaded.
        decode_seconds: Seconds that decoding an upload may take.
    """
    to_device(device)
    token = checked_token(host, token)
    opened = SearchIndex.open(find_index(index))
    encoding, problem = load_encoding(opened, checkpoint, {"video": visual, "audio": audio}, device)
    if problem:
        print(f"note: no files can be uploaded, clips of the index alone are queries: {problem}", file=sys.stderr)
    with listening(host, port) as listener:
        engine = Engine(opened, encoding, problem, UploadLimits(upload_megabytes, upload_seconds, decode_seconds))
        try:
            engine.workers.start()
            app = Guard(make_app(engine), names_of_this_machine(host), not is_loopback(host), token)
            print(
                f"{printable(str(opened.folder))}: {len(opened)} clips at {address(listener, host, token)}", flush=True
            )
            config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
            run(uvicorn.Server(config), listener)
        finally:
            engine.close()


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """Run a server until it ends, or until this thread is interrupted.

    The server runs in a thread of its own. In the main thread, an interrupt while it answers would fail that answer and
    not end the server.
    """
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server")
    try:
        thread.start()
        while thread.is_alive():
            thread.join(1.0)
    finally:
        server.should_exit = True
        deadline = time.monotonic() + STOPPING_SECONDS
        # An interrupt may come while the thread starts, when it cannot be joined yet.
        while thread in threading.enumerate():
            if time.monotonic() > deadline and not server.force_exit:
                # An answer that is cut off is no error.
                logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
                server.force_exit = True
            time.sleep(0.01)


def load_encoding(
    index: IndexReader, checkpoint: Path | None, specs: dict[str, str | None], device: str
) -> tuple[Encoding | None, str]:
    """Return the model and the front ends that encode uploads, or None and the reason why there are none."""
    try:
        model = load_for(index.header, checkpoint, device)
        encoders = {side: front_end(index.header, side, specs[side], device) for side in ("video", "audio")}
        rate = frame_rate(index)
    except (SearchIndexError, EncoderError, ValueError) as error:
        if checkpoint is not None or any(specs.values()):
            raise
        return None, printable(str(error))
    readers = {side: QueryReader.of(encoder, side, rate) for side, encoder in encoders.items()}
    return Encoding(model, encoders, readers), ""


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Return a socket that listens at an address.

    Raises:
        ValueError: the port is taken, or the host is none of this machine.
    """
    if not 0 <= port < 65536:
        raise ValueError(f"expected port to be from 0 to 65535, got {port}")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"cannot listen at {host}, port {port}: {reason}; name another --port or --host"
            ) from error
        yield listener


def address(listener: socket.socket, host: str, token: str | None) -> str:
    """Return the address to open in a browser."""
    if host in ("0.0.0.0", "::"):  # all addresses of this machine
        host = socket.gethostname()
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/" + ("" if token is None else f"?token={token}")
