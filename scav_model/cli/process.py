"""The process that runs a command: its imports, its output and its signals. Nothing here imports more than Python."""

import codecs
import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from scav_model.cli.exits import FAILURE, INTERRUPTED, PROGRAM, TERMINATED, UNREAD, Terminated, interrupted
from scav_model.extras import explain
from scav_model.storage.text import json_escapes

# Name of the error handler of the outputs.
ESCAPES = "scav_escapes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: The command line without the program's name; None takes that of this process, and ends the command
            in order after SIGTERM.

    Returns:
        0; 1 after a failure; 130 after Ctrl-C; 143 after SIGTERM; 141 where the reader of the output has gone, as in
        `scav … | head`. Bad options raise SystemExit(2).
    """
    stop: SystemExit | None = None
    broken: BrokenPipeError | None = None
    code = FAILURE
    try:
        _escape_what_the_terminal_lacks()
        if arguments is None:
            _raise_on_sigterm()
        code = _run(sys.argv[1:] if arguments is None else list(arguments))
    except SystemExit as error:
        stop = error
    except BrokenPipeError as error:
        broken = error
    except KeyboardInterrupt as error:
        code = interrupted(PROGRAM, error)
    if arguments is None:
        # Python ends at once, instead of looking for garbage among all that torch has.
        gc.freeze()
    if code in (INTERRUPTED, TERMINATED) and arguments is None:
        # Another Ctrl-C ends what Python still does, without a word.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    failure = _flush()
    if isinstance(failure, BrokenPipeError) or (broken is not None and _unread()):
        return UNREAD
    if failure is not None or broken is not None:
        reason = f"the output cannot be written: {failure.strerror}" if failure else f"a connection broke ({broken})"
        print(f"{PROGRAM}: error: {reason}", file=sys.stderr)
        return FAILURE
    if stop is not None:
        raise stop
    return code


def _run(arguments: list[str]) -> int:
    try:
        from scav_model.cli.parser import run
    except ImportError as error:
        explained = explain(error, PROGRAM)
        if explained is error:
            raise
        print(f"{PROGRAM}: error: {explained}", file=sys.stderr)
        return FAILURE
    return run(arguments)


def _escape_what_the_terminal_lacks() -> None:
    """Make characters that an output cannot encode come out as JSON's escapes, instead of an error."""
    codecs.register_error(ESCAPES, _as_escapes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)


def _as_escapes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json_escapes(error.object[error.start : error.end]), error.end


def _raise_on_sigterm() -> None:
    """Raise `Terminated` on SIGTERM in this process; its forked children keep Python's default."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        or not hasattr(os, "register_at_fork")
    ):
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    def reset() -> None:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, terminate)
    os.register_at_fork(after_in_child=reset)


def _unread() -> bool:
    """Return whether an output is a pipe whose reader has gone."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # None, closed, or no file
            poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush() -> OSError | None:
    """Write out what was printed; return the error of an output that takes no more, which then leads nowhere."""
    failure = None
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError as error:
            failure = failure or error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return failure
