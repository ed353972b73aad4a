"""Train and search every row, then report. Below `out`:

    reproduce.json                 what everything below was made with
    train-ids.txt, test-ids.txt    the clips, one id a line
    <row>/                         checkpoint.pt, config.yaml, tensorboard/, rows.json
    results.json, results.md, results.png, hybrid.png, report.html

A run is resumed row by row: a row with its rows.json is finished, and a row with a checkpoint continues from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from scav_kernels._version import __version__
from scav_model import config_files, parallel
from scav_model.config import Config
from scav_model.config_files import load
from scav_model.data import Features, open_features
from scav_model.distances import retrieval_distance
from scav_model.doctor import Finding
from scav_model.experiments.folder import prepare_folder, train_once
from scav_model.experiments.reproduce.check import examine
from scav_model.experiments.reproduce.document import document
from scav_model.experiments.reproduce.published import LABELS, published
from scav_model.experiments.reproduce.report import write_report
from scav_model.experiments.tables import Row
from scav_model.retrieval import encode, evaluate
from scav_model.storage.files import FolderInUseError, working_in, write_text
from scav_model.storage.text import printable
from scav_model.training import TrainResult
from scav_model.training.launch import launch
from scav_model.training.run import fingerprint

STAMP = "reproduce.json"
ROWS = "rows.json"
SPLITS = ("train", "test")


def reproduce(
    dataset: Literal["vggsound", "music"],
    *,
    features: Path,
    rows: Sequence[Literal["cav", "scav_euclidean", "scav_dtw", "scav_wasserstein"]] = (
        "cav",
        "scav_euclidean",
        "scav_dtw",
        "scav_wasserstein",
    ),
    out: Path | None = None,
    hybrid_k: Sequence[int] = (10, 50, 100, 500),
    settings: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    check: bool = False,
    resume: bool = False,
) -> None:
    """Train and search every row of the paper's table. Under torchrun, training is shared.

    Args:
        dataset: Data set whose configs are used: vggsound or music.
        features: Folder of the clips' features: a feature store with the splits train and test, or train.safetensors
            and test.safetensors.
        rows: Rows to train: cav, scav_euclidean, scav_dtw, scav_wasserstein.
        out: Folder for results.md, results.json, the plots, the lists of clips and a folder per row; null takes
            runs/reproduce/<dataset>.
        hybrid_k: Clips that hybrid search takes from the pooled ranking, one search for each number.
        settings: Config file laid over every row's config, for example to try all this at a small size; the results
            say so.
        seed: Seed of the weights, of the order of the clips and of dropout.
        check: Check everything that the run needs (lists, features, shapes, values, folder, memory, disk, time),
            print what was found and stop. Nothing is written.

    Raises:
        RuntimeError: the check found problems.
        FileExistsError: `out` is not empty, and this is not to resume.
        FolderInUseError: another process works in `out`.
        ValueError: `out` holds a run of other clips or settings; a row or k that there is not.
    """
    unknown = [row for row in rows if row not in LABELS]
    if unknown or not rows:
        raise ValueError(f"expected rows among {', '.join(LABELS)}, got {', '.join(unknown) or 'none'}")
    if not hybrid_k or min(hybrid_k) < 1:
        raise ValueError(f"hybrid_k must be one or more numbers of clips, at least 1, got {list(hybrid_k)}")
    # In the table's order. All of them are read before the first is trained.
    changes = {} if settings is None else dict(config_files.read(settings))
    out = Path("runs") / "reproduce" / dataset if out is None else out
    configs = {
        row: load(f"{dataset}/{row}", changes, {"seed": seed, "device": device}) for row in LABELS if row in rows
    }
    ks = sorted(set(hybrid_k))

    def settings_of(splits: Mapping[str, Features]) -> dict[str, Any]:
        return {
            "dataset": dataset,
            "version": __version__,
            "seed": seed,
            "hybrid_k": ks,
            "settings": changes,
            "clips": {split: fingerprint(clips) for split, clips in splits.items()},
        }

    if check:
        if torch.distributed.is_torchelastic_launched():
            raise ValueError("expected --check in one process; leave torchrun out, and add it again to train")
        print_findings(examine(dataset, features, configs, out, STAMP, settings_of, hybrid_k=ks, resume=resume))
        return
    splits = {split: open_features(features, split) for split in SPLITS}
    # Under torchrun, there is a first process from here on.
    launch(next(iter(configs.values())))
    stamp = settings_of(splits)
    # The first process looks, and all of them hear what it found.
    with parallel.entered_by_first(folder_of(out, stamp, resume), OSError, FolderInUseError, ValueError):
        if parallel.rank() == 0:
            for split, clips in splits.items():
                write_text(out / f"{split}-ids.txt", "".join(f"{name}\n" for name in clips.ids))
        found = []
        for row, config in configs.items():
            found += train_and_search(dataset, row, config, splits, out / row, ks)
        if parallel.rank() == 0:
            about = stamp | {"features": str(features)}
            searches = write_report(out, about, found)
            write_text(out / "report.html", document(about, configs, splits, searches, out))
            print((out / "results.md").read_text(encoding="utf-8"))


def print_findings(findings: Iterable[Finding]) -> None:
    """Print findings as they come, a line each.

    Raises:
        RuntimeError: some are problems.
    """
    problems = 0
    for finding in findings:
        print(printable(str(finding)), flush=True)
        problems += finding.state == "problem"
    if problems:
        raise RuntimeError(f"found {problems} problem{'s' * (problems > 1)}, listed above")
    print("ready: the same command without --check starts")


@contextmanager
def folder_of(out: Path, stamp: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Hold `out` as the folder of this run.

    Raises:
        FolderInUseError: another process works there.
        FileExistsError, ValueError: it holds something else.
    """
    with working_in(out, "reproduces results"):
        prepare_folder(out, STAMP, stamp, resume=resume, anew="remove it")
        yield


def train_and_search(
    dataset: str, row: str, config: Config, splits: Mapping[str, Features], folder: Path, hybrid_k: Sequence[int]
) -> list[Row]:
    """Return the results of one row, one for each search and direction.

    Under torchrun, the rows of a model that was trained now are in the first process alone.
    """

    def searched(trained: TrainResult) -> list[Row]:
        rows = search(trained, splits["test"], hybrid_k)
        for found in rows:
            value = published(dataset, row, found["retrieval"])
            found |= {"row": row, "train_seconds": trained.seconds, "published R@1": value}
        return rows

    def announce() -> None:
        print(f"{LABELS[row]}: training", flush=True)

    return train_once(folder / ROWS, config, splits["train"], searched, announce) or []


def search(trained: TrainResult, clips: Features, hybrid_k: Sequence[int]) -> list[Row]:
    """Search by mean, by sequence, and by both for each k that is less than the gallery."""
    config = trained.config
    video, audio = encode(trained.model, clips, device=next(trained.model.parameters()).device)
    distance = retrieval_distance(config)
    rows = [found | {"k": None} for found in evaluate(video, audio, distance, modes=("mean", "sequence"))]
    for k in hybrid_k:
        if k < len(clips):
            rows += [found | {"k": k} for found in evaluate(video, audio, distance, hybrid_k=k, modes=("hybrid",))]
    return rows
