"""Controls come to what theory says, with features whose answer is known."""

import torch

from scav_model.distances import Distance, Sequences
from scav_model.experiments.tunes.controls import ShuffledPairs, bars_row, shuffled_rows
from tests.small_features import walks


def sequences(count: int, seed: int) -> Sequences:
    steps = torch.randn(count, 6, 8, generator=torch.Generator().manual_seed(seed))
    return Sequences(steps, torch.full((count,), 6))


def test_shuffled_pairs_have_the_sound_of_another_clip() -> None:
    clips = walks(12, seed=0)
    shuffled = ShuffledPairs.draw(clips, seed=1)
    sounds = [clips.ids.index(name) for name in shuffled.sounds.ids]
    assert sorted(sounds) == list(range(12))
    assert all(place != source for place, source in enumerate(sounds))
    for place, source in enumerate(sounds):
        video, audio = shuffled.clip(place)
        assert torch.equal(video, clips.video[place])
        assert torch.equal(audio, clips.audio[source])
        assert len(audio) == shuffled.audio_lengths[place]
        assert len(video) == shuffled.video_lengths[place]
    part = shuffled.subset([7, 2, 5])
    assert list(part.ids) == [clips.ids[place] for place in (7, 2, 5)]
    assert len(part) == len(part.video_lengths) == len(part.audio_lengths) == 3
    for place, index in enumerate((7, 2, 5)):
        for side in range(2):
            assert torch.equal(part.clip(place)[side], shuffled.clip(index)[side])


def test_a_coin_decides_half_of_the_queries() -> None:
    video, other = sequences(400, seed=0), sequences(400, seed=1)
    row = bars_row(video, video, other, Distance("dtw"), seed=3)
    assert row["expected"] == 50.0
    assert row["ordered"] == 100.0
    assert abs(row["R@1"] - 50) < 4 * row["deviation"] < 12
    # A model that finds the wrong order, always.
    row = bars_row(video, other, video, Distance("dtw"), seed=3)
    assert (row["expected"], row["ordered"]) == (50.0, 0.0)
    assert abs(row["R@1"] - 50) < 4 * row["deviation"]
    # A model that finds neither version.
    row = bars_row(video, other, other, Distance("dtw"), seed=3)
    assert row["expected"] < 3
    assert row["ordered"] <= 2 * row["expected"]
    assert abs(row["R@1"] - row["expected"]) <= 4 * max(row["deviation"], 0.25)


def test_chance_is_expected_of_shuffled_pairs() -> None:
    rows = shuffled_rows(sequences(100, seed=0), sequences(100, seed=1), Distance("dtw"))
    assert {row["expected"] for row in rows} == {1.0}
    assert [(row["search"], row["direction"]) for row in rows][:2] == [("mean", "v2a"), ("mean", "a2v")]
    assert all(abs(row["R@1"] - 1) < 4 * row["deviation"] for row in rows)
