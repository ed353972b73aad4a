"""Splits by tune, without near-duplicates on two sides or among the clips that are searched."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from scav_model.experiments.tunes.corpus import Tune
from scav_model.experiments.tunes.engraving import Score
from scav_model.experiments.tunes.excerpts import Excerpt, grams, notes_of

SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}
SHARED = 0.5  # of two tunes' or clips' fragments, from which on they are near-duplicates
FIRST = 8  # intervals that two beginnings share


def cluster(tunes: Sequence[Tune], scores: Mapping[str, Score]) -> list[list[str]]:
    """Return the tunes' names in clusters: variants of one tune are in one cluster.

    Two tunes are variants if they have the same title or the same first intervals, or if half of the five-interval
    fragments of the shorter one are in the longer one. Intervals do not change with the key.
    """
    intervals = {tune.name: np.diff(scores[tune.name].pitches) for tune in tunes}
    leader = {tune.name: tune.name for tune in tunes}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    alike = [(re.sub(r"[^a-z]", "", tune.title.lower()), tune.name) for tune in tunes if tune.title]
    openings = [(intervals[tune.name][:FIRST].tobytes(), tune.name) for tune in tunes]
    for keyed in (alike, openings):
        first: dict[Hashable, str] = {}
        for key, name in keyed:
            leader[find(name)] = find(first.setdefault(key, name))
    for one, other in near_duplicates({name: grams(steps) for name, steps in intervals.items()}):
        leader[find(other)] = find(one)
    clusters: dict[str, list[str]] = defaultdict(list)
    for tune in tunes:
        clusters[find(tune.name)].append(tune.name)
    return [*clusters.values()]


def near_duplicates(fragments: Mapping[str, set[Any]]) -> Iterable[tuple[str, str]]:
    """Yield pairs of names, the earlier one first, that share `SHARED` of the fragments of the one that has fewer."""
    holders: dict[Any, list[str]] = defaultdict(list)
    for name, found in fragments.items():
        common = Counter(holder for fragment in found for holder in holders[fragment])
        for other, count in common.items():
            if count >= SHARED * min(len(found), len(fragments[other])):
                yield other, name
        for fragment in found:
            holders[fragment].append(name)


def split_tunes(clusters: Sequence[Sequence[str]], seed: int) -> dict[str, list[str]]:
    """Return the tunes' names by split, whole clusters in one split."""
    order = np.random.default_rng(seed).permutation(len(clusters))
    bounds = np.round(np.cumsum([0.0, *SHARES.values()]) * len(clusters)).astype(int)
    return {
        split: sorted(name for place in order[first:last] for name in clusters[place])
        for split, first, last in zip(SHARES, bounds[:-1], bounds[1:], strict=True)
    }


def without_near_duplicates(excerpts: Sequence[Excerpt], scores: Mapping[str, Score]) -> list[Excerpt]:
    """Return the excerpts less those that share half of their five-note fragments with an earlier one that stays."""
    fragments = {excerpt.id: grams(notes_of(excerpt, scores[excerpt.tune]).pitches) for excerpt in excerpts}
    earlier: dict[str, list[str]] = defaultdict(list)
    for one, other in near_duplicates(fragments):
        earlier[other].append(one)
    kept: dict[str, Excerpt] = {}
    for excerpt in excerpts:
        if not any(other in kept for other in earlier[excerpt.id]):
            kept[excerpt.id] = excerpt
    return [*kept.values()]
