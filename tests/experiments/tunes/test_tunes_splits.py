"""Variants of a tune are in one split, and near-duplicates are searched for once."""

import itertools

from scav_model.experiments.tunes.corpus import Tune
from scav_model.experiments.tunes.excerpts import Excerpt
from scav_model.experiments.tunes.splits import SHARES, cluster, split_tunes, without_near_duplicates
from tests.experiments.tunes.scores import score, walk


def test_variants_are_clustered() -> None:
    melodies = {name: walk(60, seed) for seed, name in enumerate(("alone", "title", "opening", "middle", "other"))}
    melodies["same title"] = walk(60, seed=10)
    # In another key: intervals count.
    melodies["same opening"] = [pitch + 2 for pitch in melodies["opening"][:9]] + walk(51, seed=11)
    melodies["same middle"] = walk(10, seed=12) + [pitch - 5 for pitch in melodies["middle"][5:50]]
    titles = {"title": "The Reel", "same title": "THE, Reel"}
    tunes = [Tune(name, titles.get(name, name), "reel", "") for name in melodies]
    found = cluster(tunes, {name: score(pitches) for name, pitches in melodies.items()})
    assert sorted(sorted(names) for names in found) == [
        ["alone"],
        ["middle", "same middle"],
        ["opening", "same opening"],
        ["other"],
        ["same title", "title"],
    ]


def test_clusters_stay_whole_and_every_tune_has_a_split() -> None:
    clusters = [[f"{number}-{variant}" for variant in range(1 + number % 3)] for number in range(40)]
    splits = split_tunes(clusters, seed=0)
    assert list(splits) == list(SHARES)
    assert sorted(name for names in splits.values() for name in names) == sorted(itertools.chain(*clusters))
    owner = {name: split for split, names in splits.items() for name in names}
    assert all(len({owner[name] for name in names}) == 1 for names in clusters)
    counts = [sum(owner[names[0]] == split for names in clusters) for split in SHARES]
    assert counts == [24, 4, 12]
    assert splits == split_tunes(clusters, seed=0) != split_tunes(clusters, seed=1)


def test_a_clip_that_shares_half_of_its_fragments_is_dropped() -> None:
    # Rising pitches: no fragment comes twice. Of 24 notes there are 20 fragments.
    melody, start, end = [*range(40, 64)], [*range(70, 80)], [*range(80, 90)]
    half = start + melody[10:]  # 10 fragments are the melody's
    engravings = {
        "melody": score(melody),
        "half": score(half),
        "less": score([100, *start, *melody[11:]]),  # 9 are
        "other half": score(half[:14] + end),  # 10 are of half, and none of the melody
    }
    excerpts = {name: Excerpt(f"{name}-00", name, 0.0, 12.0) for name in engravings}

    def kept(*names: str) -> list[str]:
        return [excerpt.tune for excerpt in without_near_duplicates([excerpts[name] for name in names], engravings)]

    assert kept("melody", "half") == ["melody"]
    assert kept("half", "melody") == ["half"]
    assert kept("melody", "less") == ["melody", "less"]
    # What a clip that is dropped is like may stay.
    assert kept("melody", "half", "other half") == ["melody", "other half"]
    assert kept("half", "other half") == ["half"]
