"""One Ctrl-C ends a command, wherever it waits."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Seconds that a command has to notice Ctrl-C.
GRACE = 2.0
# Seconds after which an interrupt that was lost is repeated.
REPEAT = 0.05


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

    def repeat(lost: Any) -> None:
        """Raise KeyboardInterrupt again, which Python dropped: it drops all that finalizers and hooks of fork raise."""
        if issubclass(lost.exc_type, KeyboardInterrupt):
            if os.getpid() == this:
                threading.Timer(REPEAT, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            hook(lost)

    def watch() -> None:
        while signals := os.read(reading, 1):
            if signals[0] == signal.SIGINT and not noticed.wait(GRACE):
                print(message, file=sys.stderr, flush=True)
                os._exit(code)
        os.close(reading)

    this, hook = os.getpid(), sys.unraisablehook
    sys.unraisablehook = repeat
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python writes the signal's number there at once, whatever the main thread does.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, notice)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGINT, previous)
        signal.set_wakeup_fd(before)
        os.close(writing)
