"""The commands of `scav probe`: `temporal`, `ablation`, `efficiency`, `compare`. PyTorch is imported when one runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from scav_model.config import Option

METRICS = ("pooled_cosine", "interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn")


def temporal(
    checkpoint: Path,
    features: Path,
    out: Path = Path("runs/temporal"),
    metrics: Sequence[str] = METRICS,
    options: dict[str, dict[str, Option]] | None = None,
    transformations: Sequence[Literal["shift", "roll", "crop", "warp", "reverse", "permute"]] = (
        "shift",
        "roll",
        "crop",
        "warp",
        "reverse",
        "permute",
    ),
    strengths: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
    side: Literal["video", "audio"] = "video",
    where: Literal["features", "encoded"] = "features",
    seed: int = 0,
    clips: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Shifts, rolls, crops, warps, reverses and permutes test clips in time: recall against the strength, by metric.

    Args:
        out: Folder for results.json (written after every cell), table.md and recall.png.
        options: Keyword arguments by metric, {soft_dtw: {gamma: 0.1}}; without any, a metric takes the checkpoint's.
        transformations: What is done to the clips' time; scav_model.experiments.probes.transforms defines each.
        strengths: How much of it, from 0 (nothing) to 1; 0 is always among them.
        side: Modality whose clips are transformed, all of them; the other stays as it is.
        where: Transform the features that the encoder reads, or the encoded steps.
        seed: Seed of what is random in a transformation, clip by clip.
        resume: Keep the finished cells of an earlier run with the same settings; metrics, strengths may be added.
    """
    from scav_model.experiments.probes.experiment import Experiment
    from scav_model.experiments.probes.temporal import run_temporal

    run_temporal(
        Experiment.load(checkpoint, features, clips, batch_size, device),
        metrics=metrics,
        options=options or {},
        transformations=transformations,
        strengths=strengths,
        side=side,
        where=where,
        seed=seed,
        out=out,
        resume=resume,
        overwrite=overwrite,
    )
    _report(out)


def ablation(
    checkpoint: Path,
    features: Path,
    out: Path = Path("runs/ablation"),
    metrics: Sequence[str] = METRICS,
    options: dict[str, dict[str, Option]] | None = None,
    lengths: Sequence[float] = (1.0, 0.5, 0.25),
    factors: Sequence[int] = (1, 2, 4),
    resample: Sequence[Literal["x", "y", "shorter"]] = ("x", "y", "shorter"),
    where: Sequence[Literal["features", "encoded"]] = ("encoded", "features"),
    reduction: Literal["average", "subsample"] = "average",
    coarsen: Literal["both", "video", "audio"] = "both",
    clips: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Recall by distance, sequence length, resolution and interpolation direction, of one model without training.

    Args:
        out: Folder for results.json (written after every cell), table.md and recall.png.
        options: Keyword arguments by metric, {soft_dtw: {gamma: 0.1}}; without any, a metric takes the checkpoint's.
        lengths: Shares of each clip to keep, from its start, on both sides; above 0, up to 1.
        factors: How many steps in a row become one; 2 halves the steps per second.
        resample: Side that interpolated_euclidean resamples to the other: x (video), y (audio) or the shorter.
        where: Change the features that the encoder reads, the encoded steps, or each in turn.
        reduction: What steps become one by: their mean, or the first of them.
        coarsen: Modality whose resolution is lowered.
        resume: Keep the finished cells of an earlier run with the same settings; metrics, lengths may be added.
    """
    from scav_model.experiments.probes.ablation import run_ablation
    from scav_model.experiments.probes.experiment import Experiment

    run_ablation(
        Experiment.load(checkpoint, features, clips, batch_size, device),
        metrics=metrics,
        options=options or {},
        lengths=lengths,
        factors=factors,
        resample=resample,
        where=where,
        reduction=reduction,
        coarsen_sides=coarsen,
        out=out,
        resume=resume,
        overwrite=overwrite,
    )
    _report(out)


def efficiency(
    checkpoint: Path,
    features: Path,
    out: Path = Path("runs/efficiency"),
    candidates: Sequence[int] = (10, 20, 50, 100, 200, 500),
    queries: int | None = None,
    repeats: int = 5,
    seed: int = 0,
    clips: int | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    overwrite: bool = False,
) -> None:
    """Recall against time and pairs compared: by mean, hybrid over its candidates, exact with bounds and without.

    Args:
        checkpoint: The model, which is searched by its own distance: a run's folder, its checkpoint.pt, a folder that
            save_pretrained wrote, or owner/name on the Hub.
        features: Gallery: a feature file (safetensors), a feature store, or STORE:SPLIT; held in memory, encoded.
        out: Folder for results.json (with every time that was measured), table.md and curve.png.
        candidates: Numbers of clips that hybrid takes from the pooled ranking, at least 10.
        queries: Clips to search with, drawn at random; null takes all.
        repeats: Times that each search is timed; the median counts.
        clips: Clips to search among, the first of the file; null takes all.
    """
    from scav_model.experiments.probes.efficiency import run_efficiency
    from scav_model.experiments.probes.experiment import Experiment

    run_efficiency(
        Experiment.load(checkpoint, features, clips, batch_size, device),
        candidates=candidates,
        queries=queries,
        repeats=repeats,
        seed=seed,
        out=out,
        overwrite=overwrite,
    )
    _report(out, "curve.png")


def compare(
    results: dict[str, Path],
    metric: str | None = None,
    out: Path = Path("runs/temporal.png"),
) -> None:
    """Draws finished temporal experiments of several models into one picture.

    Args:
        results: results.json of each model's `scav probe temporal`, by the label to show: --results.CAV FILE.
        metric: Distance to show all models by; null takes each model's own, as it was trained or is set to search.
        out: File of the picture (PNG).
    """
    from scav_model.experiments.probes.compare import run_compare

    run_compare(results, metric, out)
    print(f"{out} written")


def _report(out: Path, picture: str = "recall.png") -> None:
    print((out / "table.md").read_text(encoding="utf-8"), end="")
    print(f"{out}/results.json, table.md and {picture} written")
