"""Queries from media files and from features, by the front ends and the model that made the index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scav_model.data import Features, collate
from scav_model.data.decode import DecodeError, decode_frames, decode_sound, media_seconds
from scav_model.data.describe import describe_features, front_end_differences
from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.folders import SOUND
from scav_model.encoders.described import described_encoder
from scav_model.encoders.encoder import EncoderError
from scav_model.index.build import bad_clips, check_features
from scav_model.index.header import Header, SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.index.queries import Queries, check_id, make_queries, queries_by_id
from scav_model.model import AudioVisualModel

OPTION = {"video": "--visual", "audio": "--audio"}


def front_end(header: Header, side: str, spec: str | None = None, device: str = "cpu") -> VisualEncoder | AudioEncoder:
    """The encoder that made one side of the index's features.

    Args:
        spec: as `scav extract` takes it; None makes it from what the index says, where that suffices.

    Raises:
        SearchIndexError: it has to be named, or is another than the index's.
    """
    described = header.features[side]
    try:
        encoder = described_encoder(described, side, spec, device, owner="index")
    except EncoderError as error:
        if spec is not None:
            raise
        raise SearchIndexError(f"{error}; name it with {OPTION[side]}, as scav extract takes it") from error
    rate = described["rate_hz"] if side == "video" else getattr(encoder, "rate_hz", None)
    found = {**header.features, side: {"dim": encoder.dim, "rate_hz": rate, **encoder.describe()}}
    if differing := front_end_differences(header.features, found):
        raise SearchIndexError(
            f"the index was made with another {side} front end ({'; '.join(differing)}); name that with {OPTION[side]}"
        )
    return encoder


def queries_by_name(
    index: IndexReader,
    names: Sequence[str],
    side: str | None,
    model: Callable[[], AudioVisualModel],
    encoder: Callable[[str], VisualEncoder | AudioEncoder],
) -> Queries:
    """Return media files, or clips of the index by their ids, as queries.

    Args:
        names: all of files, or all of clips.
        side: of the queries; None takes audio for files of sound alone, and else video.
        model: loads the index's model, for files.
        encoder: makes the front end of a side, for files.

    Raises:
        SearchIndexError: a name of neither; names of both, or of several sides.
    """
    files = [os.path.isfile(name) for name in names]
    if not all(files):
        for name in (name for name, is_file in zip(names, files, strict=True) if not is_file):
            check_id(index, name)
        if any(files):
            odd = names[files.index(False)]
            raise SearchIndexError(f"expected all queries to be files or all ids, and there is no file {odd!r}")
        return queries_by_id(index, names, side or "video")
    if side is None:
        sounds = [Path(name).suffix.lower() in SOUND for name in names]
        if any(sounds) and not all(sounds):
            raise SearchIndexError("these queries are files of sound and of video; name the --side to take of all")
        side = "audio" if all(sounds) else "video"
    # The model first: what is wrong with it is said without a front end.
    loaded = model()
    return queries_by_file(index, loaded, encoder(side), [Path(name) for name in names], side)


@torch.no_grad()
def queries_by_file(
    index: IndexReader,
    model: AudioVisualModel,
    encoder: VisualEncoder | AudioEncoder,
    paths: Sequence[Path],
    side: str,
) -> Queries:
    """Media files as queries; of a file with pictures and sound, `side` is taken.

    Raises:
        SearchIndexError: a file that cannot be read, or has no such side; an index that does not know its video rate.
    """
    rate = index.header.features["video"]["rate_hz"]
    if side == "video" and rate is None:
        raise SearchIndexError(
            f"{index.folder} does not know how many video steps a second has; build it with --video_rate_hz"
        )
    steps = []
    for path in paths:
        try:
            features = _features(encoder, path, side, rate)
        except DecodeError as error:
            raise SearchIndexError(f"the query {path} cannot be used: {error}") from error
        if not bool(features.isfinite().all()):
            raise SearchIndexError(f"the {side} features of the query {path} are NaN or infinite")
        tower = model.visual if side == "video" else model.audio
        device = next(tower.parameters()).device
        steps.append(tower(features[None].to(device))[0].cpu())
    return make_queries(side, [str(path) for path in paths], steps, [str(path.resolve()) for path in paths])


def _features(encoder: Any, path: Path, side: str, rate: float) -> Tensor:
    try:
        # Where a file has both, features end where the first of them ends, as extraction has it.
        duration = media_seconds(path)
    except DecodeError:
        duration = None
    if side == "video":
        media: Any = decode_frames(path, frame_rate=rate, picture=encoder.picture, duration=duration)
    else:
        media = decode_sound(path, sample_rate=encoder.sample_rate, duration=duration)
    found: Tensor = encoder.encode([encoder.prepare(media)])[0]
    return found


@torch.no_grad()
def queries_by_features(
    index: IndexReader, model: AudioVisualModel, features: Features, side: str, batch_size: int = 64
) -> Queries:
    """All clips of some features as queries.

    Raises:
        SearchIndexError: features of another size or front end than the index's; NaN or infinite, naming the clip.
    """
    check_features(index.header, describe_features(features))
    tower = model.visual if side == "video" else model.audio
    device = next(tower.parameters()).device
    steps: list[Tensor] = []
    for first in range(0, len(features), batch_size):
        batch = collate(features, range(first, min(first + batch_size, len(features))))
        for name, where in bad_clips(batch).items():
            if where == side:
                raise SearchIndexError(f"the {side} features of the query {name!r} are NaN or infinite")
        taken, lengths = {
            "video": (batch.video, batch.video_lengths),
            "audio": (batch.audio, batch.audio_lengths),
        }[side]
        encoded = tower(taken.to(device), lengths.to(device)).cpu()
        steps += [row[:length] for row, length in zip(encoded, lengths.tolist(), strict=True)]
    if not steps:
        raise SearchIndexError("expected at least one query, got features of no clip")
    return make_queries(side, list(features.ids), steps)
