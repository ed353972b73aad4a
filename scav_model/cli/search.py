"""The commands that make and ask an index: `scav index` and `scav search`."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from scav_model.cli.formats import format_of
from scav_model.cli.imported import Part, takes
from scav_model.storage.text import printable

if TYPE_CHECKING:
    from scav_model.distributed import SearchWorkers
    from scav_model.index import Answer, IndexWriter, Queries, SearchIndex
    from scav_model.index.build import Added
    from scav_model.index.header import Header
    from scav_model.model import AudioVisualModel


# Format of an output, by the suffix of its name.
FORMATS = {".json": "json", ".html": "html", ".htm": "html", ".txt": "table", "": "table"}
ADD = Part("scav_model.index.build:add_features", ("writer", "model"))


@takes(describe=Part("scav_model.index.model:header_for", ("model", "config")), add=ADD)
def index_build(
    index: Path,
    *,
    checkpoint: Path,
    features: Path,
    manifest: Path | None = None,
    sides: Literal["both", "video", "audio"] = "both",
    video_rate_hz: float | None = None,
    audio_rate_hz: float | None = None,
    shard_megabytes: int = 128,
    device: str = "cpu",
    describe: Callable[..., "Header"],
    add: Callable[..., "Added"],
) -> None:
    """Encodes features into a new search index; the same command goes on where it was stopped.

    Args:
        index: Folder of the index, new or begun with the same checkpoint.
        checkpoint: A run's folder, its checkpoint.pt, a folder that save_pretrained wrote, or owner/name on the Hub;
            queries are encoded by it too.
        features: Clips to be found: a feature store, one split of it, STORE:SPLIT, or a feature file (safetensors).
        sides: Encoded sides to hold; audio alone is searched by videos, video alone by audios, in half the room.
        video_rate_hz: Video steps per second, for features that do not say it; null leaves times in steps.
        audio_rate_hz: Audio steps per second, in the same way.
    """
    from scav_model.checkpoint import load_model
    from scav_model.data import open_features
    from scav_model.data.describe import describe_features
    from scav_model.index.build import check_features, open_writer
    from scav_model.index.header import SIDES

    model, config = load_model(checkpoint, device)
    described = describe_features(open_features(features), {"video": video_rate_hz, "audio": audio_rate_hz})
    header = describe(checkpoint, model, config, described, sides=SIDES if sides == "both" else (sides,))
    with open_writer(index, header, shard_bytes=shard_megabytes << 20) as writer:
        check_features(writer.header, described)
        _add(writer, add, model, features, manifest, device)


@takes(add=ADD)
def index_add(
    index: Path,
    *,
    features: Path,
    manifest: Path | None = None,
    checkpoint: Path | None = None,
    shard_megabytes: int = 128,
    device: str = "cpu",
    add: Callable[..., "Added"],
) -> None:
    """Adds clips to an index; those that it holds already are passed over.

    Args:
        features: Clips to be added, by the front ends that the index was made with: a feature store, STORE:SPLIT, or a
            feature file.
        checkpoint: The model that encoded the index, where it is no longer where it was; null takes it from there.
    """
    from scav_model.data import open_features
    from scav_model.data.describe import describe_features
    from scav_model.index import IndexWriter
    from scav_model.index.build import check_features
    from scav_model.index.model import load_for

    with IndexWriter(index, shard_bytes=shard_megabytes << 20) as writer:
        check_features(writer.header, describe_features(open_features(features)))
        model = load_for(writer.header, checkpoint, device)
        _add(writer, add, model, features, manifest, device)


def _add(
    writer: "IndexWriter",
    add: Callable[..., "Added"],
    model: "AudioVisualModel",
    features: Path,
    manifest: Path | None,
    device: str,
) -> None:
    from scav_model.data import open_features
    from scav_model.data.manifest import read_manifest

    clips = None if manifest is None else {clip.id: clip for clip in read_manifest(manifest)}
    done = add(writer, model, open_features(features), manifest=clips, device=device)
    for name in done.refused:
        print(f"left out: {printable(name)}: NaN or infinite features", file=sys.stderr)
    known = f", {done.known} were there already" if done.known else ""
    print(f"{writer.folder}: {done.clips} clips added in {done.seconds:.1f} s{known}; {writer.header.clips} in all")


def index_delete(index: Path, ids: Sequence[str], *, compact: bool = False) -> None:
    """Takes clips out of an index; those that are left are found as before.

    Args:
        ids: Ids of the clips; if one of them is not there, none is deleted. With --compact it may be left out.
        compact: Write the index anew without the deleted clips, which gives their room back and joins small files; it
            needs room for both until then.
    """
    from scav_model.index import IndexWriter, SearchIndexError

    if not ids and not compact:
        raise SearchIndexError("expected ids of clips to delete, or --compact, got neither")
    with IndexWriter(index) as writer:
        count = writer.delete(ids)
        given = f", {writer.compact() / 2**20:.1f} MiB given back" if compact else ""
        held = writer.header.clips
    print(f"{index}: {count} clips deleted{given}; {held} in all")


def index_info(index: Path) -> None:
    """Prints what an index holds: model, metric, clips, sides, rates and sizes."""
    from scav_model.index import SearchIndex

    opened = SearchIndex.open(index)
    header = opened.header
    size = sum(file.bytes for file in header.files())
    options = ", ".join(f"{name} {value}" for name, value in header.options.items())
    per_step = ", per step" if header.per_step else ""
    print(f"{index}: {len(opened)} clips, {header.deleted_clips} deleted, version {header.version}")
    print(printable(f"model    {header.checkpoint}, weights SHA-256 {header.model_sha256}"))
    print(printable(f"metric   {header.metric}{f' ({options})' if options else ''}") + per_step)
    print(f"steps    {header.dim} features, {header.dtype}")
    for side in header.sides:
        described = header.features[side]
        rate = described["rate_hz"]
        made = " ".join(filter(None, (described.get("encoder"), described.get("model")))) or "front end not known"
        lengths = opened.lengths(side)[opened.live]
        span = f", {lengths.min()} to {lengths.max()} steps a clip" if len(lengths) else ""
        print(f"{side}    {printable(made)}, {'rate not known' if rate is None else f'{rate:g} Hz'}{span}")
    print(f"disk     {len(header.shards)} shards, {size / 2**20:.1f} MiB")


def index_verify(index: Path) -> None:
    """Reads an index through and names every file and clip that is not what was written.

    Args:
        index: Folder of the index; a problem makes the exit code 1.
    """
    from scav_model.index import SearchIndex
    from scav_model.progress import Progress

    opened = SearchIndex.open(index)
    checked = Progress(opened.problems(), total=len(opened.shards), desc="verify", unit="shard")
    problems = [problem for found in checked for problem in found]
    for problem in problems:
        print(f"problem: {printable(problem)}")
    if problems:
        raise RuntimeError(f"{index}: {len(opened)} clips, {len(problems)} problems")
    print(f"{index}: {len(opened)} clips, 0 problems")


def index_tune(
    index: Path,
    *,
    k: int = 10,
    queries: int = 50,
    side: Literal["video", "audio"] = "video",
    candidates: Sequence[int] = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
    seed: int = 0,
) -> None:
    """Measures search among candidates against exact: the recall and the time of each number of them.

    Args:
        index: Folder of the index; its own clips are the queries.
        k: Nearest clips that count.
        queries: Clips to ask with, drawn at random.
        side: Side of the queries; the other is searched.
        candidates: Values of search's --candidates to try, those from k to the size of the index.
    """
    from scav_model.cli.models import table
    from scav_model.index import SearchIndex
    from scav_model.index.tune import tune

    opened = SearchIndex.open(index)
    rows = tune(opened, k=k, queries=queries, side=side, candidates=candidates, seed=seed)
    names = {"recall": f"recall@{k} %", "worst": "worst %", "ms": "ms/query"}
    print(table([{names.get(key, key): value for key, value in row.items()} for row in rows]))


@takes(
    find=Part("scav_model.index.search:search", ("queries", "workers")),
    start_workers=Part("scav_model.distributed.search:search_workers", ("address",)),
)
def search(
    index: Path,
    query: Sequence[str],
    *,
    batch: Path | None = None,
    features: Path | None = None,
    side: Literal["video", "audio"] | None = None,
    format: Literal["table", "json", "html"] | None = None,
    output: Path | None = None,
    embed: int = 0,
    checkpoint: Path | None = None,
    metric: str | None = None,
    visual: str | None = None,
    audio: str | None = None,
    device: str = "cpu",
    alignment: bool = False,
    ray: str | None = None,
    find: Callable[..., "Answer"],
    start_workers: Callable[..., AbstractContextManager["SearchWorkers | None"]],
) -> None:
    """Finds the sounds that fit a video, or the videos that fit a sound.

    Args:
        query: Media files (mp4, wav and so on) or ids of clips of the index, of one kind.
        batch: File of queries, one a line; null takes those of the command line.
        features: Features of clips that are all queries: a feature store, STORE:SPLIT, or a feature file.
        side: Side of the queries, which searches the other; null takes audio for files that have only sound, and
            video for all others.
        format: table, json, or html: a page with pictures, players and alignments; null takes what the name of the
            output says, and table.
        output: File to write to, NAME.json, NAME.html or NAME.txt (a table); null prints.
        embed: MiB of media files to put into the page itself, so that you can send it; the page links the others.
        checkpoint: Checkpoint that encoded the index, if it has moved; null takes the path that the index stores.
        metric: Metric that the index must have, or the search is refused; null takes the index's.
        visual: Front end of query videos, as scav extract takes it, where the index cannot tell; null asks the index.
        audio: Front end of query sounds, in the same way.
        alignment: Add to JSON, for each hit, which second matches which and what that contributes.
        ray: Address of a Ray cluster whose workers search a part of the index each, to the same answer: local starts
            one on this machine for this search, auto or HOST:PORT joins one that runs; null searches in this process.
    """
    from scav_model.devices import to_device
    from scav_model.index import SearchIndex
    from scav_model.index.align import alignments
    from scav_model.index.page import as_html
    from scav_model.index.report import as_json, as_table
    from scav_model.storage.files import make_folder, write_text

    to_device(device)
    written = format_of(output, format, FORMATS)
    opened = SearchIndex.open(index)
    check_metric(opened, metric)
    asked = _queries(opened, query, batch, features, side, checkpoint, {"video": visual, "audio": audio}, device)
    if output is not None:
        make_folder(output.parent)
    with start_workers(ray, opened) as workers:
        answer = find(opened, asked, workers=workers)
    for note in answer.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    if written == "html":
        text = as_html(opened, answer, None if output is None else output.parent, embed)
    elif written == "json":
        text = as_json(answer, alignments(opened, answer) if alignment else None)
    else:
        text = as_table(answer)
    if output is None:
        print(text)
    else:
        write_text(output, text.rstrip("\n") + "\n")
        print(f"{output}: {sum(map(len, answer.hits))} hits of {len(asked)} queries")


def check_metric(index: "SearchIndex", metric: str | None) -> None:
    from scav_model.index import SearchIndexError

    if metric is not None and metric != index.header.metric:
        raise SearchIndexError(
            f"{index.folder} is an index for {index.header.metric}, not for {metric}; "
            f"build another with --metric {metric}"
        )


def _queries(
    index: "SearchIndex",
    query: Sequence[str],
    batch: Path | None,
    features: Path | None,
    side: Literal["video", "audio"] | None,
    checkpoint: Path | None,
    front_ends: dict[str, str | None],
    device: str,
) -> "Queries":
    from scav_model.data import open_features
    from scav_model.index import SearchIndexError
    from scav_model.index.media import front_end, queries_by_features, queries_by_name
    from scav_model.index.model import load_for

    if sum((bool(query), batch is not None, features is not None)) != 1:
        raise SearchIndexError("expected queries on the command line, --batch or --features, one of the three")
    if features is not None:
        model = load_for(index.header, checkpoint, device)
        return queries_by_features(index, model, open_features(features), side or "video")
    names = list(query) if batch is None else lines_of(batch)
    if not names:
        raise SearchIndexError(f"{batch} has no query in it; it should have one a line")
    return queries_by_name(
        index,
        names,
        side,
        lambda: load_for(index.header, checkpoint, device),
        lambda side: front_end(index.header, side, front_ends[side], device),
    )


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file that are not empty; names of files in it may be of any bytes."""
    text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    return [line for line in (line.rstrip("\r") for line in text.split("\n")) if line]
