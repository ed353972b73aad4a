"""The program ends in order: missing packages, Ctrl-C, SIGTERM, closed and full outputs."""

import os
import signal
import subprocess
import sys
import time

import pytest

from scav_model.cli import main, tree

# A program whose only command waits, once it has said that it does; it is stopped where `{place}` says.
WAITING = """
import sys, time, types
import scav_model.cli
{place}
sys.exit(scav_model.cli.main())
"""
IN_A_COMMAND = """
from scav_model.cli import tree
def wait(n: int = 1, *, resume: bool = False) -> None:
    '''Waits.

    Args:
        n: Nothing.
        resume: Go on.
    '''
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("put away", flush=True)
tree.COMMANDS = {"wait": wait}
"""
# It starts when its input ends, and does not wait.
TALKING = "import sys\nsys.stdin.read()\n" + WAITING.format(place=IN_A_COMMAND).replace("time.sleep(60)", "pass")
IN_AN_IMPORT = """
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "jsonargparse":
            print("ready", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
"""


def start(program, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("place", "number", "code", "out", "told"),
    [
        (IN_A_COMMAND, signal.SIGINT, 130, "put away\n", "scav wait: interrupted; --resume keeps what is finished\n"),
        (IN_A_COMMAND, signal.SIGTERM, 143, "put away\n", "scav wait: terminated; --resume keeps what is finished\n"),
        (IN_AN_IMPORT, signal.SIGINT, 130, "", "scav: interrupted\n"),
        (IN_AN_IMPORT, signal.SIGTERM, 143, "", "scav: terminated\n"),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C in an import", "SIGTERM in an import"],
)
def test_a_stop_is_one_line(place, number, code, out, told):
    with start(WAITING.format(place=place), "wait", "1") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        stopped = time.perf_counter()
        assert process.communicate(timeout=20) == (out, told)
        assert time.perf_counter() - stopped < 15
        assert process.returncode == code


def test_a_second_ctrl_c_ends_what_is_left_without_a_word():
    slow_end = IN_A_COMMAND + "import threading\nthreading.Thread(target=lambda: time.sleep(60)).start()\n"
    with start(WAITING.format(place=slow_end), "wait", "1") as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "scav wait: interrupted; --resume keeps what is finished\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20)[1] == ""
        assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_nobody_reads_ends_quietly(unbuffered):
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", TALKING, "wait", "1"],
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        os.close(writer)
        os.close(reader)
        assert process.communicate("", timeout=20)[1] == ""
        assert process.returncode == 141


def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", TALKING, "wait", "1"], stdout=full, stderr=subprocess.PIPE, text=True, input=""
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("package", ["jsonargparse", "docstring_parser", "yaml"])
def test_without_the_extra_the_program_says_what_to_install(package):
    program = f"import sys; sys.modules[{package!r}] = None; import scav_model.cli as c; sys.exit(c.main(['--help']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"scav needs {package}" in done.stderr
    assert "pip install 'scav-kernels[model]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_output_has_escapes_where_its_encoding_ends():
    done = subprocess.run(
        [sys.executable, "-m", "scav_model.cli", "features", "info", "é\udcff\n\u202e×"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert r"\u00e9\xff \u202e\u00d7" in done.stderr


def test_a_fault_of_the_program_is_one_line(monkeypatch, capsys):
    def fall(n: int = 1, *, more: int = 2) -> None:
        """Falls.

        Args:
            n: A number.
            more: Another.
        """
        raise {1: KeyError("a\nb"), 2: AssertionError(), 3: UnicodeDecodeError("utf-8", b"a", 0, 1, "why")}[n]

    monkeypatch.setattr(tree, "COMMANDS", {"fall": fall})
    for number, said in ((1, "a fault in scav, KeyError"), (2, "a fault in scav, AssertionError"), (3, "utf-8")):
        assert main(["fall", str(number)]) == 1
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    with pytest.raises(KeyError):
        main(["fall", "1", "--traceback"])
