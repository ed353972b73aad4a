"""Reading lists of clips: their bytes and their encoding."""

from __future__ import annotations

import codecs
from pathlib import Path

HEAD_BYTES = 4096  # Bytes looked at to tell a text from a binary file.
# UTF-32 first: its little-endian mark begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class ManifestError(ValueError):
    """A manifest or list that cannot be used; the message names file and line."""


def read_text(path: Path, kind: str) -> str:
    """Return the text of a list in UTF-8, or in UTF-16 with a byte order mark.

    A byte that is not UTF-8 becomes a surrogate, so that `line_problem` can name its line.

    Args:
        path: of the list.
        kind: name of the list in errors, such as "manifest".
    """
    if path.is_dir():
        raise ManifestError(f"{path} is a folder; expected a {kind}, which is a file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            marked = next((name for mark, name in MARKS if head.startswith(mark)), None)
            if marked is None and b"\0" in head and not head.lstrip().startswith(b"{"):
                raise ManifestError(f"{path}: expected UTF-8 text, got a binary file; name a {kind}")
            content = head + file.read()
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: no such {kind}") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot read this {kind}: {error.strerror or error}") from error
    try:
        return content.decode(marked) if marked else content.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: expected UTF-8 text, or text in the encoding of its byte order mark: {error}; save it as UTF-8"
        ) from error


def line_problem(line: str) -> str | None:
    """Return why a line of `read_text` is no text, or None if it is."""
    for character in line if not line.isascii() or "\0" in line else "":
        if "\udc80" <= character <= "\udcff":
            return f"expected UTF-8 text, got the byte 0x{ord(character) - 0xDC00:02x}; save the file as UTF-8"
        if character == "\0":
            return "expected text, got a NUL byte; save the file as UTF-8"
    return None
