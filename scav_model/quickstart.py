"""The first day: from a folder of media files to a search on a page. Below `out`:

    features/     features of the files
    run/          the small model that was trained on them; none with a checkpoint
    clips.index/  the index
    first.html    the answer to the first search

Every step resumes what an earlier call left.
"""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scav_model.config import Config
from scav_model.config_files import load
from scav_model.data import FeatureStore
from scav_model.data.datasets import clips_of
from scav_model.data.decode import DecodeError, media_seconds
from scav_model.data.describe import describe_features
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.manifest import Clip
from scav_model.data.store.header import HEADER
from scav_model.distances import Sequences
from scav_model.encoders import EncoderError
from scav_model.encoders.described import described_encoder
from scav_model.front_ends import FIELDS, OPTIONS
from scav_model.index.build import add_features, check_features, open_writer
from scav_model.index.index import IndexReader
from scav_model.index.model import header_for
from scav_model.index.page import as_html
from scav_model.index.queries import queries_by_id
from scav_model.index.search import search
from scav_model.losses import ContrastiveLoss
from scav_model.model import AudioVisualModel
from scav_model.storage.checkpoint_file import load as load_checkpoint
from scav_model.storage.files import make_folder, working_in, write_text
from scav_model.training import CHECKPOINT, train

CONFIG = "small"
PLAIN = {"video": "patches", "audio": "log_mel"}  # front ends that need no download
FRAME_RATE = 5.0  # frames/s
# Clips below which training teaches next to nothing.
FEW_CLIPS = 200
# Parameters of a model that a CPU trains or applies slowly, such as the paper's.
LARGE = 10_000_000
# Seconds of media that one core decodes, and makes patches and log-mel spectra of, in a second; CLIP and BEATs are
# slower.
REAL_TIMES = 25.0
STARTING = 5.0  # seconds until workers decode


@dataclass(frozen=True)
class Plan:
    """The steps of a quickstart, and the seconds that they take."""

    clips: list[Clip]
    media_seconds: float
    encoders: tuple[Any, Any]
    frame_rate: float
    config: Config | None  # of the model to be trained; None with a checkpoint
    extracting: float
    training: float


def quickstart(
    folder: Path,
    *,
    out: Path = Path("runs/quickstart"),
    visual: str | None = None,
    audio: str | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    workers: int = 2,
) -> None:
    """Make a folder of videos searchable: extract features, train a small model, build an index, search it once.

    Args:
        folder: Folder of media files, [SPLIT/][LABEL/]NAME.mp4, or a manifest (JSON Lines).
        out: Folder for features, run, index and page; the same command goes on where it was stopped.
        visual: Front end of the pictures, as scav extract takes it; null takes the checkpoint's, or patches, which
            needs no download.
        audio: Front end of the sound, in the same way; null takes the checkpoint's, or log_mel.
        checkpoint: A model to use, so that none is trained: a run's folder, its checkpoint.pt, a folder that
            save_pretrained wrote, or owner/name on the Hub.
        workers: Processes that decode ahead of the encoders; 0 decodes in this one.
    """
    if checkpoint is None and is_trained(out / "run"):
        # Of an earlier call; the folder may have other files by now.
        checkpoint = out / "run"
    model = None if checkpoint is None else AudioVisualModel.from_pretrained(checkpoint, device=device)
    plan = make_plan(folder, out / "features", model, visual, audio, device, workers)
    print("\n".join([*describe(plan, folder, out, checkpoint), *warnings(plan, model, device)]), flush=True)
    with working_in(out, "makes a folder of videos searchable"):
        extraction = ExtractionConfig(frame_rate=plan.frame_rate, workers=workers, max_bad_share=1.0)
        done = extract(plan.clips, out / "features", *plan.encoders, extraction)
        print(f"{out / 'features'}: {done.summary()}", flush=True)
        features = FeatureStore.open(out / "features")
        if plan.config is not None:
            checkpoint = out / "run"
            resume = (checkpoint / CHECKPOINT).exists()
            train(plan.config, features, out=checkpoint, resume=resume)
            model = AudioVisualModel.from_pretrained(checkpoint, device=device)
        assert model is not None, "it was loaded or trained"
        assert checkpoint is not None, "it was named or written"
        index = build(out / "clips.index", checkpoint, model, features, device)
        asked = next((clip.id for clip in plan.clips if clip.id in index.numbers), index.id(0))
        page = first_search(index, asked, out / "first.html")
    asked_file = next((clip.path for clip in plan.clips if clip.id == asked), plan.clips[0].path)
    print(f"{page}: the sounds that fit {asked}; open it in a browser")
    print("\n".join(next_commands(folder, out, asked_file)))


def is_trained(run: Path) -> bool:
    """Return whether a run's last epoch is done."""
    if not (run / CHECKPOINT).exists():
        return False
    state = load_checkpoint(run / CHECKPOINT)
    return state.get("epoch") == state.get("config", {}).get("optim", {}).get("epochs", 0)


def make_plan(
    folder: Path,
    features: Path,
    model: AudioVisualModel | None,
    visual: str | None,
    audio: str | None,
    device: str,
    workers: int,
) -> Plan:
    clips, _ = clips_of(folder)
    if (features / HEADER).is_file():
        clips = with_known_ids(clips, FeatureStore.open(features))
    if len(clips) < 2:
        raise ValueError(f"expected at least 2 media files in {folder}, got {len(clips)}")
    seconds = sum(map(clip_seconds, clips))
    encoders = front_end("video", visual, model, device), front_end("audio", audio, model, device)
    rate = FRAME_RATE
    if model is not None and model.config.visual_front_end is not None:
        rate = model.config.visual_front_end["rate_hz"] or rate
    cores = max(1, min(workers, os.cpu_count() or 1))
    config = None if model is not None else load(CONFIG, {"device": device})
    training = 0.0 if config is None else training_seconds(config, encoders, len(clips), seconds / len(clips), rate)
    return Plan(clips, seconds, encoders, rate, config, STARTING + seconds / REAL_TIMES / cores, training)


def with_known_ids(clips: Sequence[Clip], features: FeatureStore) -> list[Clip]:
    """Return clips with the ids that their files have in a store.

    A file b.mp4 is the clip b, until b.mov comes beside it: then their ids are b.mp4 and b.mov, and b would come twice.
    """
    known = {path.resolve(): name for name, path in zip(features.ids, features.paths, strict=True) if path is not None}
    return [replace(clip, id=known.get(Path(clip.path).resolve(), clip.id)) for clip in clips]


def front_end(side: str, spec: str | None, model: AudioVisualModel | None, device: str) -> Any:
    """Return the front end of that name; without one the model's, and without a model one that needs no download."""
    remembered = None if model is None else getattr(model.config, FIELDS[side])
    if spec is None and model is None:
        spec = PLAIN[side]
    try:
        return described_encoder(remembered or {}, side, spec, device, owner="checkpoint")
    except EncoderError as error:
        if spec is not None:
            raise
        raise EncoderError(f"{error}; name it with --{OPTIONS[side]}, as scav extract takes it") from error


def clip_seconds(clip: Clip) -> float:
    if clip.duration is not None:
        return clip.duration
    try:
        return media_seconds(clip.path) - clip.start
    except (DecodeError, OSError):
        # Extraction says what is wrong with the file.
        return 0.0


def training_seconds(config: Config, encoders: Sequence[Any], clips: int, seconds: float, rate: float) -> float:
    """Estimate the time of training, from a step on random features of the size of the clips'."""
    batch = min(config.optim.batch_size, clips)
    sides = [
        torch.randn(batch, max(1, round(seconds * hertz)), encoder.dim)
        for encoder, hertz in zip(encoders, (rate, encoders[1].rate_hz), strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        model, loss = AudioVisualModel(sized(config, encoders).model), ContrastiveLoss(config.loss)
    lengths = [torch.full((batch,), side.shape[1]) for side in sides]
    took = math.inf
    for _ in range(3):  # The first step is a warm-up, and any may be held up on a busy machine.
        started = time.perf_counter()
        loss(*map(Sequences, model(*sides, *lengths), lengths)).backward()
        took = min(took, time.perf_counter() - started)
    return took * config.optim.epochs * (clips // batch)


def sized(config: Config, encoders: Sequence[Any]) -> Config:
    """Return the config with the sizes of the features."""
    return replace(config, model=replace(config.model, visual_input=encoders[0].dim, audio_input=encoders[1].dim))


def describe(plan: Plan, folder: Path, out: Path, checkpoint: Path | None) -> list[str]:
    """Return what will be done and how long it takes, a line each."""
    minutes = plan.media_seconds / 60
    visual, audio = (encoder.describe()["encoder"] for encoder in plan.encoders)
    lines = [
        f"{folder}: {len(plan.clips)} clips, {minutes:.1f} minutes of media",
        f"1. features      {out / 'features'}: {visual} and {audio}, about {span(plan.extracting)}",
    ]
    if plan.config is None:
        trained = "trained already; delete it to train anew" if checkpoint == out / "run" else "nothing to train"
        lines.append(f"2. model         {checkpoint}: {trained}")
    else:
        size = parameters(AudioVisualModel(sized(plan.config, plan.encoders).model))
        epochs = plan.config.optim.epochs
        lines.append(
            f"2. training      {out / 'run'}: config {CONFIG}, {size / 1e6:.1f} million parameters, {epochs} epochs, "
            f"about {span(plan.training)}"
        )
    return [
        *lines,
        f"3. index         {out / 'clips.index'}: seconds",
        f"4. first search  {out / 'first.html'}",
        f"About {span(plan.extracting + plan.training)} in all. Ctrl-C stops it, and the same command goes on.",
    ]


def warnings(plan: Plan, model: AudioVisualModel | None, device: str) -> list[str]:
    found = []
    if plan.config is not None and len(plan.clips) < FEW_CLIPS:
        found.append(
            f"warning: {len(plan.clips)} clips are too few to learn from; the answers show how it works, not how well"
        )
    if model is not None and parameters(model) >= LARGE and device == "cpu":
        found.append(
            f"warning: the model has {parameters(model) / 1e6:.0f} million parameters, which a CPU applies slowly; "
            "--device cuda takes a GPU"
        )
    return found


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def span(seconds: float) -> str:
    """Return a duration in words: 40 seconds, 12 minutes, 1.5 hours."""
    if seconds < 90:
        return f"{max(2, round(seconds))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def build(folder: Path, checkpoint: Path, model: AudioVisualModel, features: FeatureStore, device: str) -> IndexReader:
    """Return the index of all clips, built anew or resumed."""
    assert model.loaded_from is not None, "from_pretrained made it"
    described = describe_features(features)
    with open_writer(folder, header_for(checkpoint, model, model.loaded_from.config, described)) as writer:
        check_features(writer.header, described)
        add_features(writer, model, features, device=device, skip_bad=True)
    return IndexReader.open(folder)


def first_search(index: IndexReader, asked: str, page: Path) -> Path:
    """Search the sounds by a clip's video; write the page."""
    answer = search(index, queries_by_id(index, [asked], "video"), k=10)
    make_folder(page.parent)
    write_text(page, as_html(index, answer, page.parent).rstrip("\n") + "\n")
    return page


def next_commands(folder: Path, out: Path, clip: Path) -> list[str]:
    """Return commands to go on with, their paths filled in."""
    media, file, index, features, longer, better = (
        shlex.quote(str(path))
        for path in (folder, clip, *(out / name for name in ("clips.index", "features", "longer", "better-features")))
    )
    return [
        "next:",
        f"  scav serve {index}    # search in the browser; pip install 'scav-kernels[model,serve]'",
        f"  scav search {index} {file} --output found.html    # the sounds that fit a video, as a page",
        f"  scav search {index} {file} --side audio           # the videos that fit its sound",
        f"  scav index info {index}",
        f"  scav train --config {CONFIG} --train-features {features} --out {longer} --epochs 100    # train longer",
        "for results that count, features of CLIP and BEATs, on a GPU:",
        f"  scav extract {media} --out {better} --device cuda --visual clip:ViT-L-14-quickgelu:openai "
        "--audio beats:BEATs_iter3_plus_AS2M.pt",
    ]
