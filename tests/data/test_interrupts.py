"""One Ctrl-C ends a command within seconds, with its processes, whatever they do; and the same command goes on."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scav_model.cli import main
from scav_model.cli.terminal import interruptible
from scav_model.data import FeatureStore
from scav_model.index import IndexWriter
from tests.data.store_clips import fill
from tests.index.worlds import clip, header

pytestmark = pytest.mark.slow

Maker = Callable[..., Path]
# A command ends in one or two seconds, in more where all cores are busy; one that hangs does not end at all.
SECONDS = 30.0
# Ray takes some two seconds to end, more where all cores are busy.
RAY_SECONDS = 40.0
# Runs a command in which a function hangs, in a library that is not Python and takes no notice of signals. Processes
# that the command spawns import this, too.
PROGRAM = """
import ctypes
import functools
import importlib
import os
import signal
import sys
from pathlib import Path

module, _, path = os.environ["STUCK"].partition(":")
*path, name = path.split(".")
stuck = importlib.import_module(module)
for part in path:
    stuck = getattr(stuck, part)
function = getattr(stuck, name)

@functools.wraps(function)
def hang(*given, **options):
    if os.environ["STUCK_FILE"] not in str(given):
        return function(*given, **options)
    Path(os.environ["BEGUN"]).touch()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

setattr(stuck, name, hang)
if __name__ == "__main__":
    # A background job of a shell is born deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from scav_model.cli import main
    sys.exit(main(sys.argv[1:]))
"""


class Command:
    """A running command, and the processes that it started."""

    def __init__(self, process: "subprocess.Popen[str]", mark: str) -> None:
        self.process, self.mark = process, mark

    def family(self) -> list[int]:
        """All processes that inherited the mark of this command."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def names(self) -> list[str]:
        return [Path(f"/proc/{number}/cmdline").read_text() for number in self.family()]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.02)

    def interrupt(self, *, group: bool, seconds: float = SECONDS) -> str:
        """Press Ctrl-C once, and return what the command says."""
        (os.killpg if group else os.kill)(self.process.pid, signal.SIGINT)
        begun = time.monotonic()
        _, told = self.process.communicate(timeout=60)
        assert time.monotonic() - begun < seconds
        assert self.process.returncode == 130, told
        end = time.monotonic() + SECONDS
        while self.family():
            assert time.monotonic() < end, self.names()
            time.sleep(0.05)
        return told


@contextmanager
def running(folder: Path, stuck: str, file: str, *words: object) -> Iterator[Command]:
    program, mark = folder / "program.py", uuid.uuid4().hex
    program.write_text(PROGRAM)
    environment = {"STUCK": stuck, "STUCK_FILE": file, "BEGUN": str(folder / "begun"), "MARK": mark}
    process = subprocess.Popen(
        [sys.executable, str(program), *map(str, words)],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    command = Command(process, mark)
    try:
        yield command
    finally:
        for number in command.family():
            os.kill(number, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("group", [True, False], ids=["group", "parent"])
@pytest.mark.parametrize("workers", [0, 2])
def test_extract_with_a_clip_that_hangs(make_media: Maker, tmp_path: Path, workers: int, group: bool) -> None:
    for name in ("a", "b", "hang", "z"):
        make_media(f"media/{name}.mp4", seconds=1)
    options = ["extract", tmp_path / "media", "--out", tmp_path / "store", "--workers", workers, "--batch_clips", 1]
    with running(tmp_path, "scav_model.data.extract:decode", "hang.mp4", *options) as command:
        command.wait_for((tmp_path / "begun").exists)
        told = command.interrupt(group=group)
    assert "scav extract: interrupted; the same command goes on" in told
    assert "Traceback" not in told
    assert main([str(word) for word in options]) == 0
    assert FeatureStore.open(tmp_path / "store").ids == ["a", "b", "hang", "z"]


@pytest.mark.parametrize("name", ["manifest", "import", "index", "search"])
def test_other_commands_that_hang(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    fill(store)
    words, stuck = {
        "manifest": (["manifest", "folder", tmp_path, "--out", tmp_path / "m"], "scav_model.data.datasets:folder"),
        "import": (
            ["features", "import", "npz", tmp_path, "--out", tmp_path / "o", "--video_rate_hz=5", "--audio_rate_hz=5"],
            "scav_model.data.importers:import_features",
        ),
        "index": (
            ["index", "build", tmp_path / "index", "--checkpoint", tmp_path, "--features", store],
            "scav_model.checkpoint:load_model",
        ),
        "search": (["search", tmp_path, "clip-1"], "scav_model.index:SearchIndex.open"),
    }[name]
    with running(tmp_path, stuck, "", *words) as command:
        command.wait_for((tmp_path / "begun").exists)
        told = command.interrupt(group=True)
    assert "interrupted" in told
    assert "Traceback" not in told


def test_search_over_ray(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    index = tmp_path / "index"
    with IndexWriter.create(index, header()) as writer:
        for number in range(2):
            writer.add(clip(number))
    words = ["search", index, "clip-1", "--ray", "local", "--workers", "1"]
    with running(tmp_path, "scav_model.index:search", "clip", *words) as command:
        # Once while Ray starts, and once while the search waits.
        command.wait_for(lambda: len(command.family()) > 2)
        command.interrupt(group=True, seconds=RAY_SECONDS)
    # What it waits in is Python.
    with running(tmp_path, "scav_model.index:search", "no such words", *words) as command:
        command.wait_for(lambda: any("ray::ShardWorker" in name for name in command.names()))
        command.interrupt(group=True, seconds=RAY_SECONDS)


def test_extract_over_ray_with_a_clip_that_hangs(make_media: Maker, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    make_media("media/a.mp4", seconds=1)
    os.mkfifo(tmp_path / "media" / "hang.mp4")
    words = ["extract", tmp_path / "media", "--out", tmp_path / "store", "--ray", "local", "--workers", "1"]
    with running(tmp_path, "scav_model.data.extract:decode", "no such words", *words) as command:
        command.wait_for(lambda: any("spawn_main" in name for name in command.names()))
        command.interrupt(group=True, seconds=RAY_SECONDS)
    assert len(FeatureStore.open(tmp_path / "store")) == 0


class Finalized:
    """Interrupts its process where Python drops exceptions."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_is_not_lost() -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interruptible("", 130):
        lose_an_interrupt()
    assert time.monotonic() - begun < SECONDS


def lose_an_interrupt() -> None:
    Finalized()
    time.sleep(10)
