"""Tables of clips as data sets come with: csv, or the same with semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from scav_model.data.text_files import ManifestError, line_problem, read_text

DELIMITERS = (",", "\t", ";")
END = "end of the table"
LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")
Row = tuple[int, list[str]]  # first line, from 1; cells without spaces around them


def read_table(path: Path, is_row: Callable[[list[str]], bool]) -> list[Row]:
    """Return the rows of a table, without blank ones.

    The delimiter is the first of comma, tab and semicolon that makes a row of the first line.

    Args:
        path: of the table.
        is_row: says whether cells look like a row or the header.

    Raises:
        ManifestError: no text, or quotes that do not pair; the message names the line.
    """
    text = read_text(path, "list")
    for number, line in enumerate(text.split("\n"), start=1):
        if problem := line_problem(line):
            raise ManifestError(f"{path}, line {number}: {problem}")
    for delimiter in DELIMITERS:
        try:
            first = next((cells for _, cells in _rows(text, path, delimiter, is_row)), [])
        except ManifestError:
            continue
        if is_row(first):
            return list(_rows(text, path, delimiter, is_row))
    return list(_rows(text, path, DELIMITERS[0], is_row))


def _rows(text: str, path: Path, delimiter: str, is_row: Callable[[list[str]], bool]) -> Iterator[Row]:
    # A quote that is not closed swallows what comes after it, the last line too.
    lines = [*io.StringIO(f"{text}\n", newline=""), END]
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    number = 1
    try:
        for cells in reader:
            if cells == [END]:
                return
            if reader.line_num == len(lines):
                raise csv.Error("a quote is not closed")
            # Or it reaches to the next quote and swallows the rows between.
            for swallowed in lines[number : reader.line_num]:
                if is_row([cell.strip() for cell in swallowed.split(delimiter)]):
                    raise csv.Error(f"the cell runs on to line {reader.line_num} and takes in other rows")
            stripped = [LINE_ENDS.sub(" ", cell).strip() for cell in cells]
            if any(stripped):
                yield number, stripped
            number = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(
            f"{path}, line {number}: cannot read this row ({error}); close each quoted cell on the line where it opens"
        ) from error
