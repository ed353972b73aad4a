"""Text of unknown origin, such as file names, made fit for terminals, lists and JSON.

Nothing here imports more than Python at once, so that the command line starts quickly.
"""

from __future__ import annotations

import re
import reprlib
import sys

SHOWN = 80  # characters of a value in an error
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = SHOWN


def printable(text: str) -> str:
    r"""Return `text` with every character that does not print as an escape: `a\tb`, `caf\xe9`, `\u3000`.

    Bytes of a file name that are not UTF-8 become `\x..` too.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    # Python stands such a byte of a file name for by a surrogate.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def json_escapes(text: str) -> str:
    r"""Return every character of `text` as JSON's escape: `é` as `\u00e9`, a surrogate as itself, `\udcff`."""
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("(....)", r"\\u\1", units)


def printable_json(text: str) -> str:
    """Return JSON in which every character that does not print, line ends between values excepted, is an escape."""
    lines = text.split("\n")
    return "\n".join(
        line if line.isprintable() else "".join(c if c.isprintable() else json_escapes(c) for c in line)
        for line in lines
    )


def shown(value: object, limit: int = SHOWN) -> str:
    """Return `repr(value)`, cut to `limit` characters, for errors; of a large value only the beginning is looked at."""
    text = repr(value[:limit]) if isinstance(value, str) else _REPR.repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def say(text: str) -> None:
    """Print one line above a progress bar, with escapes for what the terminal's encoding lacks."""
    from tqdm import tqdm

    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    tqdm.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))
