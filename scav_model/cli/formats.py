"""The format of an output, by an option or by the suffix of its name."""

from collections.abc import Mapping
from pathlib import Path


def format_of(output: Path | None, named: str | None, formats: Mapping[str, str]) -> str:
    """Return the format to write: the one that is named, or else that of the output's name.

    Args:
        formats: by suffix; "" is that of names without one, and of what is printed.

    Raises:
        ValueError: the two differ, or the name's suffix is of no format and none is named.
    """
    if output is None:
        return named or formats[""]
    suffix = output.suffix.lower()
    found = formats.get(suffix, named)
    if found is None:
        first: dict[str, str] = {}
        for name, kind in formats.items():
            first.setdefault(kind, name)
        *others, last = first.values()
        raise ValueError(
            f"expected the name of --output to end in {', '.join(others)} or {last}, got {output}; end it so, or give "
            "--format"
        )
    if named not in (None, found) and suffix:
        raise ValueError(
            f"expected --format and --output to agree, got --format {named} and {output}, which is for {found}; leave "
            "--format out, or change the name"
        )
    return named or found
