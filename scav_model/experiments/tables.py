"""Rows of results, and the JSON and Markdown files that show them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from scav_model.storage.files import write_text

Row = dict[str, Any]


def write_json(path: Path, value: Any) -> None:
    """Write `value`; a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; an error names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); name a file that an experiment wrote") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object in {path}, got {type(found).__name__}; restore or remove the file")
    return found


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]], names: int = 0) -> str:
    """Return a Markdown table: `names` columns to the left, then numbers, to the right."""
    rule = ["---"] * names + ["---:"] * (len(heads) - names)
    return "\n".join("| " + " | ".join(line) + " |" for line in (heads, rule, *lines))


def mean_of_directions(rows: Iterable[Row], keys: Sequence[str], measure: str = "R@1") -> dict[tuple[Any, ...], float]:
    """Return the mean of `measure` over the two directions of search, by the rows' keys."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in keys), []).append(row[measure])
    return {key: mean(values) for key, values in found.items()}
