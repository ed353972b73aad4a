"""Ctrl-C ends an op that runs for long, within a moment, and leaves the process as it was."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import scav_kernels

# From the signal to the end of the call.
AT_ONCE = 3.0
# Seconds after which the signal comes.
SOON = 0.5

Call = Callable[[], object]


def steps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def backward(value: Tensor) -> Call:
    return value.sum().backward


def forever() -> dict[str, Callable[[], Call]]:
    """Calls that would take ten seconds and more, and what makes each ready."""
    endless = {"max_iterations": 10**8, "tolerance": 0.0}
    pair = steps(1, 30, 2), steps(1, 40, 2)
    many = steps(2000, 64, 64)
    long = steps(1, 100_000, 2)

    def gradient_of(distance: Callable[..., Tensor], x: Tensor) -> Call:
        return lambda: distance(x.requires_grad_(), x.detach()).sum().backward()

    return {
        "sinkhorn of one pair": lambda: lambda: scav_kernels.sinkhorn(*pair, **endless),
        "sinkhorn of many pairs": lambda: lambda: scav_kernels.sinkhorn(many, many, **endless),
        "sinkhorn of one long pair": lambda: lambda: scav_kernels.sinkhorn(steps(1, 9000, 2), steps(1, 9000, 2)),
        "sinkhorn of given costs": lambda: lambda: scav_kernels.sinkhorn_from_cost(torch.rand(9, 9), **endless),
        "dtw of many pairs": lambda: lambda: scav_kernels.dtw(many, many),
        "dtw of one long pair": lambda: lambda: scav_kernels.dtw(long, long),
        "soft_dtw of one long pair": lambda: lambda: scav_kernels.soft_dtw(long, long),
        "soft_dtw, with its gradient": lambda: gradient_of(scav_kernels.soft_dtw, many),
        "interpolated_euclidean": lambda: (
            lambda: scav_kernels.interpolated_euclidean(steps(6000, 200, 64), steps(6000, 300, 64))
        ),
        "topk": lambda: lambda: scav_kernels.topk(many, many, 3, metric="sinkhorn", prune="none", **endless),
    }


@pytest.fixture
def after() -> Iterator[Callable[[float], None]]:
    """Sends this process the signal of Ctrl-C after so many seconds."""
    timers: list[threading.Timer] = []

    def send(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield send
    for timer in timers:
        timer.cancel()
        timer.join()


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("name", ["sinkhorn of one pair", "dtw of many pairs"])
def test_ends_on_any_number_of_threads(
    name: str, workers: int, threads: Callable[[int], None], after: Callable[[float], None]
) -> None:
    """One pair is the work of one thread, which need not be the one that Python's signals come to."""
    threads(workers)
    assert_ends(forever()[name](), after)


@pytest.mark.parametrize("name", forever())
def test_ends(name: str, after: Callable[[float], None]) -> None:
    small = steps(5, 9, 4)
    before = [scav_kernels.cdist(small, small, metric=metric) for metric in ("dtw", "soft_dtw", "sinkhorn")]
    assert_ends(forever()[name](), after)
    again = [scav_kernels.cdist(small, small, metric=metric) for metric in ("dtw", "soft_dtw", "sinkhorn")]
    assert all(map(torch.equal, before, again))


def assert_ends(call: Call, after: Callable[[float], None]) -> None:
    after(SOON)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call()
    assert SOON <= time.monotonic() - began < SOON + AT_ONCE


def test_a_backward_pass_ends(after: Callable[[float], None]) -> None:
    x, y = steps(1200, 64, 64).requires_grad_(), steps(1200, 64, 64)
    potentials = torch.zeros(1200, 1200, 64)
    grad = torch.ones(1200, 1200)

    class Distance(torch.autograd.Function):
        """A forward pass that takes no time."""

        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.sum()

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, _: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            for _ in range(1000):
                dx, *_ = torch.ops.scav.sinkhorn_backward(
                    grad, x, y, *(None,) * 4, potentials, 0.05, "euclidean", False, True, True, False, False
                )
            return dx

    assert_ends(backward(Distance.apply(x)), after)


def test_a_handler_that_does_not_raise_changes_nothing(after: Callable[[float], None]) -> None:
    x, y = steps(1, 60, 2), steps(1, 50, 2)
    options = {"max_iterations": 400_000, "tolerance": 0.0}
    expected = scav_kernels.sinkhorn(x, y, **options)
    heard: list[float] = []
    old = signal.signal(signal.SIGINT, lambda *_: heard.append(time.monotonic()))
    try:
        after(0.1)
        found = scav_kernels.sinkhorn(x, y, **options)
        ended = time.monotonic()
    finally:
        signal.signal(signal.SIGINT, old)
    # Handled while the op ran, not when it was done.
    assert heard
    assert heard[0] < ended
    assert torch.equal(found, expected)


def test_what_a_handler_raises_is_what_comes(after: Callable[[float], None]) -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError("now")

    old = signal.signal(signal.SIGINT, stop)
    try:
        after(0.2)
        with pytest.raises(StopError, match="now"):
            forever()["sinkhorn of one pair"]()()
    finally:
        signal.signal(signal.SIGINT, old)


def test_other_threads_are_left_alone(after: Callable[[float], None]) -> None:
    """Signals are the main thread's; an op that another one called runs on."""
    x, options = steps(1, 60, 2), {"max_iterations": 400_000, "tolerance": 0.0}
    found: list[Tensor] = []
    done = threading.Event()

    def work() -> None:
        found.append(scav_kernels.sinkhorn(x, x, **options))
        done.set()

    threading.Thread(target=work).start()
    after(0.1)
    with pytest.raises(KeyboardInterrupt):
        time.sleep(AT_ONCE)
    assert done.wait(60)
    assert torch.equal(found[0], scav_kernels.sinkhorn(x, x, **options))


def test_a_script_ends() -> None:
    script = (
        "import torch, scav_kernels\n"
        "x = torch.randn(1, 30, 2)\n"
        "print('ready', flush=True)\n"
        "scav_kernels.sinkhorn(x, x, max_iterations=10**9, tolerance=0.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(SOON)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, error = process.communicate(timeout=60)
    # Of which a busy machine takes some for the end of a process that has loaded torch.
    assert time.monotonic() - began < 3 * AT_ONCE
    assert process.returncode == -signal.SIGINT
    assert error.rstrip().endswith(b"KeyboardInterrupt")
