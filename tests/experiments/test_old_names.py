"""Imports that worked in 0.5 still do, and say where the name is now."""

from importlib import import_module

import pytest


@pytest.mark.parametrize(
    ("old", "new", "name", "new_name"),
    [
        ("scav_model.demo.run", "scav_model.experiments.demo.run", "run_demo", "run_demo"),
        ("scav_model.reproduce", "scav_model.experiments.reproduce", "reproduce", "reproduce"),
        (
            "scav_model.probe.transforms",
            "scav_model.experiments.probes.transforms",
            "TRANSFORMATIONS",
            "TRANSFORMATIONS",
        ),
        ("scav_model.search.layout", "scav_model.search.header", "Header", "Header"),
        ("scav_model.data.store.layout", "scav_model.data.store.header", "Entry", "Entry"),
        ("scav_model.data.store.layout", "scav_model.data.store.header", "Header", "StoreHeader"),
        ("scav_model.data.store.layout", "scav_model.data.store.header", "Shard", "StoreShard"),
    ],
)
def test_an_old_import_warns_and_gives_the_same_object(old: str, new: str, name: str, new_name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}; import {new_name} from there") as caught:
        exec(f"from {old} import {name}", found := {})
    assert caught[0].filename == "<string>"
    assert found[name] is getattr(import_module(new), new_name)
    with pytest.raises(ImportError, match="nothing"):
        exec(f"from {old} import nothing")
