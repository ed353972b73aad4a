"""Describe the front ends that made the features of a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scav_model.data.source import Features
from scav_model.data.store import FeatureStore
from scav_model.data.store.header import StoreHeader

SIDES = ("video", "audio")


def describe_features(features: Features, rates: Mapping[str, float | None] | None = None) -> dict[str, dict[str, Any]]:
    """Describe the features of each side: `dim`, `rate_hz` and, from a store, all that its header says of them.

    Args:
        features: a feature store, or others, whose rates have to be given to be known.
        rates: steps per second of `video` and of `audio`.
    """
    if isinstance(features, FeatureStore):
        return {"video": dict(features.header.video), "audio": dict(features.header.audio)}
    known = rates or {}
    dims = {"video": features.video_dim, "audio": features.audio_dim}
    return {side: {"dim": dims[side], "rate_hz": known.get(side)} for side in SIDES}


def front_end_differences(there: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return "field: there …, now …" for each field that both have and that differs."""

    def both(side: str) -> tuple[dict[str, Any], dict[str, Any]]:
        # Precision is the machine's: an index that a GPU made is searched on a CPU.
        shared = [key for key in there[side] if key in now[side] and key != "precision"]
        first, second = ({key: sides[side][key] for key in shared} for sides in (there, now))
        if None in (first["rate_hz"], second["rate_hz"]):
            del first["rate_hz"], second["rate_hz"]
        return first, second

    video, audio = both("video"), both("audio")
    return StoreHeader(video[0], audio[0]).differences(StoreHeader(video[1], audio[1]))
