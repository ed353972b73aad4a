"""ABC of the notes alone, and tunes in another order."""

import re

import numpy as np
import pytest

from scav_model.experiments.tunes.corpus import NOTE, clean, parse, reorder

TUNE = """X: 7
T: The Test -- REEL
R: Reel
C: nobody
M: 4/4
L: 1/8
K: G
% a comment
|: "Am"{g}uGABc vd2 (3efg | ~dcBA G4 :|
[K:D] !trill!ABcd efga |1 a4 z4 :|2 a2-a2 [DA]4 |]
P: B
K: C
^FGAB c2d2 \\
| edcB A4 ||
"""


def test_only_notes_are_left() -> None:
    assert clean(TUNE).splitlines() == [
        "X:1",
        "M: 4/4",
        "L: 1/8",
        "K: G",
        "| GABc d2 (3efg | dcBA G4 |",
        "[K:D] ABcd efga | a4 z4 | a2-a2 [DA]4 |",
        "K: C",
        "^FGAB c2d2",
        "| edcB A4 |",
    ]


def test_a_tune_has_its_first_title_and_its_kind() -> None:
    tune = parse("Test", TUNE)
    assert (tune.name, tune.title, tune.rhythm) == ("Test", "The Test -- REEL", "reel")


def test_the_encoding_of_mails_is_undone() -> None:
    assert parse("Test", "X:1\nK:C\n=3DB2 c4 |=20\n").abc.splitlines() == ["X:1", "K:C", "=B2 c4 |"]


@pytest.fixture
def reordered() -> tuple[str, str]:
    abc = clean(TUNE)
    return abc, reorder(abc, np.random.default_rng(0))


def test_reordering_exchanges_pitches_and_nothing_else(reordered: tuple[str, str]) -> None:
    before, after = reordered
    assert after != before
    assert re.sub(NOTE, "n", after) == re.sub(NOTE, "n", before)
    first = [re.findall(NOTE, text.split("\n")[4]) for text in reordered]
    assert first[0] != first[1]
    # Groups of four: GABc, defg (in order of the file: d2 (3efg), dcBA; the last note of the line is left over.
    for place in range(0, 12, 4):
        assert sorted(first[0][place : place + 4]) == sorted(first[1][place : place + 4])
    assert first[0][12:] == first[1][12:]


def test_chords_ties_and_bars_with_accidentals_stay(reordered: tuple[str, str]) -> None:
    before, after = (text.splitlines() for text in reordered)
    assert after[5].split("|")[2] == before[5].split("|")[2] == " a2-a2 [DA]4 "
    assert after[7] == before[7]


@pytest.mark.parametrize("seed", range(5))
def test_tied_notes_stay_tied(seed: int) -> None:
    after = reorder(clean("X:1\nK:C\nAG-GE cdef | gabc' [ce]-cde|\n"), np.random.default_rng(seed))
    notes = re.findall(NOTE, after.splitlines()[-1])
    assert re.search(r".G-G.", after)
    # The end of a chord's tie stays; the notes around a tie are exchanged with one another.
    assert "[ce]-c" in after
    assert sorted([notes[0], *notes[3:6]]) == sorted("AEcd")


def test_equal_pitches_stay_as_they_are() -> None:
    abc = clean("X:1\nK:C\nGGGG GGGG|\n")
    assert reorder(abc, np.random.default_rng(0)) == abc
