"""Labels of clips, and the folds that data sets split them into: manifest columns, UCF101, HMDB51, ESC-50."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scav_model.data.tables import read_table
from scav_model.data.text_files import ManifestError, line_problem, read_text
from scav_model.storage.strict_json import parse_json
from scav_model.storage.text import shown

Labels = Mapping[str, str]
MEDIA = re.compile(r"\.(avi|mp4|wav|ogg|flac|mkv|mov|webm)$", re.IGNORECASE)


@dataclass(frozen=True)
class Fold:
    """Labels of the clips to learn from and of those to classify, by the clips' names."""

    name: str
    train: Labels
    test: Labels


def clip_name(name: str) -> str:
    """Return the name by which lists and features agree: without folders and the suffix of a media file."""
    return MEDIA.sub("", PurePosixPath(name).name)


def read_column(path: Path, column: str) -> dict[str, str]:
    """Return the value of `column` by clip id, from a manifest or any JSON Lines file whose objects have an id.

    Raises:
        ManifestError: a line is no object with an id, or no line has the column.
    """
    found: dict[str, str] = {}
    columns: set[str] = set()
    for number, line in _lines(path):
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise ManifestError(f"{path}, line {number}: {error}") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            raise ManifestError(f"{path}, line {number}: expected an object with an id, got {shown(line)}")
        columns |= entry.keys()
        if entry.get(column) is not None:
            found[entry["id"]] = str(entry[column])
    if not found:
        raise ManifestError(f"{path}: expected a column {column!r}, got {', '.join(sorted(columns)) or 'no lines'}")
    return found


def ucf101(folder: Path) -> list[Fold]:
    """Return the three folds of UCF101: trainlist01.txt and testlist01.txt to 03, `Class/v_Class_g01_c01.avi [1]`."""

    def labels(path: Path) -> dict[str, str]:
        found = {}
        for number, line in _lines(path):
            match = re.fullmatch(r"(?P<label>[^/]+)/(?P<file>[^/ ]+)( \d+)?", line)
            if match is None:
                raise ManifestError(f"{path}, line {number}: expected Class/v_Class_g01_c01.avi, got {shown(line)}")
            found[clip_name(match["file"])] = match["label"]
        return found

    numbers = _numbers(folder, "testlist*.txt", r"testlist(\d+)\.txt")
    return [
        Fold(number, labels(folder / f"trainlist{number}.txt"), labels(folder / f"testlist{number}.txt"))
        for number in numbers
    ]


def hmdb51(folder: Path) -> list[Fold]:
    """Return the three folds of HMDB51: `CLASS_test_split1.txt` to 3, `name.avi 1` (train), 2 (test) or 0 (unused)."""
    folds = []
    for number in _numbers(folder, "*_test_split*.txt", r".*_test_split(\d+)\.txt"):
        sides: dict[str, dict[str, str]] = {"1": {}, "2": {}}
        for path in sorted(folder.glob(f"*_test_split{number}.txt")):
            label = path.name.removesuffix(f"_test_split{number}.txt")
            for line_number, line in _lines(path):
                match = re.fullmatch(r"(?P<file>.+\.avi) (?P<use>[012])", line)
                if match is None:
                    raise ManifestError(f"{path}, line {line_number}: expected NAME.avi 0, 1 or 2, got {shown(line)}")
                if match["use"] != "0":
                    sides[match["use"]][clip_name(match["file"])] = label
        folds.append(Fold(number, sides["1"], sides["2"]))
    return folds


def esc50(path: Path) -> list[Fold]:
    """Return the five folds of ESC-50's esc50.csv (or of the folder that holds it): each fold is the test set once."""
    path = path / "esc50.csv" if path.is_dir() else path
    rows = read_table(path, lambda cells: len(cells) > 3)
    head = rows[0][1] if rows else []
    missing = [name for name in ("filename", "fold", "category") if name not in head]
    if missing:
        raise ManifestError(f"{path}: expected a header with filename, fold and category, without {', '.join(missing)}")
    name, fold, category = (head.index(column) for column in ("filename", "fold", "category"))
    for number, cells in rows[1:]:
        if len(cells) != len(head):
            raise ManifestError(f"{path}, line {number}: expected {len(head)} cells, got {len(cells)}")
    clips = [(cells[fold], clip_name(cells[name]), cells[category]) for _, cells in rows[1:]]
    return [
        Fold(
            held_out,
            {clip: label for number, clip, label in clips if number != held_out},
            {clip: label for number, clip, label in clips if number == held_out},
        )
        for held_out in sorted({number for number, _, _ in clips})
    ]


READERS: dict[str, Callable[[Path], list[Fold]]] = {"ucf101": ucf101, "hmdb51": hmdb51, "esc50": esc50}


def read_folds(spec: str) -> tuple[str, list[Fold]]:
    """Return the data set's name and its folds, from `ucf101:FOLDER`, `hmdb51:FOLDER` or `esc50:FILE`."""
    name, separator, place = spec.partition(":")
    if name not in READERS or not separator:
        raise ValueError(f"expected folds as ucf101:FOLDER, hmdb51:FOLDER or esc50:FILE, got {spec!r}")
    return name, READERS[name](Path(place))


def column_fold(labels: Labels, train: Sequence[str], test: Sequence[str]) -> Fold:
    """Return the labels of the clips of two splits; clips without a label are left out."""
    return Fold("1", *({name: labels[name] for name in names if name in labels} for names in (train, test)))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_text(path, "list").split("\n"), start=1):
        if problem := line_problem(line):
            raise ManifestError(f"{path}, line {number}: {problem}")
        if line.strip():
            yield number, line.strip()


def _numbers(folder: Path, pattern: str, name: str) -> list[str]:
    found = sorted({match[1] for path in folder.glob(pattern) if (match := re.fullmatch(name, path.name))})
    if not found:
        raise ManifestError(f"{folder}: expected fold files, {pattern}, found none; name the folder that has them")
    return found
