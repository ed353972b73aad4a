"""A model in training: what a checkpoint holds, and the steps that change it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from scav_model import parallel
from scav_model.config import Config, differences, to_dict
from scav_model.data import Batch, Features
from scav_model.distances import Sequences, retrieval_distance
from scav_model.model import AudioVisualModel
from scav_model.objectives import Objective
from scav_model.progress import Progress
from scav_model.retrieval import encode, evaluate
from scav_model.saved_model import as_config, check_finite_weights, nonfinite, one_line, set_weights
from scav_model.training.encoding import Encoding
from scav_model.training.loading import Loader
from scav_model.training.loggers import Logger
from scav_model.training.metrics import EpochMetrics, check_finite
from scav_model.training.optimizer import learning_rate_factor, make_optimizer, running_mean

# Seconds between two readings of the loss.
READ_EVERY = 0.5


class Run:
    """One process's part of a run; every process has the same weights and takes the same steps.

    What is random is drawn from PyTorch's global generators, of which a checkpoint holds the state, or depends on the
    seed and the position alone.
    """

    def __init__(self, config: Config, features: Features, fabric: Fabric) -> None:
        self.config = config
        self.features = features
        self.device = fabric.device
        self.batch_size = min(config.optim.batch_size, len(features))
        if self.batch_size < parallel.world_size():
            raise ValueError(
                f"expected a clip of every batch for each of {parallel.world_size()} processes, got batches of "
                f"{self.batch_size}; raise optim.batch_size, or start fewer processes"
            )
        self.clips_per_step = self.batch_size * config.optim.accumulate
        self.steps = len(features) // self.clips_per_step  # per epoch
        if self.steps == 0:
            raise ValueError(
                f"expected the clips of one step, optim.batch_size × optim.accumulate = {self.clips_per_step}, "
                f"or more, got {len(features)}; lower optim.accumulate"
            )
        self.epoch = 0  # done
        self.step = 0  # done in this epoch
        self.seconds = 0.0  # of training in this epoch
        self.metrics = EpochMetrics()
        self.history: list[dict[str, Any]] = []
        self.model = AudioVisualModel(config.model).to(self.device)
        self.objective = Objective(config, self.model, features).to(self.device)
        parallel.broadcast(self.model)
        parallel.broadcast(self.objective)
        if parallel.rank():
            # The first process goes on with the generator of the weights, as it does alone.
            torch.manual_seed(int(numpy.random.SeedSequence([config.seed, parallel.rank()]).generate_state(1)[0]))
        self.average = running_mean(self.model, config.optim.ema)
        self.parameters = [*self.model.parameters(), *self.objective.parameters()]
        self.optimizer = make_optimizer(config.optim, self.model, self.objective)
        factor = learning_rate_factor(config.optim, config.optim.epochs * self.steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.loader = Loader(features, self.device)
        self.encoding = Encoding(self.model, fabric, config.compute)
        self.loggers: list[Logger] = []

    @property
    def trained(self) -> AudioVisualModel:
        """The model to search with."""
        return self.model if self.average is None else cast(AudioVisualModel, self.average.module)

    @property
    def steps_done(self) -> int:
        return self.epoch * self.steps + self.step

    def encode(self, batch: Batch) -> tuple[Sequences, Sequences]:
        """Video (B, N, dim) and audio (B, M, dim) of the batch, with gradients."""
        return self.encoding(batch)

    def train_epoch(self, bar: Progress, save: Callable[[], None]) -> dict[str, Any]:
        """Train the rest of this epoch; call `save` where a checkpoint is due within it."""
        bar.set_description(f"epoch {self.epoch + 1}/{self.config.optim.epochs}", refresh=False)
        every = self.config.checkpoints.every
        self.model.train()
        start = last_read = time.perf_counter()
        self.loader.expect(parallel.share(batch) for clips in self.remaining() for batch in self.batches(clips))
        for clips in self.remaining():
            self.metrics.add(self.take_step(clips), clips)
            self.step += 1
            bar.update(len(clips))
            due = every > 0 and self.steps_done % every == 0 and self.step < self.steps
            if due or self.step == self.steps or time.perf_counter() - last_read >= READ_EVERY:
                self.read_losses(bar)
                last_read = time.perf_counter()
            if due:
                self.seconds += time.perf_counter() - start
                save()
                start = last_read = time.perf_counter()
        seconds = self.seconds + time.perf_counter() - start
        record = {"epoch": self.epoch + 1, **self.metrics.means()}
        self.epoch, self.step, self.seconds, self.metrics = self.epoch + 1, 0, 0.0, EpochMetrics()
        return record | {
            "scale": self.objective.contrast.scale.item(),
            "learning_rate": self.schedule.get_last_lr()[0],
            "seconds": seconds,
            "clips_per_second": self.steps * self.clips_per_step / seconds,
        }

    def remaining(self) -> Iterator[list[int]]:
        """The clips of this epoch's steps to come, in an order that depends on the seed and the epoch alone."""
        order = numpy.random.default_rng([self.config.seed, self.epoch]).permutation(len(self.features)).tolist()
        for step in range(self.step, self.steps):
            yield order[step * self.clips_per_step : (step + 1) * self.clips_per_step]

    def batches(self, clips: list[int]) -> list[list[int]]:
        """A step's clips, by the batches whose gradients it accumulates."""
        return [clips[start : start + self.batch_size] for start in range(0, len(clips), self.batch_size)]

    def take_step(self, clips: list[int]) -> dict[str, Tensor]:
        """Take one optimizer step on these clips, of which this process encodes a share; return the mean losses."""
        found: dict[str, Tensor] = {}
        batches = self.batches(clips)
        self.optimizer.zero_grad(set_to_none=True)
        for chosen in batches:
            batch = self.loader.load(parallel.share(chosen))
            losses = self.objective(self.encode, batch)
            (torch.stack(list(losses.values())).sum() / len(batches)).backward()
            for name, loss in losses.items():
                found[name] = found.get(name, 0) + loss.detach() / len(batches)
        parallel.average_gradients(self.parameters)
        if self.config.optim.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.optim.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.objective.after_step(self.model, batch)
        return dict(zip(found, parallel.mean(torch.stack(list(found.values()))), strict=True))

    def read_losses(self, bar: Progress) -> None:
        """Moves the losses of the last steps from the device to the bar and the loggers."""
        read = self.metrics.read()
        for step, (losses, clips) in enumerate(read, start=self.steps_done - len(read) + 1):
            check_finite(losses, step, self.epoch + 1, [self.features.ids[index] for index in clips])
            for logger in self.loggers:
                logger.log({name.replace(" ", "/"): value for name, value in losses.items()}, step)
        if read:
            bar.set_postfix(loss=f"{read[-1][0]['loss']:.3f}", refresh=False)

    def evaluation_due(self) -> bool:
        every = self.config.retrieval.every
        return every > 0 and (self.epoch % every == 0 or self.epoch == self.config.optim.epochs)

    def evaluate(self, features: Features) -> dict[str, float]:
        """Recalls of the first process, which alone searches."""
        found: dict[str, float] = {}
        if parallel.rank() == 0:
            count = min(len(features), self.config.retrieval.clips)
            video, audio = encode(self.trained, features.subset(range(count)), device=self.device)
            rows = evaluate(video, audio, retrieval_distance(self.config), modes=("mean", "sequence"))
            found = {f"R@1 {row['retrieval']} {row['direction']}": row["R@1"] for row in rows}
        for logger in self.loggers:
            logger.log({name.replace(" ", "/"): value for name, value in found.items()}, self.steps_done)
        return parallel.from_first(found)

    def origin(self) -> dict[str, Any]:
        """Values, besides the config, that a checkpoint must share with this run."""
        return {**fingerprint(self.features), "processes": parallel.world_size()}

    def state(self) -> dict[str, Any]:
        """State for a checkpoint. Every process must call this, as each has its own random state.

        Raises:
            RuntimeError: weights are NaN or infinite, which no later step mends.
        """
        for module in {self.model, self.trained}:
            if found := nonfinite(module.state_dict()):
                raise RuntimeError(
                    f"after step {self.steps_done}, {found}; this is not saved: train again with a lower "
                    "optim.learning_rate"
                )
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "config": to_dict(self.config),
            "data": self.origin(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "readings": self.metrics.values,
            "history": self.history,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": parallel.from_all(random),
        }
        if self.average is not None:
            state["average"] = self.average.module.state_dict()
            state["averaged"] = int(self.average.n_averaged)
        return state

    def load_state(self, state: Mapping[str, Any], source: Path) -> None:
        """Continues the run of a checkpoint, which is read from `source`.

        Raises:
            ValueError: it is another run's, or lacks a part of `state`.
        """
        check_parts(state, source)
        found = differences(as_config(state["config"], source), self.config)
        for name, now in self.origin().items():
            if now != state["data"].get(name):
                found.append(f"{name}: checkpoint {state['data'].get(name)!r}, now {now!r}")
        if found:
            raise ValueError("the checkpoint belongs to another run: " + "; ".join(found))
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        modules: dict[str, nn.Module] = {"model": self.model, "objective": self.objective}
        if self.average is not None:
            modules["average"] = self.average.module
        for name, module in modules.items():
            set_weights(module, state.get(name), f"{source} does not hold the {name} of this run")
            check_finite_weights(state[name], f"{source}, {name}")
        try:
            self.metrics = EpochMetrics(state["readings"])
            self.history = state["history"]
            if len(self.history) != self.epoch or not all("seconds" in record for record in self.history):
                raise ValueError(f"expected a record of each of {self.epoch} epochs, got {len(self.history)}")
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            if self.average is not None:
                self.average.n_averaged.fill_(state["averaged"])
            random = state["random"][parallel.rank()]
            torch.set_rng_state(random["cpu"])
            if self.device.type == "cuda" and "cuda" in random:
                torch.cuda.set_rng_state(random["cuda"], self.device)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{source} does not hold the state of this run ({type(error).__name__}: {one_line(error)}); "
                "name another checkpoint, or train again"
            ) from error


# What a checkpoint has besides weights, by type.
PARTS: dict[str, type] = {
    "config": Mapping,
    "data": Mapping,
    "epoch": int,
    "step": int,
    "seconds": float,
    "readings": Mapping,
    "history": list,
    "optimizer": Mapping,
    "schedule": Mapping,
    "random": list,
}


def check_parts(state: Mapping[str, Any], source: Path) -> None:
    for name, kind in PARTS.items():
        if not isinstance(state.get(name), kind):
            found = type(state[name]).__name__ if name in state else "none"
            raise ValueError(
                f"{source}: expected the {name} of a run, of type {kind.__name__}, got {found}; "
                "name another checkpoint, or train again"
            )


def fingerprint(features: Features) -> dict[str, Any]:
    """Tells sets of clips apart by their ids and lengths, without reading the features."""
    digest = hashlib.sha256()
    lengths = zip(features.video_lengths.tolist(), features.audio_lengths.tolist(), strict=True)
    for clip, (video, audio) in zip(features.ids, lengths, strict=True):
        digest.update(f"{clip}\0{video}\0{audio}\n".encode())
    return {
        "training clips": len(features),
        "digest of their ids and lengths": digest.hexdigest()[:16],
    }
