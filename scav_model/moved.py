"""Names of modules that have moved: the old ones work for one version, and warn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def forward(old: str, new: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return `__getattr__` for the module `old`: it reads names from the module `new` and warns.

    Args:
        old: the deprecated name of a module.
        new: its name now.
        renamed: new names, by their old ones, of what has another name in `new`.
    """

    def read(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        name = (renamed or {}).get(name, name)
        value = getattr(import_module(new), name)
        warnings.warn(f"{old} is now {new}; import {name} from there", DeprecationWarning, stacklevel=2)
        return value

    return read
