"""How a command behaves on a terminal: one Ctrl-C ends it, and it can print any name."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds that a command has to notice Ctrl-C.
GRACE = 2.0


@contextmanager
def interruptible(message: str, code: int) -> Iterator[None]:
    """Let Ctrl-C end the process even where it waits in a library that is not Python, and so raises no exception.

    Where Python takes notice of Ctrl-C, it raises KeyboardInterrupt as ever, and cleaning up may take its time. After
    `GRACE` seconds without notice the process prints `message` and exits with `code`, as if it was killed.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    noticed = threading.Event()

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.set()
        previous(number, frame)

    def watch() -> None:
        while signals := os.read(reading, 1):
            if signals[0] == signal.SIGINT and not noticed.wait(GRACE):
                print(message, file=sys.stderr, flush=True)
                os._exit(code)
        os.close(reading)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python writes the signal's number there at once, whatever the main thread does.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, notice)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        signal.set_wakeup_fd(before)
        os.close(writing)


def print_anything() -> None:
    """Let standard output print characters that its encoding lacks, file names among them, as escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
