"""The demo: render, decode, extract, then train and search with each system, and show the table.

Below `out`, one folder per seed:

    seed-<k>/demo.json          settings that everything below was made with
    seed-<k>/clips/             mp4 files
    seed-<k>/manifest.jsonl
    seed-<k>/features/          the feature store
    seed-<k>/test.ids.txt       clips that the scores are of
    seed-<k>/<model>/           checkpoint.pt, rows.json
    results.json, retrieval.png, alignment.png

Each stage reads only what the one before left on disk, and each file appears whole, so an interrupted demo can go on.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from scav_kernels._version import __version__
from scav_model.checkpoint import load_model
from scav_model.data import FeatureStore
from scav_model.data.decode import decode
from scav_model.data.extract import ExtractionConfig, extract
from scav_model.data.frontends import FramePatchConfig, LogMel, LogMelConfig
from scav_model.data.ids import write_ids
from scav_model.data.manifest import Clip, read_manifest, write_manifest
from scav_model.data.pictures import Square
from scav_model.data.store.header import HEADER, StoreHeader
from scav_model.data.workers import parallel_map
from scav_model.distances import retrieval_distance
from scav_model.encoders.plain import FramePatchEncoder, LogMelEncoder
from scav_model.experiments.demo.plots import plot_alignment, plot_retrieval
from scav_model.experiments.demo.render import render
from scav_model.experiments.demo.results import KEYS, MEASURES, average, table
from scav_model.experiments.demo.scene import SceneConfig, make_scene
from scav_model.experiments.demo.systems import FULL, QUICK, SYSTEMS, DemoSize, System
from scav_model.experiments.folder import prepare_folder, train_once
from scav_model.experiments.tables import Row, write_json
from scav_model.retrieval import encode, evaluate
from scav_model.storage.files import remove_partial, working_in
from scav_model.training import CHECKPOINT, TrainResult

STAMP = "demo.json"
ROWS = "rows.json"
FRAMES, SPECTRA = FramePatchConfig(), LogMelConfig()
FRAME_RATE = 12.5  # frames/s: four seconds have the paper's 50 video steps, as they have its 62 audio steps


def run_demo(
    out: Path = Path("runs/demo"),
    seeds: int = 1,
    quick: bool = False,
    seed: int = 0,
    resume: bool = False,
    threads: int | None = None,
) -> None:
    """Run the demo, from rendering to the table; write results.json, retrieval.png and alignment.png in `out`.

    Args:
        out: Folder for clips, features, checkpoints, results.json, retrieval.png and alignment.png.
        seeds: Number of repetitions, each with clips and weights of its own; the table shows mean and deviation.
        quick: Fewer clips and epochs: shows in about two minutes that everything runs, not how well.
        seed: Seed of the first repetition; the others count up from it.
        threads: CPU threads to train with and processes to render and decode with; null is one per core.
    """
    if seeds < 1:
        raise ValueError(f"expected at least 1 seed, got {seeds}")
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least 1 thread, got {threads}")
    size = QUICK if quick else FULL
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        # One worker would be this process and a hand-over.
        workers = 0 if torch.get_num_threads() == 1 else torch.get_num_threads()
        with working_in(Path(out), "runs a demo"):
            _run(Path(out), range(seed, seed + seeds), size, resume, workers)
    finally:
        torch.set_num_threads(before)


def _run(out: Path, seeds: Sequence[int], size: DemoSize, resume: bool, workers: int) -> None:
    started = time.perf_counter()
    runs = []
    for seed in seeds:
        folder = out / f"seed-{seed}"
        if not resume and (folder / STAMP).exists():
            shutil.rmtree(folder)
        settings = {"version": __version__, "seed": seed, **asdict(size)}
        prepare_folder(folder, STAMP, settings, resume=resume, anew="start anew without resuming")
        if len(seeds) > 1:
            print(f"seed {seed}", flush=True)
        manifest = _render_clips(folder, seed, size, workers)
        features = _extract_features(folder, manifest, workers)
        runs.append([row for system in SYSTEMS for row in _train_and_search(folder, features, system, size, seed)])
    labels = {system.name: system.label for system in SYSTEMS}
    write_json(out / "results.json", average(runs)[0])
    plot_retrieval(runs, labels, out / "retrieval.png")
    _plot_first_pair(out / f"seed-{seeds[0]}", out / "alignment.png")
    print(table(runs, labels))
    minutes = (time.perf_counter() - started) / 60
    print(f"{minutes:.1f} min; {out}/results.json, retrieval.png and alignment.png written")


def _render_clips(folder: Path, seed: int, size: DemoSize, workers: int) -> Path:
    clips = [
        Clip(f"{split}-{index:05d}", folder / "clips" / split / f"{index:05d}.mp4", split)
        for split, count in (("train", size.train_clips), ("test", size.test_clips))
        for index in range(count)
    ]
    for split in ("train", "test"):
        (folder / "clips" / split).mkdir(parents=True, exist_ok=True)
        remove_partial(folder / "clips" / split)
    missing = [clip for clip in clips if not clip.path.exists()]
    if missing:
        work = functools.partial(_render_clip, seed=seed, scene=size.scene)
        for _ in parallel_map(work, missing, workers=workers, description="clips"):
            pass
    manifest = folder / "manifest.jsonl"
    write_manifest(manifest, clips)
    return manifest


def _render_clip(clip: Clip, seed: int, scene: SceneConfig) -> None:
    render(make_scene(seed, clip.split, int(clip.path.stem), scene), clip.path)


def _extract_features(folder: Path, manifest: Path, workers: int) -> Path:
    features = folder / "features"
    clips = read_manifest(manifest)
    if not ((features / HEADER).exists() and StoreHeader.read(features).clips == len(clips)):
        config = ExtractionConfig(frame_rate=FRAME_RATE, workers=workers, max_bad_share=0.0)
        extract(clips, features, FramePatchEncoder(FRAMES), LogMelEncoder(SPECTRA), config)
    write_ids(folder / "test.ids.txt", FeatureStore.open(features).select("test").ids)
    return features


def _train_and_search(folder: Path, features: Path, system: System, size: DemoSize, seed: int) -> list[Row]:
    config = system.config(size, seed)
    store = FeatureStore.open(features)

    def search(trained: TrainResult) -> list[Row]:
        video, audio = encode(trained.model, store.select("test"))
        found = evaluate(video, audio, retrieval_distance(config), hybrid_k=config.retrieval.hybrid_k)
        rows = [{"model": system.name, "train_seconds": trained.seconds, **row} for row in found]
        return [{key: row[key] for key in (*KEYS, *MEASURES)} for row in rows]

    def announce() -> None:
        print(f"{system.label}: training", flush=True)

    return train_once(folder / system.name / ROWS, config, store.select("train"), search, announce) or []


def _plot_first_pair(folder: Path, path: Path) -> None:
    """The first held-out clip, as SCAV-DTW sees it."""
    system = next(system for system in SYSTEMS if system.name == "scav_dtw")
    model, _ = load_model(folder / system.name / CHECKPOINT)
    first = FeatureStore.open(folder / "features").select("test").subset([0])
    video, audio = encode(model, first)
    clip = next(clip for clip in read_manifest(folder / "manifest.jsonl") if clip.id == first.ids[0])
    picture = Square(FRAMES.frame_size)
    media = decode(clip.path, frame_rate=FRAME_RATE, picture=picture, sample_rate=SPECTRA.sample_rate)
    mels = LogMel(SPECTRA)(media.audio)
    plot_alignment(
        video.steps[0],
        audio.steps[0],
        media.frames,
        mels.view(-1, SPECTRA.mels),
        frame_rate=FRAME_RATE,
        seconds=len(mels) / SPECTRA.step_rate,
        title=f"{system.label}: {clip.id}, its video against its own sound",
        path=path,
    )
