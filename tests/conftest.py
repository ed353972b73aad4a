"""Which tests come first, and that Ctrl-C reaches what they start."""

import signal
import threading

import pytest

# A shell has its background jobs ignore Ctrl-C, and so would every process that a test starts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take a minute each: what is left to the end is short, so that all workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/simt/"))
