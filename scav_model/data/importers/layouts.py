"""What other projects' arrays mean: from segments, or frames of tokens, to steps at a known rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scav_model.data.importers.clip import ImportConfig, ImportedClip, ImportProblem, LayoutName

# Synchformer's segments: 16 frames at 25 frames/s, for which its extractors give 8 visual and 6 audio tokens.
SEGMENT_SECONDS = 0.64
SEGMENT_TOKENS = (8, 6)
# CAV-MAE Sync takes 16 frames of ten seconds, and the sound around each.
FRAMES_HZ = 1.6


@dataclass(frozen=True)
class Layout:
    """Meaning of the two arrays of a clip.

    Attributes:
        rates: steps per second of video and audio; None where the user has to know them.
        arrange: makes the steps (T, D) of one side, 0 for video and 1 for audio, from its array.
    """

    rates: tuple[float, float] | None
    arrange: Callable[[NDArray[Any], int, ImportConfig], NDArray[Any]]


def join_segments(array: NDArray[Any], side: int, config: ImportConfig) -> NDArray[Any]:
    """Return the tokens (S · t, D) of segments (S, t, D), one after the other; those of one time are averaged.

    Raises:
        ImportProblem: another shape, or an overlap that is no whole number of tokens.
    """
    tokens = SEGMENT_TOKENS[side]
    if array.ndim != 3 or array.shape[1] != tokens:
        raise ImportProblem(
            f"expected segments of shape (segments, {tokens}, features), got {array.shape}; import one vector a "
            "segment with --layout steps and its rates"
        )
    shared = round(config.segment_overlap * tokens)
    if shared != config.segment_overlap * tokens:
        raise ImportProblem(f"expected segment_overlap to be of whole tokens of {tokens}, got {config.segment_overlap}")
    hop = tokens - shared
    count, _, dim = array.shape
    steps = np.zeros((hop * (count - 1) + tokens if count else 0, dim), np.float32)
    times = np.zeros(len(steps), np.float32)
    for number, segment in enumerate(array):
        steps[number * hop : number * hop + tokens] += segment
        times[number * hop : number * hop + tokens] += 1
    return steps / times[:, None]


def mean_tokens(array: NDArray[Any], side: int, config: ImportConfig) -> NDArray[Any]:
    """Return the mean token (T, D) of each frame of (T, tokens, D); frames (T, D) are as they are."""
    return array.mean(1, dtype=np.float32) if array.ndim == 3 and array.shape[1] else array


LAYOUTS: dict[LayoutName, Layout] = {
    "steps": Layout(None, lambda array, side, config: array),
    "synchformer": Layout((SEGMENT_TOKENS[0] / SEGMENT_SECONDS, SEGMENT_TOKENS[1] / SEGMENT_SECONDS), join_segments),
    "cav-mae-sync": Layout((FRAMES_HZ, FRAMES_HZ), mean_tokens),
}


def rates_of(config: ImportConfig) -> tuple[float, float]:
    """Return the steps per second of video and audio: the user's, or else those of the layout.

    Raises:
        ValueError: neither is known.
    """
    known = LAYOUTS[config.layout].rates or (None, None)
    video, audio = config.video_rate_hz or known[0], config.audio_rate_hz or known[1]
    if video is None or audio is None:
        raise ValueError("expected video_rate_hz and audio_rate_hz, which the files do not say; name both")
    return video, audio


def arranged(clip: ImportedClip, config: ImportConfig) -> ImportedClip:
    """Return the clip with its steps, or with the reason why its arrays have none."""
    if isinstance(clip.content, str):
        return clip
    sides = []
    for side, (name, array) in enumerate(zip(("video", "audio"), clip.content, strict=True)):
        try:
            # What is no array of numbers is refused later, with its dtype.
            sides.append(LAYOUTS[config.layout].arrange(array, side, config) if array.dtype.kind in "fiu" else array)
        except ImportProblem as error:
            return replace(clip, content=f"{name}: {error}")
    return replace(clip, content=(sides[0], sides[1]))
