"""An experiment's results on disk: what it was about, and rows that grow cell by cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scav_model.files import write_text

Row = dict[str, Any]
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
        self.settings = json.loads(json.dumps(settings))
        self.keys = tuple(keys)
        self.rows: list[Row] = []
        if self.path.exists() and not overwrite:
            if not resume:
                raise FileExistsError(
                    f"{self.path} exists; --resume keeps its cells, --overwrite starts anew, or choose another --out"
                )
            found = load(self.path)
            differing = [
                f"{name}: there {found['settings'].get(name)!r}, now {value!r}"
                for name, value in self.settings.items()
                if found["settings"].get(name) != value
            ]
            if differing:
                raise ValueError(
                    f"{self.path} is of another experiment ({'; '.join(differing)}); "
                    "repeat its settings, start anew with --overwrite, or choose another --out"
                )
            self.rows = found["rows"]
        out.mkdir(parents=True, exist_ok=True)
        self._done = {self._key(row) for row in self.rows}

    def has(self, **cell: Any) -> bool:
        return self._key(cell) in self._done

    def add(self, rows: Iterable[Row]) -> None:
        """Adds the rows of finished cells, and writes the file."""
        rows = list(rows)
        self.rows += rows
        self._done |= {self._key(row) for row in rows}
        # A line per row: large tables stay readable.
        lines = ",\n".join(json.dumps(row) for row in self.rows)
        head = json.dumps({"format": FORMAT, "settings": self.settings}, indent=1).removesuffix("\n}")
        write_text(self.path, f'{head},\n "rows": [\n{lines}\n]}}\n')

    def of(self, cells: Iterable[Mapping[str, Any]]) -> list[Row]:
        """The rows of these cells, in the order of the cells, whatever else the file holds from earlier runs."""
        found: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            found.setdefault(self._key(row), []).append(row)
        return [row for cell in cells for row in found[self._key(cell)]]

    def _key(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.keys)


def load(path: Path) -> dict[str, Any]:
    """What `Results` wrote: settings and rows."""
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the experiment first, or name another file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); name the results.json of an experiment") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        have = found.get("format") if isinstance(found, dict) else None
        raise ValueError(f"{path} has format {have}, expected {FORMAT}; name the results.json of an experiment")
    return found


def both_ways(rows: Iterable[Row], keys: Sequence[str], measure: str = "R@1") -> dict[tuple[Any, ...], float]:
    """Mean of `measure` over the two directions, by the rows' keys."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in keys), []).append(row[measure])
    return {key: mean(values) for key, values in found.items()}


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], names: int = 0) -> str:
    """A Markdown table: `names` columns to the left, then numbers, to the right."""
    rule = ["---"] * names + ["---:"] * (len(heads) - names)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))
