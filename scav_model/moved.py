"""Names of modules that have moved: the old ones work for one version, and warn."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def forward(old: str, new: str) -> Callable[[str], Any]:
    """Return `__getattr__` for the module `old`: it reads names from the module `new` and warns."""

    def read(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        value = getattr(import_module(new), name)
        warnings.warn(f"{old} is now {new}; import {name} from there", DeprecationWarning, stacklevel=2)
        return value

    return read
