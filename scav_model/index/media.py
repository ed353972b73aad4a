"""Queries from media files and from features, by the front ends and the model that made the index."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scav_model.data import Features, collate
from scav_model.data.decode import DEFAULT_LIMITS, DecodeError, Limits, decode_frames, decode_sound, media_seconds
from scav_model.data.describe import describe_features, front_end_differences
from scav_model.data.encoder import AudioEncoder, VisualEncoder
from scav_model.data.folders import SOUND
from scav_model.data.pictures import Picture
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
    rate = frame_rate(index) if side == "video" else 0.0
    steps = []
    for path in paths:
        try:
            prepared = QueryReader.of(encoder, side, rate)(path)
        except DecodeError as error:
            raise SearchIndexError(f"the query {path} cannot be used: {error}") from error
        steps.append(encode_query(model, encoder, prepared, side, str(path)))
    return make_queries(side, [str(path) for path in paths], steps, [str(path.resolve()) for path in paths])


def frame_rate(index: IndexReader) -> float:
    """
    Raises:
        SearchIndexError: the index does not know how many frames of a query to take in a second.
    """
    rate: float | None = index.header.features["video"]["rate_hz"]
    if rate is None:
        raise SearchIndexError(
            f"{index.folder} does not know how many video steps a second has; build it with --video_rate_hz"
        )
    return rate


@torch.no_grad()
def encode_query(model: AudioVisualModel, encoder: Any, prepared: Any, side: str, name: str) -> Tensor:
    """Return the steps (T, D) of a query that `QueryReader` read.

    Raises:
        SearchIndexError: its features are NaN or infinite.
    """
    features: Tensor = encoder.encode([prepared])[0]
    if not bool(features.isfinite().all()):
        raise SearchIndexError(f"the {side} features of the query {name} are NaN or infinite")
    tower = model.visual if side == "video" else model.audio
    device = next(tower.parameters()).device
    steps: Tensor = tower(features[None].to(device))[0].cpu()
    return steps


@dataclass(frozen=True)
class QueryReader:
    """Decodes one side of a media file into what a front end encodes; it can be sent to a worker process.

    Attributes:
        picture, prepare: of the front end; a front end of sound has no picture.
        rate: frames, or samples of sound, in a second.
    """

    picture: Picture | None
    prepare: Callable[[Any], Any]
    rate: float

    @classmethod
    def of(cls, encoder: Any, side: str, frame_rate: float) -> QueryReader:
        """Return the reader of a front end."""
        if side == "video":
            return cls(encoder.picture, encoder.prepare, frame_rate)
        return cls(None, encoder.prepare, encoder.sample_rate)

    def __call__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> Any:
        """
        Raises:
            DecodeError: the file cannot be read, has no such side, or is beyond a limit.
        """
        try:
            # Where a file has both, features end where the first of them ends, as extraction has it.
            duration = media_seconds(path)
        except DecodeError:
            duration = None
        if self.picture is None:
            return self.prepare(decode_sound(path, sample_rate=int(self.rate), duration=duration, limits=limits))
        frames = decode_frames(path, frame_rate=self.rate, picture=self.picture, duration=duration, limits=limits)
        return self.prepare(frames)


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
