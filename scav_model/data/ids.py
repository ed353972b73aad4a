"""The list of clips that were used, which belongs with every score: videos vanish, and galleries differ."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from scav_model.storage.files import write_whole
from scav_model.storage.text import shown


def name_problem(key: str, value: object) -> str | None:
    """Return why a store cannot hold `value` as an id or a split, or None if it can.

    Args:
        key: what the value is, for the message: "id" or "split".
        value: of a manifest, an archive or a table.
    """
    if not isinstance(value, str) or not value:
        return f"expected {key!r} to be a non-empty string, got {shown(value)}"
    if not value.isprintable():
        return f"expected {key!r} to be of printable characters (no tabs, line ends or surrogates), got {shown(value)}"
    return None


def are_names(values: Sequence[str]) -> bool:
    """Return whether a store can hold all of these texts as ids: `name_problem` of many, at once."""
    return all(values) and "".join(values).isprintable()


def label_problem(value: object) -> str | None:
    """Return why a store cannot hold `value` as a label, or None if it can."""
    if not isinstance(value, str):
        return f"expected 'label' to be a string, got {shown(value)}"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return f"expected 'label' to be text that UTF-8 can hold, got {shown(value)}"
    return None


def ids_text(ids: Sequence[str]) -> bytes:
    """One id a line, in the order of the ids, so that the same clips make the same list."""
    return "".join(f"{name}\n" for name in sorted(ids)).encode()


def ids_sha256(ids: Sequence[str]) -> str:
    """SHA-256 of the list, as `sha256sum` gives it for the file that `write_ids` writes."""
    return hashlib.sha256(ids_text(ids)).hexdigest()


def write_ids(path: Path | str, ids: Sequence[str]) -> None:
    write_whole(Path(path), ids_text(ids))
