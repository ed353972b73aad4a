"""Order long tests first, run a part of them, and pass Ctrl-C on to the processes that tests start."""

import signal
import threading

import pytest

# A shell has its background jobs ignore Ctrl-C, and so would every process that a test starts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def fraction(text: str) -> tuple[int, int]:
    """Return (K, N) of "K/N", with 1 ≤ K ≤ N."""
    part, parts = map(int, text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError
    return part, parts


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", type=fraction, default=(1, 1), metavar="K/N", help="run each N-th test, from the K-th on"
    )


# Last: after -m and -k.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep a part, and put tests of half a minute or more first, so that all workers end together."""
    part, parts = config.getoption("part")
    chosen = items[part - 1 :: parts]
    left_out = set(items).difference(chosen)
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
    items[:] = sorted(chosen, key=lambda item: not item.nodeid.startswith(("tests/simt/", "tests/test_notebooks.py")))
