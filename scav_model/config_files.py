"""Config files: YAML that may name the file it changes, `base: vggsound/scav_dtw`. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from scav_model.config import Config, from_dict
from scav_model.extras import needed_by
from scav_model.fields import nearest, section, with_current_names

with needed_by("reading config files"):
    import yaml

CONFIGS = Path(__file__).parent / "configs"
# Sections of a config, which a file may change in part; anything else it replaces whole, a metric's options too.
SECTIONS = frozenset(entry.name for entry in fields(Config) if section(entry))


def packaged() -> list[str]:
    """Names of the configs that come with the program, such as vggsound/scav_dtw."""
    return sorted(path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.yaml"))


def find(name: str, folder: Path) -> Path:
    """The file of that name, seen from `folder`, or else the packaged config."""
    for path in (folder / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no config file {name} in {folder}{nearest(name, packaged()) or ';'} packaged are {', '.join(packaged())}"
    )


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under` with what `over` changes."""
    merged = dict(under)
    for name, value in over.items():
        both = name in SECTIONS and isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if both else value
    return merged


def read(name: str | Path, folder: Path | None = None) -> dict[str, Any]:
    """A file's settings laid over those of its base, and its base's base. `folder` is where relative names start."""
    return _read(find(str(name), folder or Path()), ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in above:
        circle = " → ".join(str(each) for each in (*above[above.index(path) :], path))
        raise ValueError(f"expected configs that end in one without base, got a circle: {circle}")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings by name, got {type(found).__name__}")
    base = found.pop("base", None)
    found = with_current_names(Config, found)
    return found if base is None else merge(_read(find(str(base), path.parent), (*above, path)), found)


def load(name: str | Path, *over: Mapping[str, Any]) -> Config:
    """The config in a file, or a packaged one, with later settings laid over it."""
    settings = read(name)
    for changes in over:
        settings = merge(settings, changes)
    return from_dict(Config, settings)
