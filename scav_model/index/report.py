"""Answers as a table and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from scav_model.index.align import Alignment
from scav_model.index.search import Answer
from scav_model.storage.text import printable, printable_json


def as_json(answer: Answer, aligned: list[list[Alignment]] | None = None) -> str:
    """Return one object: `mode`, `side`, `searched`, `notes`, and a list of queries with their hits.

    Characters that do not print are escapes, and numbers that are not finite null.
    """
    listed: list[dict[str, Any]] = []
    for query, (name, hits) in enumerate(zip(answer.queries.names, answer.hits, strict=True)):
        rows = [{key: value for key, value in asdict(hit).items() if key != "number"} for hit in hits]
        for place, row in enumerate(rows if aligned is not None else []):
            row["alignment"] = asdict(aligned[query][place]) if aligned is not None else None
        listed.append({"query": name, "hits": rows})
    whole = {
        "mode": answer.mode,
        "side": answer.queries.side,
        "searched": answer.queries.target,
        "notes": answer.notes,
        "queries": listed,
    }
    return printable_json(json.dumps(_finite(whole), indent=2, ensure_ascii=False))


def _finite(value: Any) -> Any:
    """Return plain values with None for the numbers that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_table(answer: Answer) -> str:
    """Return a line for each hit, with escapes for what does not print; notes are for elsewhere."""
    rows = [["query", "rank", "id", "distance", "file"]]
    for name, hits in zip(answer.queries.names, answer.hits, strict=True):
        for hit in hits:
            cells = [name, str(hit.rank), hit.id, f"{hit.distance:.4f}", str(hit.media.get("path") or "")]
            rows.append([printable(cell) for cell in cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if name in ("rank", "distance") else cell.ljust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
