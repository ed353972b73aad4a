"""JSON that may come from a stranger: whatever is not expected is a ValueError with a message of one line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from typing import Any, BinaryIO, NoReturn

from scav_model.storage.text import shown

MAX_DEPTH = 32
# A file of zeros takes no space on the disk, and all of it in memory.
MAX_BYTES = 1 << 30
# Counts and sizes fit in 64 bits with a sign; so do sums of a few of them.
MAX_INTEGER = 1 << 60


def read_json(content: bytes) -> Any:
    """Parse UTF-8 JSON.

    Raises:
        ValueError: no UTF-8 or no JSON; a key that comes twice; NaN, an infinity or an integer beyond 2^60; objects and
            lists nested more than 32 deep.
    """
    try:
        values = json.loads(
            content.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse,
            parse_float=_float,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError(f"objects are nested more than {MAX_DEPTH} deep") from None
    level = [values]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise ValueError(f"objects are nested more than {MAX_DEPTH} deep")
    return values


def read_json_file(file: BinaryIO) -> Any:
    """`read_json` of an open file.

    Raises:
        ValueError: as `read_json`; or more than 1 GiB.
    """
    size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MAX_BYTES}")
    return read_json(file.read())


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} comes twice in one object; leave one")
    return values


# Made once: a list of clips has a text per line.
_LENIENT = json.JSONDecoder(object_pairs_hook=_object)


def parse_json(text: str | bytes) -> Any:
    """Return the value of a text that a user wrote, such as a line of a list: where it is no JSON, the error says so.

    Raises:
        ValueError: not JSON, or a key that comes twice in an object; the message says where.
    """
    try:
        return _LENIENT.decode(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"not valid JSON: {error.msg} at {where}") from error
    except RecursionError as error:
        raise ValueError("not valid JSON for a list of clips: nested too deep") from error


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"expected finite numbers, got {text}")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {shown(text)}")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"expected integers of at most 2^60, got {shown(text)}")
    return int(text)


def is_writable(text: str) -> bool:
    """Return whether JSON can hold a text: a name of a file need not be UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Fields:
    """The fields of a JSON object. Each is checked when it is taken; all errors are ValueErrors that name the field."""

    def __init__(self, values: Any, name: str) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"expected {name} to be an object, got {shown(values)}")
        self._values, self._name = values, name

    def take(self, field: str, kind: type | tuple[type, ...], expected: str) -> Any:
        """The value of a field, of the types that `kind` names; bool is no int here."""
        if field not in self._values:
            raise ValueError(f"{self._name} has no {field!r}")
        value = self._values[field]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:
            self._refuse(field, expected, value)
        return value

    def _refuse(self, field: str, expected: str, value: Any) -> NoReturn:
        raise ValueError(f"expected {field!r} of {self._name} to be {expected}, got {shown(value)}")

    def text(self, field: str) -> str:
        value: str = self.take(field, str, "text")
        return value

    def integer(self, field: str, at_least: int = 0) -> int:
        value: int = self.take(field, int, "an integer")
        if value < at_least:
            self._refuse(field, f"at least {at_least}", value)
        return value

    def positive(self, field: str) -> float:
        """A number above 0, as it was spelled: an integer stays one."""
        value: float = self.take(field, (int, float), "a number")
        if not value > 0:
            self._refuse(field, "above 0", value)
        return value

    def flag(self, field: str) -> bool:
        value: bool = self.take(field, bool, "true or false")
        return value

    def items(self, field: str) -> list[Any]:
        value: list[Any] = self.take(field, list, "a list")
        return value

    def mapping(self, field: str) -> dict[str, Any]:
        value: dict[str, Any] = self.take(field, dict, "an object")
        return value

    def only(self, fields: Collection[str]) -> None:
        """Refuse fields of other names."""
        for field in self._values:
            if field not in fields:
                raise ValueError(f"{self._name} has an unknown field, {shown(field)}")
