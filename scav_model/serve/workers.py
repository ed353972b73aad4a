"""Worker processes that read and convert media files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from scav_model.data.decode import DecodeError
from scav_model.data.workers import WorkerDied, WorkerError, WorkerPool, WorkerTimeout
from scav_model.serve.errors import BusyError
from scav_model.serve.jobs import Job, do

READERS = 2  # processes
CONVERTING_SECONDS = 300.0


class MediaWorkers:
    """Processes for media files, which may be damaged, slow or hostile.

    Args:
        decode_seconds: that reading a file may take.
    """

    def __init__(self, decode_seconds: float) -> None:
        self._reading: WorkerPool[Job, Any] = WorkerPool(do, READERS, seconds=decode_seconds)
        self._converting: WorkerPool[Job, Any] = WorkerPool(do, 1, seconds=CONVERTING_SECONDS)

    def start(self) -> Future[Any]:
        """Start a process that reads files, so that the first upload need not wait for it."""
        return self._reading.submit((int, ()))

    def close(self) -> None:
        """End the processes, whatever they do."""
        with ThreadPoolExecutor(2) as closing:
            for done in [closing.submit(pool.close) for pool in (self._reading, self._converting)]:
                done.result()

    async def read(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function of `jobs`.

        Raises:
            DecodeError: the file cannot be read; the message says why.
            BusyError: no process can start.
        """
        return await self._result(self._reading, function, *arguments)

    async def convert(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of a function that converts a file, and may take longer; raise as `read` does."""
        return await self._result(self._converting, function, *arguments)

    async def _result(self, pool: WorkerPool[Job, Any], function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.wrap_future(pool.submit((function, arguments)))
        except WorkerTimeout as error:
            raise DecodeError(f"the file takes too long to decode: {error}") from error
        except WorkerDied as error:
            raise DecodeError(f"the file cannot be decoded: {error}") from error
        except WorkerError as error:
            raise BusyError(str(error)) from error
