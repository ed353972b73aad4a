"""Synchronization: the offset between a clip's picture and its sound, from distances between their sequences.

A window of the picture is compared with windows of the sound that begin earlier and later. The offset is that of the
nearest one. All windows are equally long and are encoded by themselves, so that neither length nor padding tells.

In a clip of T seconds the windows last W = T − 2 R, for offsets up to R. The sound is searched from its beginning to
its end; the picture's window begins at R + o, with an offset o that is drawn for each clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scav_model.config import Config
from scav_model.data import FeatureStore
from scav_model.distances import POOLED_COSINE, Distance, Sequences, retrieval_distance
from scav_model.experiments.downstream.models import FEATURES, KEYS, Comparison
from scav_model.experiments.downstream.results import write_rows
from scav_model.experiments.probes.results import Results
from scav_model.experiments.tables import Row
from scav_model.model import AudioVisualModel
from scav_model.progress import Progress
from scav_model.storage.files import working_in

# Seconds: an offset that is found within this counts as right (the measure of generated sound).
TOLERANCE = 0.2


@torch.no_grad()
def run_sync(
    comparison: Comparison,
    *,
    split: str = "long",
    clips: int = 128,
    reach: float = 2.0,
    displaced: bool = True,
    seed: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> list[Row]:
    """Return a row for each model and embedding; write results.json and table.md.

    A row's `accuracy` says of how many clips the offset was found within 0.2 s, in percent; `chance` is that of a
    uniformly drawn answer; `error` is the mean absolute error in seconds; `offsets` has what was found for each clip.
    The model `features` is the baseline without a model: the correlation of how much picture and sound change.

    Args:
        split: Split of the features whose clips are searched; they last more than twice the reach.
        clips: Clips to search, the first of the split.
        reach: Largest offset, in seconds, both ways.
        displaced: Draw an offset for each clip; false looks for the one that the clips have as they are.
        seed: Seed of the offsets.
        resume: Keep the finished models of an earlier run with the same settings.
    """
    if not reach > TOLERANCE:
        raise ValueError(f"reach must be above {TOLERANCE} s, got {reach}")
    if clips < 1:
        raise ValueError(f"clips must be at least 1, got {clips}")
    found = comparison.clips(split)
    found = found.subset(range(min(clips, len(found))))
    header = FeatureStore.open(comparison.features).header
    video_rate, audio_rate = (side["rate_hz"] / comparison.coarsen for side in (header.video, header.audio))
    settings = {
        **comparison.settings(),
        "split": split,
        "clips": len(found),
        "reach": reach,
        "displaced": displaced,
        "seed": seed,
    }
    out = comparison.out / "sync"
    random = torch.Generator().manual_seed(seed)
    wanted = (2 * torch.rand(len(found), generator=random, dtype=torch.float64) - 1) * reach * displaced
    with working_in(out, "runs an experiment"):
        results = Results(out, settings, KEYS, resume=resume, overwrite=overwrite)

        def search(cell: Row) -> list[Row]:
            trained = None if cell["model"] == FEATURES else comparison.model(cell)
            answers: dict[str, list[float]] = {}
            truth, chance = [], 0.0
            for number in Progress(range(len(found)), desc="offsets", unit="clip", leave=False):
                windows, offset, offsets = cut_windows(
                    *found.clip(number), video_rate, audio_rate, reach, float(wanted[number])
                )
                truth.append(offset)
                chance += float(((offsets - offset).abs() <= TOLERANCE).double().mean())
                for name, distances in window_distances(trained, *windows).items():
                    answers.setdefault(name, []).append(float(offsets[distances.argmin()]))
            return [
                {
                    "task": "sync",
                    "embedding": name,
                    **score(answer, truth),
                    "chance": 100 * chance / len(truth),
                    "offsets": [round(seconds, 3) for seconds in answer],
                }
                for name, answer in answers.items()
            ]

        rows = results.fill(comparison.cells(), search)
        note = (
            f"Offsets within {TOLERANCE} s of {len(found)} clips, in %, up to ± {reach:g} s, "
            "mean ± standard deviation over seeds."
        )
        write_rows(comparison, out, rows, note)
        return rows


def window_distances(
    trained: tuple[AudioVisualModel, Config] | None, video: Tensor, audio: Tensor
) -> dict[str, Tensor]:
    """Return the distances (C,) of a picture (N, Dv) from sounds (C, M, Da), by embedding; None is no model."""
    if trained is None:
        return {"change": change_distance(video, audio)}
    model, config = trained
    seen, heard = model.visual(video[None]), model.audio(audio)
    count = len(audio)
    videos = Sequences(seen, torch.tensor([len(video)]))
    audios = Sequences(heard, torch.full((count,), audio.shape[1]))
    return {
        "mean": Distance(POOLED_COSINE).all_pairs(videos, audios)[0],
        "sequence": retrieval_distance(config).all_pairs(videos, audios)[0],
    }


def score(found: list[float], truth: list[float]) -> Row:
    """Return the share of offsets that are right, in percent, and the mean absolute error in seconds."""
    errors = (torch.tensor(found) - torch.tensor(truth)).abs()
    # Offsets are multiples of steps; rounding of their difference decides nothing.
    return {"accuracy": 100 * (errors <= TOLERANCE + 1e-6).double().mean().item(), "error": errors.mean().item()}


def cut_windows(
    video: Tensor, audio: Tensor, video_rate: float, audio_rate: float, reach: float, offset: float
) -> tuple[tuple[Tensor, Tensor], float, Tensor]:
    """Return the windows to compare, the offset of the picture's window, and that of each window of the sound.

    Args:
        video: (N, Dv).
        audio: (M, Da).
        video_rate, audio_rate: steps a second.
        reach: largest offset, in seconds.
        offset: of the picture's window, in seconds; it is rounded to a step.

    Returns:
        The windows of the picture (N', Dv) and of the sound (C, M', Da); seconds; seconds (C,).
    """
    seconds = min(len(video) / video_rate, len(audio) / audio_rate)
    frames, samples = (int((seconds - 2 * reach) * rate) for rate in (video_rate, audio_rate))
    if min(frames, samples) < 2:
        raise ValueError(
            f"expected clips longer than 2 · reach = {2 * reach:g} s by two steps, got {seconds:.1f} s; lower the reach"
        )
    first = min(max(round((reach + offset) * video_rate), 0), len(video) - frames)
    starts = range(len(audio) - samples + 1)
    windows = video[first : first + frames], torch.stack([audio[start : start + samples] for start in starts])
    return windows, first / video_rate - reach, torch.tensor(starts) / audio_rate - reach


def change_distance(video: Tensor, audio: Tensor) -> Tensor:
    """Return minus the correlation (C,) of how much a picture (N, Dv) and sounds (C, M, Da) change, step by step."""
    seen = video.diff(dim=0).abs().mean(1)  # (N − 1,)
    heard = audio.diff(dim=1).clamp(min=0).mean(2)  # (C, M − 1), as sound sets in
    seen = F.interpolate(seen[None, None], heard.shape[1], mode="linear")[0]
    seen, heard = (side - side.mean(1, keepdim=True) for side in (seen, heard))
    return -F.cosine_similarity(seen, heard, dim=1)
