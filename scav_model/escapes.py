"""Characters that do not print, as JSON writes them. Nothing here imports more than Python."""

import re


def json_escapes(text: str) -> str:
    r"""Return every character of `text` as JSON's escape: `é` as `\u00e9`, a surrogate as itself, `\udcff`."""
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("(....)", r"\\u\1", units)


def printable_json(text: str) -> str:
    """Return JSON in which every character that does not print, line ends between values excepted, is an escape."""
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else "".join(map(_escaped, line)) for line in lines)


def _escaped(character: str) -> str:
    return character if character.isprintable() else json_escapes(character)
