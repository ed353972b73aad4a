"""`train(config, features)`: a whole run, from its first step or from where it was stopped."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from scav_model import checkpoint, parallel
from scav_model.config import Config, to_dict
from scav_model.data import Features, FeatureStore
from scav_model.data.describe import describe_features
from scav_model.distances import retrieval_distance
from scav_model.model import AudioVisualModel
from scav_model.objectives import Objective
from scav_model.progress import Progress
from scav_model.storage.files import FolderInUseError, working_in, write_text
from scav_model.training.checkpoints import CONFIG, Checkpoints
from scav_model.training.launch import launch, numerics
from scav_model.training.loggers import open_loggers
from scav_model.training.run import Run


@dataclass
class TrainResult:
    """A trained model and how it got there."""

    # The running mean of the weights, where the config asks for one.
    model: AudioVisualModel
    objective: Objective
    config: Config
    # One dict per epoch: epoch (from 1), loss (nats, mean over its steps; where it is a sum, each part too, as "loss
    # <name>"), scale, learning_rate (of its last step), seconds (of training, without evaluation), clips_per_second (of
    # all processes) and, where evaluated, "R@1 <retrieval> <direction>".
    history: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Wall-clock time of all training steps, those before a resumption included."""
        return sum(record["seconds"] for record in self.history)


def train(
    config: Config,
    train_features: Features,
    eval_features: Features | None = None,
    *,
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> TrainResult:
    """Trains from scratch, or from the last checkpoint in `out` where `resume`; the outcome is the same.

    Args:
        config: Settings; sizes left open are taken from `train_features`.
        train_features: Clips to contrast.
        eval_features: Clips to search every `config.retrieval.every` epochs; None evaluates never.
        out: Folder for checkpoint.pt (after every epoch, and as `config.checkpoints` says), config.yaml and
            tensorboard/; None writes nothing. One run at a time: a second one in the folder is a FolderInUseError.
        resume: Continue the run in `out`, from its start where it was stopped before its first checkpoint. A
            checkpoint of another config, other clips or another number of processes is a ValueError.
        overwrite: Start anew although `out` holds a checkpoint.
        progress: Show loss and clips per second, as a bar or in lines, and a line per epoch.

    Under torchrun the processes share every batch, and losses and weights are those of one process up to rounding and
    dropout. The first one writes; all of them read `out`.

    On a CPU, a resumed run ends with the same bits as an uninterrupted one, given the same number of threads. The
    global random state is left as it was.
    """
    config = with_input_sizes(config, train_features)
    # A bad metric shows now, not at the first evaluation.
    retrieval_distance(config)
    if len(train_features) < 2:
        raise ValueError(f"expected at least 2 clips to contrast, got {len(train_features)}")
    if eval_features is not None and not len(eval_features):
        raise ValueError("expected at least one clip to evaluate on, got none; pass None to leave evaluation out")
    if config.checkpoints.best is not None and (eval_features is None or config.retrieval.every == 0):
        raise ValueError("checkpoints.best needs clips to evaluate on, and retrieval.every of at least 1")
    checkpoints = None if out is None else Checkpoints(out, config.checkpoints)
    if resume and checkpoints is None:
        raise ValueError("resume needs the folder of the run, got out=None")
    if checkpoints is not None:
        checkpoints.check(resume=resume, overwrite=overwrite)
    fabric = launch(config)
    first = parallel.rank() == 0
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), numerics(config.compute), ExitStack() as stack:
        torch.manual_seed(config.seed)
        run = Run(config, train_features, fabric)
        stack.callback(run.loader.close)
        if checkpoints is not None:
            held = working_in(checkpoints.folder, "trains")
            stack.enter_context(parallel.entered_by_first(held, OSError, FolderInUseError))
            # Another run may have ended there meanwhile.
            checkpoints.check(resume=resume, overwrite=overwrite)
            if resume and checkpoints.path.exists():
                run.load_state(checkpoint.load(checkpoints.path, "cpu"), checkpoints.path)
        # Nobody writes before all have read.
        fabric.barrier()
        if out is not None and checkpoints is not None and first:
            write_text(out / CONFIG, yaml.safe_dump(to_dict(config), sort_keys=False))
            if resume and run.step == 0:
                checkpoints.retain(run.history)
            if run.epoch < config.optim.epochs:
                for logger in open_loggers(config, out, run.steps_done + 1):
                    stack.callback(logger.close)
                    run.loggers.append(logger)

        def save() -> None:
            state = run.state()
            if checkpoints is not None and first:
                checkpoints.save(state)

        bar = Progress(
            total=config.optim.epochs * run.steps * run.clips_per_step,
            initial=run.steps_done * run.clips_per_step,
            unit="clip",
            disable=not (progress and first),
        )
        stack.callback(bar.close)
        while run.epoch < config.optim.epochs:
            record = run.train_epoch(bar, save)
            if eval_features is not None and run.evaluation_due():
                record |= run.evaluate(eval_features)
            run.history.append(record)
            save()
            if progress and first:
                bar.write(describe(record, config.optim.epochs), file=sys.stderr)
        # Whoever reads the last checkpoint next finds it written.
        fabric.barrier()
    return TrainResult(run.trained.eval(), run.objective, config, run.history)


def with_input_sizes(config: Config, features: Features) -> Config:
    """`config` with the features' sizes where it leaves them open; a ValueError where it says otherwise.

    Of a feature store it also gets the front ends, so that the model can encode media files.
    """
    model = replace(config.model, visual_input=features.video_dim, audio_input=features.audio_dim)
    if isinstance(features, FeatureStore):
        described = describe_features(features)
        model = replace(model, visual_front_end=described["video"], audio_front_end=described["audio"])
    for name in ("visual_input", "audio_input"):
        wanted, size = getattr(config.model, name), getattr(model, name)
        if wanted not in (None, size):
            raise ValueError(f"model.{name} is {wanted}, but the features have {size} per step; leave it out to adapt")
    return replace(config, model=model)


def describe(record: dict[str, Any], epochs: int) -> str:
    parts = "".join(f", {name.removeprefix('loss ')} {x:.4f}" for name, x in record.items() if name.startswith("loss "))
    found = "".join(f", {name} {value:.1f} %" for name, value in record.items() if name.startswith("R@1"))
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.4f}{parts}, scale {record['scale']:.2f}, "
        f"{record['clips_per_second']:.0f} clips/s{found}"
    )
