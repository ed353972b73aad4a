"""Fiddle tunes in ABC notation, taken from the installed music21 package.

The files are those of `music21/corpus/ryansMammoth` (Ryan's Mammoth Collection of Fiddle Tunes, 1883). They state no
license of their own; music21 distributes them "with the permission of the encoders". Nothing of them is kept in this
repository.
"""

from __future__ import annotations

import importlib.util
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from numpy.random import Generator

from scav_model.extras import needed_by

FOLDER = Path("corpus/ryansMammoth")
FIELD = re.compile(r"[A-Za-z]:")
# Fields that change how the notes are written or read.
KEPT_FIELDS = "MLK"
INLINE_FIELD = r"\[[A-Za-z]:[^\]\n]*\]"
# Chord names, fingerings, grace notes, decorations, spaces: none of them is played as a note of its own.
ORNAMENT = re.compile(rf'({INLINE_FIELD})|"[^"\n]*"|\{{[^}}\n]*\}}|![^!\n]*!|[uvTHSOPRJLMXy~]')
# A bar line with its repeat signs and the number of an ending. The music is written out once.
BAR_LINE = re.compile(r"\[?:*\|[|\]:]*\s*(?:\[?[1-9][,.\-\d]*)?|::+|\[[1-9][,.\-\d]*")
NOTE = r"[_^=]*[A-Ga-g][,']*"
# What reordering passes over as a whole, or a note and whether it is tied to the next.
ELEMENT = re.compile(rf"(?P<whole>{INLINE_FIELD}|\[[^\]\n]*\]-?)|(?P<note>{NOTE})(?P<length>[\d/]*)(?P<tie>-?)")
GROUP = 4  # notes among which reordering exchanges pitches
DRAWS = 20  # permutations to try before a group is left as it is


@dataclass(frozen=True)
class Tune:
    """A tune: its file's name without the ending, its title, its kind (jig, reel, ...) and its cleaned ABC."""

    name: str
    title: str
    rhythm: str
    abc: str


def package_folder(package: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    with needed_by("scav demo tunes", package):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Path(spec.submodule_search_locations[0])


def read_tunes() -> list[Tune]:
    """Return all tunes of the collection, by name."""
    folder = package_folder("music21") / FOLDER
    files = sorted(folder.glob("*.abc"))
    if not files:
        raise FileNotFoundError(
            f"expected ABC files in {folder}, found none; install music21 from the registry, which ships its corpus"
        )
    return [parse(file.stem, file.read_text(encoding="utf-8", errors="replace")) for file in files]


def parse(name: str, text: str) -> Tune:
    """Return a tune from the text of its file."""
    if "=3D" in text or "=20" in text:  # Some files are still in the encoding of the mail that they came with.
        text = quopri.decodestring(text.encode()).decode("utf-8", errors="replace")
    fields = {key: value.strip() for key, value in re.findall(r"^([A-Za-z]):(.*)$", text, re.MULTILINE)[::-1]}
    return Tune(name, fields.get("T", ""), fields.get("R", "").lower(), clean(text))


def clean(text: str) -> str:
    """Return ABC of the notes alone: no titles, texts, ornaments, repeats and endings."""
    lines = ["X:1"]
    for line in text.splitlines():
        line = line.split("%", 1)[0].strip().removesuffix("\\")
        if FIELD.match(line):
            if line[0] in KEPT_FIELDS:
                lines.append(line)
            continue
        line = ORNAMENT.sub(lambda found: found[1] or "", line)
        line = re.sub(r"(\|\s*)+", "| ", BAR_LINE.sub("| ", line)).strip()
        if line:
            lines.append(line)
    return "\n".join(lines) + "\n"


def reorder(abc: str, random: Generator) -> str:
    """Return the tune with pitches exchanged among every four consecutive notes; their lengths stay in place.

    Chords, tied notes, and bars with accidentals stay as they are, so that the same pitches sound.
    """
    slots: list[list[re.Match[str]]] = [[]]  # runs of notes between what stays
    for first, bar in _bars(abc):
        found = [*ELEMENT.finditer(abc, first, first + len(bar))]
        if any(symbol in bar for symbol in "_^=") or FIELD.match(bar):
            slots.append([])
            continue
        tied = False
        for element in found:
            if element["whole"]:
                slots.append([])
                tied = element["whole"].endswith("-")
                continue
            if not tied and not element["tie"]:
                slots[-1].append(element)
            tied = bool(element["tie"])
    pieces, end = [], 0
    for run in slots:
        for place in range(0, len(run) - GROUP + 1, GROUP):
            group = run[place : place + GROUP]
            for element, pitch in zip(group, _permuted([element["note"] for element in group], random), strict=True):
                pieces += [abc[end : element.start("note")], pitch]
                end = element.end("note")
    return "".join([*pieces, abc[end:]])


def _bars(abc: str) -> Iterator[tuple[int, str]]:
    """Yield the bars' texts and where they start; a line of a field is one."""
    start = 0
    for line in abc.splitlines(keepends=True):
        if FIELD.match(line):
            yield start, line
        else:
            place = start
            for bar in line.split("|"):
                yield place, bar
                place += len(bar) + 1
        start += len(line)


def _permuted(pitches: list[str], random: Generator) -> list[str]:
    for _ in range(DRAWS):
        drawn = [pitches[place] for place in random.permutation(len(pitches))]
        if drawn != pitches:
            return drawn
    return pitches
