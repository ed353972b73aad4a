"""A pool of worker processes that outlives a worker that crashes, hangs or is killed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from scav_model.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items under way for every worker: one in work, one that waits for the worker, and one whose result waits for its turn.
AHEAD = 3
# Seconds between asking a process to end and killing it.
GRACE = 1.0
CONTEXT = multiprocessing.get_context("spawn")


class WorkerError(RuntimeError):
    """A worker process could not do its work."""


class WorkerDied(WorkerError):
    """A worker process crashed or was killed; `how` names the signal or the exit code."""

    def __init__(self, how: str) -> None:
        super().__init__(f"a worker process died ({how})")
        self.how = how


class WorkerTimeout(WorkerError):
    """A worker process took longer than its time limit."""


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    description: str,
) -> Iterator[Result]:
    """`ordered_map` behind a progress bar."""
    results = ordered_map(function, items, workers=workers)
    yield from Progress(results, total=len(items), desc=description, unit="clip")


def ordered_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    waiting: int = 0,
    seconds: float | None = None,
    replace: Callable[[Item, WorkerError], Result] | None = None,
) -> Iterator[Result]:
    """`function` of every item, in order, as they become ready.

    Args:
        function: is called in the workers, which import it by name.
        workers: processes; 0 does all work in this process, without time limit.
        waiting, seconds, replace: see `WorkerPool`.

    Raises:
        ValueError: `workers` is negative.
        WorkerError: see `WorkerPool`.
    """
    if workers < 0:
        raise ValueError(f"expected 0 or more worker processes, got {workers}")
    if workers == 0:
        yield from map(function, items)
        return
    with WorkerPool(function, workers, seconds=seconds, replace=replace) as pool:
        yield from pool.map(items, waiting=waiting)


class WorkerPool(Generic[Item, Result]):
    """Processes that apply one function to items.

    Each process works on one item at a time; a thread of this process waits for it. A process that dies or exceeds the
    time limit costs its item alone: a new process takes its place. Processes are started afresh, because a process that
    has used torch's threads cannot be forked safely.

    Args:
        function: is called in the processes, which import it by name.
        workers: number of processes, at least 1.
        seconds: time limit of an item; None sets none.
        replace: makes the result of an item that exceeds the time limit, or kills its process twice, the second time
            while no other item is in work; None raises the error instead.

    Raises:
        WorkerError: by `map`, if a process cannot start; or for an item, if `replace` is None.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        workers: int,
        *,
        seconds: float | None = None,
        replace: Callable[[Item, WorkerError], Result] | None = None,
    ) -> None:
        self._seconds, self._replace = seconds, replace
        self._workers = [_Worker(function) for _ in range(workers)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)
        # Otherwise the first process starts it, which lets interrupts through again.
        resource_tracker.ensure_running()
        self._threads = ThreadPoolExecutor(workers, initializer=_block_interrupts)
        self._permits = threading.Semaphore(workers)
        self._retry = threading.Lock()

    def map(self, items: Sequence[Item], *, waiting: int = 0) -> Iterator[Result]:
        """Results in order. At most `AHEAD * workers + waiting` items are under way or wait to be taken.

        So a slow caller does not fill the memory. A caller that takes many results at a time sets `waiting`, so that
        the workers need not pause meanwhile.
        """
        under_way: deque[Future[Result]] = deque()
        # By number: a sequence need not be iterable.
        for number in range(len(items)):
            if len(under_way) == AHEAD * len(self._workers) + waiting:
                yield under_way.popleft().result()
            under_way.append(self.submit(items[number]))
        while under_way:
            yield under_way.popleft().result()

    def submit(self, item: Item) -> Future[Result]:
        """Return the result of one item, to be waited for."""
        return self._threads.submit(self._apply, item)

    def close(self) -> None:
        """End the processes, whatever they do: within `GRACE` seconds, or by a kill."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            worker.kill(deadline)
        self._threads.shutdown()

    def __enter__(self) -> WorkerPool[Item, Result]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _apply(self, item: Item) -> Result:
        try:
            try:
                with self._permits:
                    return self._call(item)
            except WorkerDied:
                # The system kills a process for the memory that all of them take together.
                with self._alone():
                    return self._call(item)
        except (WorkerDied, WorkerTimeout) as error:
            if self._replace is None:
                raise
            return self._replace(item, error)

    def _call(self, item: Item) -> Result:
        worker = self._idle.get()
        try:
            return worker.call(item, self._seconds)
        finally:
            self._idle.put(worker)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other item is in work, and let none begin meanwhile."""
        with self._retry:
            for _ in self._workers:
                self._permits.acquire()
            try:
                yield
            finally:
                self._permits.release(len(self._workers))


class _Worker:
    """One process, started when it is first needed and after each death."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._closed = False
        self._lock = threading.Lock()

    def call(self, item: Any, seconds: float | None) -> Any:
        """
        Raises:
            WorkerDied, WorkerTimeout: the process died, or took longer than `seconds`.
            WorkerError: the process could not start, or the pool was closed.
        """
        connection, message = self._started(), pickle.dumps(item)
        try:
            connection.send_bytes(message)
            if not connection.poll(seconds):
                self._end(died=False)
                raise WorkerTimeout(f"a worker process took longer than {seconds:g} s")
            answer = connection.recv_bytes()
        except (EOFError, ConnectionError):
            raise WorkerDied(self._end()) from None
        result, error, trace = pickle.loads(answer)
        if error is not None:
            raise error from WorkerError(f"in a worker process:\n{trace}")
        return result

    def _started(self) -> Connection:
        with self._lock:
            if self._closed:
                raise WorkerError("the pool of worker processes was closed")
            if self._connection is not None:
                return self._connection
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_work, args=(there, self._function), daemon=True)
            process.start()
            there.close()
            self._process, self._connection = process, here
        try:
            here.recv_bytes()
        except (EOFError, ConnectionError):
            raise WorkerError(
                f"a worker process could not start ({self._end()}): expected memory for one more process, and in a "
                'script of your own `if __name__ == "__main__":` around its calls; with no workers, all work is done '
                "in one process"
            ) from None
        return here

    def _end(self, *, died: bool = True) -> str:
        """End the process, and return how it ended; the next call starts another."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        if process is None:
            return "closed"
        # A process whose end of the pipe is closed is about to end, and its own exit code tells why.
        if not died:
            process.terminate()
        _wait(process, time.monotonic() + GRACE)
        return _how(process.exitcode or 0)

    def close(self) -> None:
        """Ask the process to end, and let no other begin."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._process.terminate()

    def kill(self, deadline: float) -> None:
        """Kill the process if it still runs at the deadline."""
        process = self._process
        if process is not None:
            _wait(process, deadline)


def _wait(process: multiprocessing.process.BaseProcess, deadline: float) -> None:
    process.join(max(0.0, deadline - time.monotonic()))
    process.kill()
    process.join()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name


def _block_interrupts() -> None:
    """Processes inherit this: Ctrl-C, which reaches the whole process group, must not interrupt their start."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    """Run a worker process: receive items, send results or errors."""
    # The parent alone answers Ctrl-C, and stops the workers by SIGTERM; what they write is cleaned up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The processes are the parallelism; threads in each of them would only compete for the same cores.
    torch.set_num_threads(1)
    with suppress(EOFError, ConnectionError):
        connection.send_bytes(b"ready")
        while True:
            message = connection.recv_bytes()
            try:
                answer = pickle.dumps((function(pickle.loads(message)), None, ""))
            except Exception as error:
                answer = _pickled(error)
            connection.send_bytes(answer)


def _stop(*_: object) -> None:
    # The process ends at once, instead of looking for garbage among all that torch has.
    gc.freeze()
    sys.exit(1)


def _pickled(error: Exception) -> bytes:
    """An error as an answer; one that cannot be sent as it is becomes a RuntimeError of the same message."""
    trace = traceback.format_exc()
    try:
        answer = pickle.dumps((None, error, trace))
        pickle.loads(answer)
        return answer
    except Exception:
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), trace))


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, and they would wait for its next item for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
