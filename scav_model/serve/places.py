"""Find the index that a folder holds, or build it from what `scav demo` left."""

from __future__ import annotations

import shlex
from pathlib import Path

from scav_model.data import FeatureStore
from scav_model.data.describe import describe_features
from scav_model.data.folders import MEDIA, SOUND, walk
from scav_model.index.build import add_features, check_features, open_writer
from scav_model.index.header import HEADER, SearchIndexError
from scav_model.index.model import header_for
from scav_model.model import AudioVisualModel

INDEX = "clips.index"
# Models of the demo, the one that shows most first.
MODELS = ("scav_dtw", "scav_wasserstein", "scav_euclidean", "cav")


def find_index(folder: Path) -> Path:
    """Return the folder of the index: the folder itself, its `clips.index`, or one built there of a demo's clips.

    Raises:
        SearchIndexError: none of these.
    """
    if (folder / HEADER).is_file():
        return folder
    if (folder / INDEX / HEADER).is_file():
        print(f"{folder / INDEX}: the index in {folder}")
        return folder / INDEX
    for seed in sorted(folder.glob("seed-*")):
        for name in MODELS:
            if (seed / name / "checkpoint.pt").is_file() and (seed / "features").is_dir():
                return build_index(folder / INDEX, seed / name / "checkpoint.pt", seed / "features")
    if not folder.exists():
        raise FileNotFoundError(f"expected the folder of a search index at {folder}, found none; check the name")
    if files := walk(folder, MEDIA + SOUND).files:
        raise SearchIndexError(
            f"expected the folder of a search index, got one of {len(files)} media files; make it searchable with "
            f"scav quickstart {shlex.quote(str(folder))}, then scav serve runs/quickstart"
        )
    raise SearchIndexError(
        f"expected the folder of a search index, of scav quickstart or of scav demo, got {folder}; make an index with "
        "scav index build"
    )


def build_index(folder: Path, checkpoint: Path, features: Path) -> Path:
    """Build the index of a demo's held-out clips."""
    model = AudioVisualModel.from_pretrained(checkpoint)
    assert model.loaded_from is not None, "from_pretrained made it"
    clips = FeatureStore.open(features).select("test")
    print(f"{folder}: an index of the demo's {len(clips)} held-out clips, by {checkpoint}", flush=True)
    described = describe_features(clips)
    with open_writer(folder, header_for(checkpoint, model, model.loaded_from.config, described)) as writer:
        check_features(writer.header, described)
        add_features(writer, model, clips)
    return folder
