"""Extraction over a cluster by Ray Data: workers decode and encode, and features come back in order."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scav_model.cluster.connection import check_resources, import_ray
from scav_model.data.extract import Batches, Encoded, ExtractionError, Work

# Times that a worker is restarted, and a batch tried again, before that is given up.
RESTARTS = 3


@dataclass(frozen=True)
class OverRay:
    """Who does the work of `extract`, as its `spread`: Ray has to be connected (`connect`).

    A batch of clips is decoded and encoded by one worker, in one place: its features are those of the same batch in
    one process, and the store the same to the byte where the encoder's own digits do not depend on the machine. Every
    machine must see the media files under the same paths.

    Attributes:
        workers: actors, each with a CPU and the encoders' weights of its own.
        gpus_per_worker: share of a GPU that each has; 0: none.
    """

    workers: int
    gpus_per_worker: float = 0.0

    def __call__(self, work: Work, batches: Batches) -> Iterator[list[Encoded | str]]:
        """
        Raises:
            ClusterError: the cluster has no room for so many workers.
            ExtractionError: a worker died, again and again on one batch.
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
            raise error.cause from None
        except ray.exceptions.RayActorError as error:
            raise ExtractionError(
                "a worker died, out of memory or by a crash in a decoder, and again wherever its clips were tried; "
                "what was done is kept: the same command goes on, and without --ray and with no workers meets the "
                "file in this process"
            ) from error


def _dataset(work: Work, batches: Batches, spread: OverRay) -> Any:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block for each batch, so that features come back as they are made, and little is done again after a death.
    rows = [{"clips": pickle.dumps(list(batch))} for batch in batches]
    worker: Any = _Worker
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        worker,
        fn_constructor_args=(ray.put(work),),
        compute=ray.data.ActorPoolStrategy(size=min(spread.workers, len(rows))),
        num_cpus=1,
        num_gpus=spread.gpus_per_worker,
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
    )


class _Worker:
    """An actor of Ray Data. Rows hold pickles: Arrow has no type for a clip's two sequences, or its reason."""

    def __init__(self, work: Any) -> None:
        import ray

        torch.set_num_threads(1)
        self.work: Work = ray.get(work) if isinstance(work, ray.ObjectRef) else work

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        prepared = [self.work.prepare(clip) for clip in pickle.loads(row["clips"])]
        return {"result": pickle.dumps(self.work.encode(prepared))}
