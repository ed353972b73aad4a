"""Extraction over a cluster by Ray Data: workers decode and encode, and features come back in order."""

from __future__ import annotations

import functools
import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scav_model.data.decode import Limits
from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.extract import Batches, Encoded, ExtractionError, Prepared, Work, failure, time_limit
from scav_model.data.manifest import Clip
from scav_model.data.workers import WorkerError, WorkerPool
from scav_model.distributed.connection import ClusterError, check_resources, import_ray

# Times that a worker is restarted, and a batch tried again, before that is given up.
RESTARTS = 3


@dataclass(frozen=True)
class OverRay:
    """Executor of `extract` on a Ray cluster, its `spread`; Ray has to be connected (`connect`).

    One worker decodes and encodes a batch of clips. Its features are those of the same batch in one process, and the
    store the same to the byte where the encoder's own digits do not depend on the machine. A worker decodes in a
    process of its own: a clip that hangs or crashes it is skipped. Every machine must see the media files under the
    same paths.

    Attributes:
        workers: actors, each with a CPU and encoders of its own.
        gpus_per_worker: share of a GPU that each has; 0: none.
        encoders: makes the encoders anew in each worker, which must see the files that they are made from; None sends
            the caller's, which those without weights (patches, log_mel) allow.
        clip_timeout: seconds after which a worker gives a clip up; inf: never.
    """

    workers: int
    gpus_per_worker: float = 0.0
    encoders: Callable[[], tuple[VisualEncoder, AudioEncoder]] | None = None
    clip_timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ClusterError(f"expected at least 1 worker over a cluster, got {self.workers}; raise --workers")
        if not self.gpus_per_worker >= 0:
            raise ClusterError(f"expected gpus_per_worker to be 0 or more, got {self.gpus_per_worker}")

    def __call__(self, work: Work, batches: Batches) -> Iterator[list[Encoded | str]]:
        """
        Raises:
            ClusterError: the cluster has no room for so many workers.
            ExtractionError: a worker died, again and again on one batch, or cannot decode.
        """
        ray = import_ray()
        check_resources(self.workers, self.gpus_per_worker)
        if not batches:
            return
        data = _dataset(work, batches, self)
        try:
            for row in data.iter_rows():
                yield pickle.loads(row["result"])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, WorkerError):
                raise ExtractionError(f"{error.cause}; what was done is kept, and the same command goes on") from None
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise ExtractionError(
                "a worker died, out of memory or by a crash in an encoder, and again wherever its clips were tried; "
                "what was done is kept: the same command goes on, with smaller --batch_clips or fewer workers"
            ) from error


def _dataset(work: Work, batches: Batches, spread: OverRay) -> Any:
    # A block for each batch, so that features come back as they are made, and little is done again after a death.
    rows = [{"clips": pickle.dumps(list(batch))} for batch in batches]
    make = spread.encoders or functools.partial(_same, work.visual, work.audio)
    worker: Any = _Worker
    with warnings.catch_warnings():
        # Ray warns of settings of its own, and of `max_restarts`, which has no other place: without it, a file that
        # crashes its decoder would be tried for ever.
        warnings.simplefilter("ignore", DeprecationWarning)
        import ray.data

        # It tells that its progress bars are off; there is one already.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            worker,
            fn_constructor_args=(make, work.frame_rate, work.limits, time_limit(spread.clip_timeout)),
            compute=ray.data.ActorPoolStrategy(size=min(spread.workers, len(rows))),
            num_cpus=1,
            num_gpus=spread.gpus_per_worker,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )


def _same(visual: VisualEncoder, audio: AudioEncoder) -> tuple[VisualEncoder, AudioEncoder]:
    return visual, audio


class _Worker:
    """An actor of Ray Data. Rows hold pickles: Arrow has no type for a clip's two sequences, or its reason."""

    def __init__(
        self,
        encoders: Callable[[], tuple[VisualEncoder, AudioEncoder]],
        frame_rate: float,
        limits: Limits,
        seconds: float | None,
    ) -> None:
        torch.set_num_threads(1)
        self.work = Work(*encoders(), frame_rate, limits)
        # A process of its own decodes: what happens to it is no matter of this one.
        self.decoder: WorkerPool[Clip, Prepared | str] = WorkerPool(
            _ByValue(self.work.prepare), 1, seconds=seconds, replace=failure
        )

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        prepared = list(self.decoder.map(pickle.loads(row["clips"])))
        return {"result": pickle.dumps(self.work.encode(prepared))}


class _ByValue:
    """A function that another process need not be able to import: encoders may be those of the driver's own script."""

    def __init__(self, function: Callable[[Clip], Prepared | str]) -> None:
        self.function = function

    def __call__(self, clip: Clip) -> Prepared | str:
        return self.function(clip)

    def __getstate__(self) -> bytes:
        import ray.cloudpickle

        content: bytes = ray.cloudpickle.dumps(self.function)
        return content

    def __setstate__(self, content: bytes) -> None:
        self.function = pickle.loads(content)
