"""Extraction: from clips of media files to a feature store, by way of two encoders."""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from scav_model.data.decode import DEFAULT_LIMITS, DecodeError, Limits, decode
from scav_model.data.encoder import Array, AudioEncoder, VisualEncoder
from scav_model.data.manifest import Clip
from scav_model.data.pictures import Picture
from scav_model.data.store.header import Dtype, Entry, Skipped, StoreHeader
from scav_model.data.store.writer import SHARD_BYTES, StoreWriter
from scav_model.data.workers import WorkerDied, WorkerError, ordered_map
from scav_model.fields import documented, setting
from scav_model.progress import Progress
from scav_model.storage.text import printable, say

LIBRARIES = ("scav-kernels", "torch", "torchaudio", "av")


class ExtractionError(RuntimeError):
    """Too many files could not be used, or workers cannot work."""


@documented
@dataclass(frozen=True)
class ExtractionConfig:
    """Settings of reading clips and of handling bad ones; encoders have their own."""

    frame_rate: float = setting(5.0, "Frames per second given to the visual encoder, so its steps per second.")
    dtype: Dtype = setting("float32", "Numbers on disk; bfloat16 and float16 take half the room of float32.")
    shard_bytes: int = setting(SHARD_BYTES, "Bytes after which a file of the store is written.")
    workers: int = setting(
        2,
        "Processes that decode ahead of the encoders; 0 decodes in this one. With --ray, actors that decode and "
        "encode, with a CPU and the encoders of their own.",
    )
    batch_clips: int = setting(16, "Clips that are encoded together.")
    max_bad_share: float = setting(
        0.05,
        "Share of the clips, from 0 to 1, above which extraction fails in the end because they could not be used; the "
        "others stay in the store.",
    )
    retry_skipped: bool = setting(False, "Try clips again that an earlier run could not use.")
    clip_timeout: float = setting(
        600.0,
        "Seconds after which a worker skips a clip and goes on with the next; .inf sets no limit. With --workers 0 "
        "there is no limit.",
    )
    max_seconds: float = setting(DEFAULT_LIMITS.max_seconds, "Length in seconds above which a clip cannot be used.")
    max_bytes: int = setting(
        DEFAULT_LIMITS.max_bytes,
        "Bytes of frames, as the encoder takes them, and audio samples above which a clip cannot be used.",
    )
    max_pixels: int = setting(
        DEFAULT_LIMITS.max_pixels, "Pixels of a frame in the file above which a clip cannot be used."
    )

    def __post_init__(self) -> None:
        if not self.frame_rate > 0:
            raise ValueError(f"expected frame_rate to be above 0 frames/s, got {self.frame_rate}")
        if self.batch_clips < 1:
            raise ValueError(f"expected batch_clips to be at least 1, got {self.batch_clips}")
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"expected max_bad_share to be a share from 0 to 1, got {self.max_bad_share}")
        if not self.clip_timeout > 0:
            raise ValueError(f"expected clip_timeout to be above 0 seconds (inf: no limit), got {self.clip_timeout}")
        # Refuses bad limits.
        _ = self.limits

    @property
    def limits(self) -> Limits:
        """Bounds on what a clip may decode to."""
        return Limits(self.max_seconds, self.max_bytes, self.max_pixels)


@dataclass(frozen=True)
class Extraction:
    """Counts of a run."""

    clips: int  # put into the store
    skipped: list[Skipped]
    media_seconds: float  # of the clips put into the store
    wall_seconds: float  # from the first clip on

    def summary(self) -> str:
        wall = max(self.wall_seconds, 1e-9)
        skipped = f"; skipped {by_reason(self.skipped)}" if self.skipped else ""
        return (
            f"{self.clips} clips, {self.media_seconds:.0f} s of media, in {self.wall_seconds:.1f} s: "
            f"{self.clips / wall:.2f} clips/s, {self.media_seconds / wall:.1f} × real time{skipped}"
        )


def by_reason(skipped: Sequence[Skipped], shown: int = 5) -> str:
    """Counts of the most frequent reasons: `3 (2 no audio stream, 1 no such file)`."""
    counts = Counter(clip.reason for clip in skipped).most_common()
    words = [f"{count} {reason}" for reason, count in counts[:shown]]
    if rest := sum(count for _, count in counts[shown:]):
        words.append(f"{rest} for other reasons")
    return f"{len(skipped)} ({', '.join(words)})"


@dataclass(frozen=True)
class Prepared:
    """A clip as a worker leaves it. Arrays travel between processes by value, tensors by scarce file descriptors."""

    video: Array
    audio: Array
    seconds: float


@dataclass(frozen=True)
class Encoded:
    """A clip's features."""

    video: Tensor  # (N, Dv)
    audio: Tensor  # (M, Da)
    seconds: float


@dataclass(frozen=True)
class Work:
    """Processing of clips, in any process; a clip that cannot be used gives the reason instead."""

    visual: VisualEncoder
    audio: AudioEncoder
    frame_rate: float
    limits: Limits = DEFAULT_LIMITS

    @property
    def prepare(self) -> Callable[[Clip], Prepared | str]:
        """Picklable, without the encoders' weights."""
        return functools.partial(
            prepare_clip,
            frame_rate=self.frame_rate,
            picture=self.visual.picture,
            prepare_video=self.visual.prepare,
            prepare_audio=self.audio.prepare,
            sample_rate=self.audio.sample_rate,
            limits=self.limits,
        )

    def encode(self, batch: Sequence[Prepared | str]) -> list[Encoded | str]:
        """Encode the usable clips together: an encoder's last digits may depend on the batch."""
        good = [prepared for prepared in batch if isinstance(prepared, Prepared)]
        if not good:
            return [str(reason) for reason in batch]
        video = self.visual.encode([prepared.video for prepared in good])
        audio = self.audio.encode([prepared.audio for prepared in good])
        sides = zip(good, video, audio, strict=True)
        encoded = (Encoded(pictures, sound, one.seconds) for one, pictures, sound in sides)
        return [result if isinstance(result, str) else next(encoded) for result in batch]


Batches = Sequence[Sequence[Clip]]
# Does the work on batches of clips, wherever; a list for each, in order.
Spread = Callable[[Work, Batches], Iterator[list[Encoded | str]]]


def extract(
    clips: Sequence[Clip],
    out: Path | str,
    visual: VisualEncoder,
    audio: AudioEncoder,
    config: ExtractionConfig | None = None,
    spread: Spread | None = None,
    bad_lines: int = 0,
) -> Extraction:
    """Put the features of `clips` into the store at `out`, less those that it holds already.

    The same call resumes a store that an earlier one began. A clip that cannot be used is skipped: the store lists it
    with the reason, and later calls pass over it unless `retry_skipped` is set. A clip is also skipped if its decoder
    takes longer than `clip_timeout` seconds or crashes its worker twice. Without workers it hangs or crashes this
    process.

    Args:
        spread: decodes and encodes, e.g. `scav_model.distributed.OverRay`. None: `workers` processes decode, and this
            one encodes. This process writes the store.
        bad_lines: number of lines of the manifest that give no clip; each counts as a clip that could not be used.

    Raises:
        StoreError: the store has other settings; the message names them.
        ExtractionError: more than `max_bad_share` of `clips`, or all of them, could not be used (the others are
            in the store); or a worker process cannot start.
    """
    config = config or ExtractionConfig()
    header = store_header(visual, audio, config)
    for side in (header.video, header.audio):
        if side.get("untrained"):
            Progress.write(f"warning: {side['encoder']} {side['model']} looks untrained (see scav features verify)")
    with StoreWriter(out, header, shard_bytes=config.shard_bytes) as writer:
        if config.retry_skipped:
            writer.forget_skipped()
        rest = [clip for clip in clips if clip.id not in writer.done | writer.skipped]
        run = _Run(writer, len(clips) - len(rest), len(clips))
        batches = [rest[first : first + config.batch_clips] for first in range(0, len(rest), config.batch_clips)]
        spread = spread or functools.partial(_decode_ahead, config=config)
        try:
            work = Work(visual, audio, config.frame_rate, config.limits)
            for batch, encoded in zip(batches, spread(work, batches), strict=True):
                run.take(batch, encoded)
        except WorkerError as error:
            raise ExtractionError(f"{error}; what was done is kept, and the same command goes on") from error
        finally:
            run.bar.close()
        writer.finish()
        bad = bad_lines + sum(clip.id in writer.skipped for clip in clips)
    _check_share(bad, bad_lines + len(clips), run.skipped, config.max_bad_share, Path(out))
    return Extraction(run.clips, run.skipped, run.media_seconds, time.perf_counter() - run.started)


def store_header(visual: VisualEncoder, audio: AudioEncoder, config: ExtractionConfig) -> StoreHeader:
    return StoreHeader(
        video={"dim": visual.dim, "rate_hz": config.frame_rate, **visual.describe()},
        audio={"dim": audio.dim, "rate_hz": audio.rate_hz, **audio.describe()},
        dtype=config.dtype,
        versions={name: metadata.version(name) for name in LIBRARIES},
    )


def prepare_clip(
    clip: Clip,
    *,
    frame_rate: float,
    picture: Picture,
    prepare_video: Callable[..., Array],
    prepare_audio: Callable[..., Array],
    sample_rate: int,
    limits: Limits = DEFAULT_LIMITS,
) -> Prepared | str:
    """A worker's share of the work, or the reason why there is nothing to be had."""
    try:
        media = decode(
            clip.path,
            frame_rate=frame_rate,
            picture=picture,
            sample_rate=sample_rate,
            start=clip.start,
            duration=clip.duration,
            limits=limits,
        )
        seconds = len(media.audio) / sample_rate
        return Prepared(prepare_video(media.frames), prepare_audio(media.audio), seconds)
    except DecodeError as error:
        return str(error)
    except Exception as error:
        # One file among 200,000 must not end the run; if it is no matter of one file, max_bad_share does.
        return f"{type(error).__name__}: {error}"


def time_limit(clip_timeout: float) -> float | None:
    return clip_timeout if math.isfinite(clip_timeout) else None


def failure(clip: Clip, error: WorkerError) -> str:
    """The reason to skip a clip that its worker did not survive."""
    if isinstance(error, WorkerDied):
        return f"crashed the decoder ({error.how})"
    return "took longer than clip_timeout to decode"


def _decode_ahead(work: Work, batches: Batches, config: ExtractionConfig) -> Iterator[list[Encoded | str]]:
    """While a batch is encoded here, the next one is decoded."""
    clips = [clip for batch in batches for clip in batch]
    prepared = ordered_map(
        work.prepare,
        clips,
        workers=config.workers,
        waiting=config.batch_clips,
        seconds=time_limit(config.clip_timeout),
        replace=failure,
    )
    for batch in batches:
        yield work.encode(list(islice(prepared, len(batch))))


class _Run:
    """Puts batches into the store and shows how fast."""

    def __init__(self, writer: StoreWriter, before: int, total: int) -> None:
        self.writer = writer
        self.clips, self.media_seconds = 0, 0.0
        self.skipped: list[Skipped] = []
        self.started = time.perf_counter()
        self.bar: Any = Progress(total=total, initial=before, desc="features", unit="clip")

    def take(self, clips: Sequence[Clip], encoded: Sequence[Encoded | str]) -> None:
        for clip, result in zip(clips, encoded, strict=True):
            if isinstance(result, Encoded):
                entry = Entry(clip.id, clip.split, result.seconds, clip.label, clip.path, clip.start)
                reason = self.writer.add(entry, result.video, result.audio)
            else:
                reason = result
            if reason is not None:
                # A name in no encoding has surrogates, which the store's JSON cannot hold.
                path = str(clip.path).encode(errors="backslashreplace").decode()
                self._skip(Skipped(clip.id, path, reason))
            elif isinstance(result, Encoded):
                self.clips += 1
                self.media_seconds += result.seconds
        self.bar.update(len(clips))
        self.bar.set_postfix_str(f"{self.media_seconds / (time.perf_counter() - self.started):.1f} × real time")

    def _skip(self, skipped: Skipped) -> None:
        self.skipped.append(skipped)
        self.writer.skip(skipped)
        say(f"skipped {_line(skipped)}")


def _line(skipped: Skipped) -> str:
    return printable(f"{skipped.id} ({skipped.path}): {skipped.reason}")


def _check_share(bad: int, total: int, skipped: list[Skipped], limit: float, out: Path) -> None:
    if not bad:
        return
    share = bad / total
    summary = f"{bad} of {total} clips ({share:.1%}) could not be used"
    if share > limit or bad == total:
        allowed = "so none is left" if share <= limit else f"more than max_bad_share = {limit:.1%} allows"
        first = f"; the first: {_line(skipped[0])}" if skipped else ""
        kept = "" if bad == total else f" The other {total - bad} clips are complete in {out}."
        raise ExtractionError(
            f"{summary}, {allowed}{first}.{kept} This run skipped {by_reason(skipped)}; scav features info {out} "
            "counts all. Raise --max_bad_share to accept them, or mend the files and add --retry_skipped"
        )
    Progress.write(summary)
