"""Text of unknown origin, such as file names, made fit for terminals and lists."""

from __future__ import annotations

import sys

from tqdm import tqdm


def printable(text: str) -> str:
    r"""Return `text` with every character that does not print as an escape: `a\tb`, `caf\xe9`, `\u3000`.

    Bytes of a file name that are not UTF-8 become `\x..` too.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    # Python stands such a byte of a file name for by a surrogate.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def shown(value: object, limit: int = 80) -> str:
    """Return `repr(value)`, cut to `limit` characters, for errors."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def say(text: str) -> None:
    """Print one line above a progress bar, with escapes for what the terminal's encoding lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    tqdm.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))
