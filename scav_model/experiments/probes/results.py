"""A probe's results on disk: its settings, and rows that grow cell by cell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scav_model.experiments.folder import as_stored, check_earlier_run
from scav_model.experiments.tables import Row, read_json
from scav_model.progress import Progress
from scav_model.storage.files import write_text

RESULTS = "results.json"
FORMAT = 1


class Results:
    """`out`/results.json: {"format", "settings", "rows"}; rows hold a cell's key and what was found there.

    Args:
        out: the experiment's folder; made if need be.
        settings: plain values that two runs must share for their rows to be of one experiment.
        keys: the names of a row that together say which cell it belongs to.
        resume: keep the cells of an earlier run with the same settings.
        overwrite: start anew although there are some.
    """

    def __init__(
        self, out: Path, settings: Mapping[str, Any], keys: Sequence[str], *, resume: bool, overwrite: bool
    ) -> None:
        self.path = out / RESULTS
        self.settings = as_stored(settings)
        self.keys = tuple(keys)
        self.rows: list[Row] = []
        if self.path.exists() and not overwrite:
            found = load(self.path)
            check_earlier_run(self.path, found["settings"], self.settings, resume=resume, anew="overwrite it")
            self.rows = found["rows"]
        out.mkdir(parents=True, exist_ok=True)
        self._done = {self._key(row) for row in self.rows}

    def fill(self, cells: Sequence[Row], search: Callable[[Row], Iterable[Row]]) -> list[Row]:
        """Search the cells that are missing, write the file after each, and return the rows of all `cells` in order."""
        missing = [cell for cell in cells if self._key(cell) not in self._done]
        if missing:
            for cell in Progress(missing, desc="cells", unit="cell"):
                self.add({**cell, **row} for row in search(cell))
        return self.of(cells)

    def add(self, rows: Iterable[Row]) -> None:
        """Add the rows of finished cells, and write the file."""
        rows = list(rows)
        self.rows += rows
        self._done |= {self._key(row) for row in rows}
        # A line per row: large tables stay readable.
        lines = ",\n".join(json.dumps(row) for row in self.rows)
        head = json.dumps({"format": FORMAT, "settings": self.settings}, indent=1).removesuffix("\n}")
        write_text(self.path, f'{head},\n "rows": [\n{lines}\n]}}\n')

    def of(self, cells: Iterable[Mapping[str, Any]]) -> list[Row]:
        """Return the rows of these cells in order, whatever else the file holds from earlier runs."""
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(self._key(row), []).append(row)
        return [row for cell in cells for row in found[self._key(cell)]]

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.keys)


def load(path: Path) -> dict[str, Any]:
    """Return what `Results` wrote: settings and rows."""
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the experiment first, or name another file")
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        have = found.get("format") if isinstance(found, dict) else None
        raise ValueError(f"{path} has format {have}, expected {FORMAT}; name the results.json of an experiment")
    return found
