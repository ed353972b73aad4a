"""Imports that worked in 0.7 still do, and say where the name is now."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("scav_model.search", "scav_model.index", "SearchIndex"),
        ("scav_model.cluster", "scav_model.distributed", "SearchWorkers"),
    ],
)
def test_an_old_import_warns_and_gives_the_same_object(old: str, new: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}; import {name} from there") as caught:
        exec(f"from {old} import {name}", found := {})
    assert caught[0].filename == "<string>"
    assert found[name] is getattr(import_module(new), name)
    with pytest.raises(ImportError, match="nothing"):
        exec(f"from {old} import nothing")
