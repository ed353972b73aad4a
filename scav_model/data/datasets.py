"""The lists that data sets come with, and plain folders, as clips of the project's manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scav_model.data.decode import DecodeError, media_seconds
from scav_model.data.folders import MEDIA, by_stem, passed_over_line, walk_media
from scav_model.data.ids import label_problem, name_problem
from scav_model.data.manifest import Clip, ManifestError, read_manifest_lenient
from scav_model.data.tables import read_table
from scav_model.data.text_files import line_problem, read_text
from scav_model.storage.strict_json import parse_json
from scav_model.storage.text import printable, say, shown

SPLITS = ("train", "val", "valid", "validation", "test")
VGGSOUND_SECONDS = 10.0
# A YouTube id and a start in seconds, as VGGSound's files are named: ---g-f_I2yQ_000001.mp4
NAMED = re.compile(r"(?P<id>.+)_(?P<start>[0-9]{1,6})(?:\.\w{2,4})?")
START = re.compile(r"(?P<seconds>[0-9]{1,9})(?:\.0*)?")
FORMS = "id,start,label,split or id,start,label or id_000030.mp4,label"
# Names of columns, in lower case, that the header of a list may have.
COLUMNS = {
    "id": ("id", "youtube id", "youtubeid", "ytid", "video id", "videoid", "video"),
    "file": ("file", "filename", "file name", "name", "path"),
    "start": ("start", "start seconds", "start second", "start time", "start sec", "start s"),
    "label": ("label", "labels", "class", "caption", "category"),
    "split": ("split", "subset", "set", "partition", "train/test split"),
}


@dataclass(frozen=True)
class Listing:
    """Clips of a data set's list.

    Attributes:
        clips: with a media file.
        missing: ids of the clips without one.
        remarks: lines about what was passed over or merged.
    """

    clips: list[Clip]
    missing: list[str]
    remarks: list[str] = field(default_factory=list)

    def summary(self) -> str:
        total = len(self.clips) + len(self.missing)
        splits = Counter(clip.split for clip in self.clips)
        shares = ", ".join(f"{count} {split}" for split, count in splits.items())
        return f"{len(self.clips)} of {total} clips have a media file ({shares or 'none'}); {len(self.missing)} missing"


def vggsound(listing: Path | str, media: Path | str, *, split: str | None = None) -> Listing:
    """Return the clips of VGGSound's `vggsound.csv` (YouTube id, start, label, split) or of a list of its test set.

    The forms in circulation are read alike: `id,start,label,split`; `id,start,label`; `id_000030.mp4,label` with or
    without the suffix; columns in any order under a header that names them. Tabs or semicolons may stand for the
    commas. A row without a split gets `split`, or `test`. A row's media file is `<id>_<start:06d>.*` or
    `<id>_<start>.*`, taken to be the ten seconds alone, or `<id>.*`, taken to be the whole video.

    Args:
        listing: vggsound.csv (YouTube id, start, label, split) or the csv of the test set; commas, tabs or semicolons.
        media: Folder of media files, ID_000030.mp4 (the ten seconds) or ID.mp4 (the whole video), at any depth.
        split: Keep this split only; a list that names no splits gets it as its own; null keeps all, test where none.
    """
    found = walk_media(Path(media))
    files = by_stem(found.files)
    clips, missing = [], []
    for row in _vggsound_rows(Path(listing), split or "test"):
        if split is not None and row.split != split:
            continue
        name = f"{row.youtube}_{row.start:06d}"
        path = files.get(name) or files.get(f"{row.youtube}_{row.start}")
        if path is not None:
            clips.append(Clip(name, path, row.split, 0.0, VGGSOUND_SECONDS, row.label))
        elif row.youtube in files:
            clips.append(Clip(name, files[row.youtube], row.split, float(row.start), VGGSOUND_SECONDS, row.label))
        else:
            missing.append(name)
    return _unique(listing, clips, missing, [passed_over_line(found.passed_over)])


@dataclass(frozen=True)
class _Row:
    youtube: str
    start: int  # seconds
    label: str | None
    split: str


def _vggsound_rows(path: Path, default_split: str) -> Iterator[_Row]:
    rows = read_table(path, _looks_like_a_row)
    header = _header(rows[0][1]) if rows else None
    if len(rows) == (header is not None):
        raise ManifestError(f"{path}: expected rows of {FORMS}, got an empty list")
    for number, cells in rows[1:] if header else rows:
        row = _row(cells, header, default_split)
        if row is None:
            expected = ",".join(header) if header else FORMS
            hint = " (a manifest? scav extract reads it as it is)" if cells[0].startswith("{") else ""
            raise ManifestError(f"{path}, line {number}: expected {expected}, got {shown(','.join(cells))}{hint}")
        if problem := name_problem("id", row.youtube) or name_problem("split", row.split):
            raise ManifestError(f"{path}, line {number}: {problem}")
        yield row


def _looks_like_a_row(cells: list[str]) -> bool:
    """Return whether cells may be a row, whatever the order of its columns, or a header."""
    timed = len(cells) > 2 and any(map(START.fullmatch, cells))
    return timed or (len(cells) > 1 and any(map(NAMED.fullmatch, cells))) or _header(cells) is not None


def _header(cells: list[str]) -> list[str] | None:
    """Return the columns that a header names, in its order, or None where the cells are no header."""
    columns = []
    for cell in cells:
        plain = cell.strip(" #.").lower().replace("_", " ")
        columns += [column for column, names in COLUMNS.items() if plain in names]
    complete = {"id", "start"} <= set(columns) or "file" in columns
    return columns if complete and len(columns) == len(set(columns)) == len(cells) else None


def _row(cells: list[str], header: list[str] | None, default_split: str) -> _Row | None:
    """Return what the cells say, or None where they are no row."""
    filled = len(cells)
    while filled and not cells[filled - 1]:
        filled -= 1
    if header is None:
        timed = len(cells) > 2 and START.fullmatch(cells[1])
        header = ["id", "start", "label", "split"] if timed else ["file", "label"]
        # Without a label's column, the row is of some other list.
        if len(cells) < (3 if timed else 2):
            return None
    if filled > len(header) or (len(cells) < len(header) and header[len(cells) :] != ["split"]):
        return None
    entry = {**dict.fromkeys(COLUMNS, ""), **dict(zip(header, cells, strict=False))}
    if "file" in header and (named := NAMED.fullmatch(entry["file"])):
        entry["id"], entry["start"] = named["id"], named["start"]
    start = START.fullmatch(entry["start"])
    if not entry["id"] or start is None:
        return None
    return _Row(entry["id"], int(start["seconds"]), entry["label"] or None, entry["split"] or default_split)


def music(listing: Path | str, media: Path | str, *, split: str = "test", clip_seconds: float | None = None) -> Listing:
    """Return the clips of MUSIC's or MUSIC21's json.

    Its form is {"videos": {instrument: [YouTube id, …]}}, or the same with a further level, solo and duet. These lists
    have no splits, and their videos last minutes.

    Args:
        listing: MUSIC_solo_videos.json, MUSIC_duet_videos.json or MUSIC21_solo_videos.json.
        media: Folder of media files, ID.mp4, at any depth.
        split: Split that all clips get; the json has none.
        clip_seconds: Cut every video into clips of so many seconds, one after the other, and drop the rest at its end;
            null makes each video one clip.
    """
    if clip_seconds is not None and not 0 < clip_seconds < float("inf"):
        raise ManifestError(f"expected clip_seconds to be above 0, got {clip_seconds}")
    found = walk_media(Path(media))
    files = by_stem(found.files)
    clips, missing, short = [], [], 0
    for label, youtube in _music_videos(Path(listing)):
        path = files.get(youtube)
        if path is None:
            missing.append(youtube)
        elif clip_seconds is None:
            clips.append(Clip(youtube, path, split, label=label))
        else:
            try:
                count = int(media_seconds(path) / clip_seconds)
            except DecodeError:
                # Extraction says what is wrong with the file.
                count = 1
            short += not count
            for index in range(count):
                start = index * clip_seconds
                name = f"{start:06.0f}" if clip_seconds == int(clip_seconds) else f"{start:010.3f}"
                clips.append(Clip(f"{youtube}_{name}", path, split, start, clip_seconds, label))
    remark = f"passed over: {short} videos shorter than {clip_seconds:g} s" if short else None
    return _unique(listing, clips, missing, [remark, passed_over_line(found.passed_over)])


def _music_videos(path: Path) -> list[tuple[str, str]]:
    """Return (instrument, YouTube id) of every video."""
    text = read_text(path, "list")
    try:
        if problem := line_problem(text):
            raise ValueError(problem)
        content = parse_json(text)
    except ValueError as error:
        raise ManifestError(f"{path}: {error}") from error
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise ManifestError(f'{path}: expected {{"videos": {{instrument: [YouTube id, …]}}}}')

    def below(label: str, value: Any) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from below(name, inner)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            for youtube in value:
                if problem := name_problem("id", youtube) or label_problem(label):
                    raise ManifestError(f"{path}, {label!r}: {problem}")
                yield label, youtube
        else:
            raise ManifestError(f"{path}, {label!r}: expected a list of YouTube ids, got {printable(str(value)[:60])}")

    try:
        return list(below("", videos))
    except RecursionError as error:
        raise ManifestError(f"{path}: expected instruments with lists of YouTube ids, got nested levels") from error


def folder(media: Path | str, *, split: str = "test") -> Listing:
    """Return the media files of a plain folder, `[SPLIT/][LABEL/]NAME.mp4`, in the order of their paths.

    A first folder named train, val, valid, validation or test is a split; the folder a file lies in, if there is one
    besides, is its label. Files outside such a folder get `split`. Hidden files are passed over. An id is the path
    below the folder without suffix; a.mov and a.mp4 keep theirs. Characters of a name that do not print become escapes
    in the id and the label.

    Args:
        media: The folder; a first level named train, val or test is the split, the folder a file lies in its label.
            Hidden files and files of other suffixes than videos have are passed over and counted.
        split: Split of files outside such a folder.
    """
    root = Path(media)
    found = walk_media(root)
    clips = []
    names = [path.relative_to(root) for path in found.files]
    for path, below, name in zip(found.files, names, file_ids(names), strict=True):
        parts = below.parts
        own_split = parts[0] if len(parts) > 1 and parts[0] in SPLITS else None
        folders = parts[1:-1] if own_split else parts[:-1]
        label = printable(folders[-1]) if folders else None
        clips.append(Clip(name, path, own_split or split, label=label))
    remark = passed_over_line(found.passed_over)
    if not clips:
        raise ManifestError(
            f"{root}: no media files in it ({remark or 'it is empty'}); their suffixes are {', '.join(MEDIA)}"
        )
    return _unique(root, clips, [], [remark])


def is_media(path: Path) -> bool:
    """Return whether a path is a file whose suffix is that of a video."""
    return path.is_file() and path.name.lower().endswith(MEDIA)


def file_ids(files: Sequence[Path]) -> list[str]:
    """Return an id for each file: its path without suffix, or with it where another file differs in that alone."""
    alike: dict[Path, set[Path]] = {}
    for file in files:
        alike.setdefault(file.with_suffix(""), set()).add(file)
    stems = (file.with_suffix("") for file in files)
    return [
        printable((stem if len(alike[stem]) == 1 else file).as_posix()) for file, stem in zip(files, stems, strict=True)
    ]


def media_clip(path: Path, *, split: str = "test") -> Clip:
    """Return a media file as a clip whose id is the file's name without suffix."""
    return Clip(printable(path.stem), path, split)


def clips_of(source: str | Path | Sequence[str | Path]) -> tuple[list[Clip], int]:
    """Return the clips of a manifest, a folder, a media file or a list of files, and how many lines of a manifest give
    none. Of a list, a clip's id is the file's name, as `file_ids` has it."""
    if not isinstance(source, str | Path):
        paths = [Path(path) for path in source]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"expected a media file, found none at {path}; check the name")
        ids = file_ids([Path(path.name) for path in paths])
        clips = [Clip(name, path, "test") for name, path in zip(ids, paths, strict=True)]
        return _unique("the list of files", clips, [], []).clips, 0
    source = Path(source)
    if source.is_dir():
        listing = folder(source)
        for remark in listing.remarks:
            say(f"{source}: {remark}")
        return listing.clips, 0
    if is_media(source):
        return [media_clip(source)], 0
    if not source.exists():
        raise FileNotFoundError(f"nothing at {source}; expected a manifest, a folder of media files or a media file")
    clips, bad = read_manifest_lenient(source)
    for line in bad:
        say(f"skipped {line}")
    return clips, len(bad)


def _unique(source: Path | str, clips: Sequence[Clip], missing: Sequence[str], remarks: list[str | None]) -> Listing:
    """Return clips of distinct ids: a row that comes twice counts once, an id with two meanings is an error."""
    known: dict[str, Clip] = {}
    relabeled: list[Clip] = []
    for clip in clips:
        other = known.setdefault(clip.id, clip)
        if (other.path, other.split, other.start) != (clip.path, clip.split, clip.start):
            raise ManifestError(
                f"{source}: {clip.id!r} is two clips, {other.path} ({other.split}) and {clip.path} ({clip.split}); "
                "rename or drop one of them"
            )
        if other.label != clip.label:
            relabeled.append(clip)
    names = list(dict.fromkeys(missing))
    if repeated := len(clips) - len(known) + len(missing) - len(names):
        remarks.append(f"{repeated} rows repeat a clip and count once")
    if relabeled:
        first = relabeled[0]
        remarks.append(
            f"{len(relabeled)} of them have another label; the first label counts, as {known[first.id].label!r} "
            f"and not {first.label!r} for {first.id}"
        )
    return Listing(list(known.values()), names, [remark for remark in remarks if remark])
