"""The commands that make, look at and check data: `scav manifest`, `scav extract` and `scav features`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scav_model.cli.imported import Part, takes

if TYPE_CHECKING:
    from scav_model.data.extract import ExtractionConfig
    from scav_model.data.importers import ImportConfig
    from scav_model.data.store.header import StoreHeader
    from scav_model.encoders import EncoderOptions


@takes(
    config=Part("scav_model.data.extract:ExtractionConfig", ("shard_bytes",)),
    options=Part("scav_model.encoders:EncoderOptions"),
)
def extract(
    source: Path,
    *,
    out: Path,
    visual: str = "patches",
    audio: str = "log_mel",
    shard_megabytes: int = 256,
    ray: str | None = None,
    gpus_per_worker: float = 0.0,
    config: Callable[..., "ExtractionConfig"],
    options: Callable[..., "EncoderOptions"],
) -> None:
    """Turns media files into a store of features; the same command goes on where it was stopped.

    Args:
        source: Manifest (JSON Lines) of clips, a folder of media files ([SPLIT/][LABEL/]NAME.mp4), or one media file.
            A line of the manifest that gives no clip is named and counts as a clip that could not be used.
        out: Folder of the feature store; an unfinished store with the same options is resumed.
        visual: patches, gray, gray:WIDTHxHEIGHT or efficientnet-lite0 (no download); clip:MODEL:WEIGHTS, where WEIGHTS
            is a file or a tag of open_clip, for example clip:ViT-L-14-quickgelu:openai; clip:FOLDER with
            open_clip_config.json; clip:hf-hub:ORGANIZATION/NAME; or pe-av:FOLDER, a checkpoint of PE-AV as transformers
            saves it.
        audio: log_mel (no download); notes (pip install --no-deps basic-pitch); beats:FILE, an official checkpoint
            (.pt) or one converted to safetensors; or pe-av:FOLDER.
        shard_megabytes: Size of a file of the store, in MiB; what a kill can cost is the last, unwritten one.
        ray: Address of a Ray cluster that decodes and encodes, to the same store: local starts one on this machine for
            this command, auto or HOST:PORT joins one that runs; null does all in processes of this machine.
        gpus_per_worker: Share of a GPU that each worker of the cluster has, for --device cuda.
    """
    from contextlib import ExitStack
    from functools import partial

    from scav_model.data.datasets import clips_of
    from scav_model.data.extract import extract as run
    from scav_model.devices import to_device
    from scav_model.distributed import OverRay, connect
    from scav_model.encoders import both_encoders

    encoder_options, settings = options(), config(shard_bytes=shard_megabytes << 20)
    if ray is None:
        # The machines of a cluster may have what this one lacks.
        to_device(encoder_options.device)
    clips, bad_lines = clips_of(source)
    encoders = partial(both_encoders, visual, audio, encoder_options)
    with ExitStack() as stack:
        spread = None
        if ray is not None:
            stack.enter_context(connect(ray))
            spread = OverRay(settings.workers, gpus_per_worker, encoders, settings.clip_timeout)
        elif gpus_per_worker:
            raise ValueError("expected --ray with --gpus_per_worker; add --ray local")
        done = run(clips, out, *encoders(), settings, spread, bad_lines)
    print(f"{out}: {done.summary()}")


def features_info(store: Path) -> None:
    """Prints what a feature store holds: encoders, hashes, rates, clips, splits, labels, sizes."""
    from collections import Counter

    from scav_model.data.ids import ids_sha256
    from scav_model.data.store import FeatureStore
    from scav_model.data.store.reader import read_skipped
    from scav_model.storage.text import printable

    opened = FeatureStore.open(store)
    header = opened.header
    state = "finished" if header.finished else "unfinished: the same scav extract goes on"
    splits = ", ".join(f"{count} {name}" for name, count in Counter(opened.splits).items())
    labels = len({label for label in opened.labels if label is not None})
    size = sum(shard.bytes for shard in header.shards) / 2**20
    print(f"{store}: {len(opened)} clips ({splits or 'none'}), {labels} labels, {state}")
    print(f"ids      SHA-256 {ids_sha256(opened.ids)}")
    print(f"disk     {len(header.shards)} shards, {size:.1f} MiB, {header.dtype}")
    print(f"time     {float(opened.seconds.sum()):.0f} s of media")
    for name, lengths in (("video", opened.video_lengths), ("audio", opened.audio_lengths)):
        print(f"{name}    {_side(header, name)}")
        if len(opened):
            print(f"         {int(lengths.min())} to {int(lengths.max())} steps a clip, {int(lengths.sum())} in all")
    print(f"versions {', '.join(f'{name} {number}' for name, number in header.versions.items()) or 'not recorded'}")
    skipped = read_skipped(store)
    print(f"skipped  {len(skipped)} clips (skipped.jsonl)")
    for reason, count in Counter(clip.reason for clip in skipped).most_common(5):
        print(f"         {count}: {printable(reason)}")


def _side(header: "StoreHeader", name: str) -> str:
    side = dict(header.video if name == "video" else header.audio)
    first = f"{side.pop('encoder', '?')} {side.pop('model', '')}".strip()
    dim, rate = side.pop("dim"), side.pop("rate_hz")
    rest = "; ".join(f"{key} {value}" for key, value in side.items())
    return f"{first}, {dim} features at {rate:g} Hz" + (f"; {rest}" if rest else "")


def features_verify(store: Path) -> None:
    """Reads a feature store through and says what is wrong: hashes, NaN, constants, lengths, untrained weights.

    Args:
        store: Folder of the feature store; a problem makes the exit code 1, a warning does not.
    """
    from scav_model.data.store.verify import verify
    from scav_model.storage.text import printable

    report = verify(store)
    for line in report.problems:
        print(f"problem: {printable(line)}")
    for line in report.warnings:
        print(f"warning: {printable(line)}")
    found = f"{len(report.problems)} problems, {len(report.warnings)} warnings"
    if report.problems:
        raise RuntimeError(f"{store}: {report.clips} clips, {found}")
    print(f"{store}: {report.clips} clips, {found}")


@takes(config=Part("scav_model.data.importers:ImportConfig", ("shard_bytes", "max_clip_bytes")))
def features_import(
    format: Literal["npz", "hdf5", "webdataset"],
    source: Path,
    *,
    out: Path,
    shard_megabytes: int = 256,
    max_clip_megabytes: int = 1024,
    config: Callable[..., "ImportConfig"],
) -> None:
    """Puts features that others made into a store; the layouts are in docs/extraction.md.

    Args:
        format: npz (a folder of ID.npz), hdf5 (groups of two datasets) or webdataset (tars of ID.video.npy and so on,
            plain or compressed).
        source: Folder or file.
        out: Folder of the feature store.
        shard_megabytes: Size of a file of the store, in MiB.
        max_clip_megabytes: Size of a clip's two arrays in memory, in MiB, above which it is skipped and not read.
    """
    from scav_model.data.importers import import_features

    settings = config(shard_bytes=shard_megabytes << 20, max_clip_bytes=max_clip_megabytes << 20)
    taken, skipped = import_features(format, source, out, settings)
    print(f"{out}: {taken} clips imported, {skipped} could not be used")


def features_convert(source: Path, *, out: Path) -> None:
    """Turns an official BEATs checkpoint (.pt) into a safetensors file, once, for --audio beats:FILE.

    Args:
        source: Checkpoint, read with PyTorch's restricted reader, which runs nothing in it.
        out: File to write; its name should end in .safetensors.
    """
    from scav_model.encoders.beats import convert

    convert(source, out)
    print(f"{out}: written")


def write_listing(made: Any, out: Path) -> None:
    """Write a `Listing` as a manifest.

    Args:
        out: Manifest to write; its ids go beside it as NAME.ids.txt, those that are missing as NAME.missing.txt.
    """
    from scav_model.data.ids import ids_sha256, write_ids
    from scav_model.data.manifest import write_manifest
    from scav_model.storage.files import make_folder, write_whole
    from scav_model.storage.text import say

    ids = [clip.id for clip in made.clips]
    missing = out.with_name(f"{out.stem}.missing.txt")
    if not ids:
        raise ValueError(f"{made.summary()}: no manifest written; is it the right folder of media files?")
    make_folder(out.parent)
    write_manifest(out, made.clips)
    write_ids(out.with_name(f"{out.stem}.ids.txt"), ids)
    write_whole(missing, "".join(f"{name}\n" for name in made.missing).encode())
    for remark in made.remarks:
        say(remark)
    print(f"{out}: {made.summary()}" + (f", listed in {missing}" if made.missing else ""))
    print(f"SHA-256 of the ids: {ids_sha256(ids)}")
