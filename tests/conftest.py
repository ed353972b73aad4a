"""Order long tests first, and pass Ctrl-C on to the processes that tests start."""

import signal
import threading

import pytest

# A shell has its background jobs ignore Ctrl-C, and so would every process that a test starts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests of half a minute or more first, so that all workers end together."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/simt/", "tests/test_notebooks.py")))
