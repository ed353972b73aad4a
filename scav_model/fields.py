"""Configs of documented fields: make, write, read and compare them. Nothing here imports torch."""

import difflib
import inspect
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def about(help: str, *, assumption: bool = False, free: bool = False, old_name: str | None = None) -> dict[str, Any]:
    """Metadata of a field. `free` fields may change when a run is resumed: they alter no weight."""
    return {"help": help, "assumption": assumption, "free": free, "old_name": old_name}


def setting(default: T, help: str, *, assumption: bool = False, free: bool = False) -> T:
    """A field with a help text, typed as the value it holds."""
    return field(default=default, metadata=about(help, assumption=assumption, free=free))


def assumed(default: T, help: str, *, old_name: str | None = None) -> T:
    """A field whose value the paper does not state. Saved configs may call it by its `old_name`."""
    return field(default=default, metadata=about(help, assumption=True, old_name=old_name))


def documented(cls: type[T]) -> type[T]:
    """Writes the fields' help into the class docstring, where `help()` and the command line both read it."""
    lines = [inspect.cleandoc(cls.__doc__ or ""), "", "Args:"]
    for entry in fields(cls):  # type: ignore[arg-type]
        mark = " [assumption]" if entry.metadata["assumption"] else ""
        lines.append(f"    {entry.name}: {entry.metadata['help']}{mark}")
    cls.__doc__ = "\n".join(lines)
    return cls


def require(holds: bool, name: str, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value!r}")


def section(entry: Any) -> type | None:
    """The config class that a dataclass's field holds; None where it holds a plain value."""
    factory = entry.default_factory
    return factory if factory is not MISSING and isinstance(factory, type) and is_dataclass(factory) else None


def names(cls: type, prefix: str = "") -> list[str]:
    """Every field of a config class and of its sections, as in `model.heads`."""
    found = []
    for entry in fields(cls):
        inner = section(entry)
        found += [prefix + entry.name] if inner is None else names(inner, f"{prefix}{entry.name}.")
    return found


def nearest(name: str, valid: Iterable[str]) -> str:
    """ ", did you mean model.heads?" for `modle.heads`, and for `heads` alone; empty where nothing is near."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.7)
    if not close:
        leaves = {other.rsplit(".", 1)[-1]: other for other in valid}
        close = [leaves[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1, cutoff=0.7)]
    return f", did you mean {close[0]}?" if close else ""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested dicts of plain values, as YAML and checkpoints hold it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    return plain(asdict(config))


def from_dict(cls: type[T], values: Mapping[str, Any]) -> T:
    """The config that `to_dict` wrote. A missing field keeps its default; an unknown one is a ValueError."""
    known = {entry.name: entry for entry in fields(cls)}  # type: ignore[arg-type]
    values = with_current_names(cls, values)
    for name in values:
        if name not in known:
            hint = nearest(name, [*known, *names(cls)])
            raise ValueError(f"{cls.__name__} has no field {name}{hint or ';'} its fields are {', '.join(known)}")
    arguments = {}
    for name, value in values.items():
        inner = section(known[name])
        if inner is not None and not isinstance(value, Mapping):
            raise ValueError(f"{cls.__name__}.{name} must be a mapping of settings, got {value!r}")
        arguments[name] = value if inner is None else from_dict(inner, value)
    return cls(**arguments)


def with_current_names(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a config class and its sections, with old names of fields replaced.

    Warns:
        DeprecationWarning: for each old name.
    """
    entries = {entry.name: entry for entry in fields(cls)}
    old = {entry.metadata["old_name"]: entry.name for entry in entries.values() if entry.metadata.get("old_name")}
    renamed = {}
    for name, value in values.items():
        if name in old:
            warnings.warn(f"{cls.__name__}.{name} is now {old[name]}", DeprecationWarning, stacklevel=3)
            name = old[name]
        inner = section(entries[name]) if name in entries else None
        renamed[name] = with_current_names(inner, value) if inner and isinstance(value, Mapping) else value
    return renamed


def old_names(cls: type, prefix: str = "") -> dict[str, str]:
    """Return the current name of every field that has an old one, as in {"model.head": "model.heads"}."""
    found: dict[str, str] = {}
    for entry in fields(cls):
        inner = section(entry)
        if inner is not None:
            found |= old_names(inner, f"{prefix}{entry.name}.")
        elif entry.metadata.get("old_name"):
            found[prefix + entry.metadata["old_name"]] = prefix + entry.name
    return found


def differences(saved: Any, current: Any) -> list[str]:
    """List the fields in which `current` differs from `saved`, each as "field: checkpoint …, now …"."""

    def walk(old: Any, new: Any, prefix: str) -> list[str]:
        found = []
        for entry in fields(old):
            before, after = getattr(old, entry.name), getattr(new, entry.name)
            if is_dataclass(before):
                found += walk(before, after, f"{prefix}{entry.name}.")
            elif before != after and not entry.metadata["free"]:
                found.append(f"{prefix}{entry.name}: checkpoint {before!r}, now {after!r}")
        return found

    return walk(saved, current, "")
