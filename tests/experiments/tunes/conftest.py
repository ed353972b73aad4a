"""Tunes of the collection, engraved once."""

from pathlib import Path

import pytest

from scav_model.experiments.tunes.engraving import Engraving, engrave_all


@pytest.fixture(scope="session")
def engraved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Engraving]]:
    """A folder of engravings and what it holds: two tunes, and one that cannot be engraved."""
    for package in ("music21", "verovio", "resvg_py", "PIL", "tinysoundfont", "pretty_midi"):
        pytest.importorskip(package)
    from scav_model.experiments.tunes.corpus import read_tunes

    abcs = {tune.name: tune.abc for tune in read_tunes() if tune.name in ("SwallowTailJig", "WindUpReel")}
    folder = tmp_path_factory.mktemp("engravings")
    scores = engrave_all(abcs | {"empty": "X:1\nK:C\n"}, folder, 2, "engraving")
    return folder, {name: Engraving.load(folder / f"{name}.npz") for name in scores}
