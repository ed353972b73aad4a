"""The command: it finds the index, says where the page is, and ends in order."""

import _thread
import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from scav_model.cli import main
from scav_model.index import SearchIndex, SearchIndexError
from scav_model.serve.places import find_index
from scav_model.serve.run import address, listening, load_encoding, run, serve
from tests.serve.worlds import World


def test_an_index_and_a_folder_with_one_are_found(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_index(world.index) == world.index
    assert find_index(world.folder) == world.index
    assert f"{world.index}: the index in {world.folder}" in capsys.readouterr().out


def leave_demo(world: World, folder: Path) -> None:
    """Leave what the demo leaves of its first seed."""
    seed = folder / "seed-0"
    (seed / "scav_dtw").mkdir(parents=True)
    (seed / "features").symlink_to(world.folder / "store")
    (seed / "scav_dtw" / "checkpoint.pt").symlink_to(world.folder / "checkpoint.pt")


def test_after_the_demo_the_command_needs_no_argument(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leave_demo(world, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scav_model.serve.run.run", lambda server, listener: None)
    assert main(["serve", "--port=0"]) == 0
    assert "runs/demo/clips.index: 5 clips at http://127.0.0.1:" in capsys.readouterr().out


def test_the_demos_index_is_built_once(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_demo(world, tmp_path / "demo")
    found = find_index(tmp_path / "demo")
    assert "an index of the demo's 5 held-out clips" in capsys.readouterr().out
    assert len(SearchIndex.open(found)) == 5
    assert find_index(tmp_path / "demo") == found
    assert "the index in" in capsys.readouterr().out


def test_a_folder_of_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchIndexError, match="make an index with scav index build"):
        find_index(tmp_path)
    (tmp_path / "my videos").mkdir()
    (tmp_path / "my videos" / "a.mp4").touch()
    with pytest.raises(SearchIndexError, match=r"1 media files.* scav quickstart '.*/my videos'"):
        find_index(tmp_path / "my videos")
    with pytest.raises(FileNotFoundError, match="expected the folder of a search index"):
        find_index(tmp_path / "none")


def test_a_lost_checkpoint_leaves_searches_by_clip(world: World) -> None:
    index = world.open()
    index.header.checkpoint = "/nowhere/checkpoint.pt"
    nothing = {"video": None, "audio": None}
    encoding, problem = load_encoding(index, None, nothing, "cpu")
    assert encoding is None
    assert "name its file with --checkpoint" in problem
    with pytest.raises(SearchIndexError, match="no checkpoint at"):
        load_encoding(index, Path("/nowhere/else.pt"), nothing, "cpu")


def test_a_taken_port_is_named(world: World) -> None:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address(listener, "127.0.0.1", None) == f"http://127.0.0.1:{port}/"
        assert address(listener, "::1", "x") == f"http://[::1]:{port}/?token=x"
        assert address(listener, "0.0.0.0", None) == f"http://{socket.gethostname()}:{port}/"
        with pytest.raises(ValueError, match=f"cannot listen at 127.0.0.1, port {port}"):
            serve(world.index, port=port)


def test_an_answer_that_nobody_reads_does_not_keep_the_server(capfd: pytest.CaptureFixture[str]) -> None:
    begun = threading.Event()

    async def endless(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set()
        await asyncio.sleep(600)

    def ask_and_interrupt() -> None:
        reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        begun.wait(60)
        _thread.interrupt_main()

    with listening("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as reader:
        server = uvicorn.Server(uvicorn.Config(endless, log_level="warning", lifespan="off"))
        threading.Thread(target=ask_and_interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            run(server, listener)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_serves_until_a_signal(world: World, tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, "-m", "scav_model.cli", "serve", str(world.index), "--port=0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        found = re.search(r"5 clips at (http://127.0.0.1:\d+/)", process.stdout.readline())
        assert found
        with urllib.request.urlopen(f"{found[1]}api/index", timeout=20) as answer:
            assert json.load(answer)["clips"] == 5
        if number == signal.SIGINT:
            # Its worker processes have to end too.
            content = (world.folder / "bell.mp4").read_bytes()
            request = urllib.request.Request(f"{found[1]}api/uploads", data=content, method="POST")
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert json.load(answer)["sides"] == ["video", "audio"]
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code
    assert "Traceback" not in errors, errors
    assert list(tmp_path.glob("scav-*")) == []
