import pytest
import torch

from scav_model.data import collate
from scav_model.distances import Sequences
from scav_model.experiments.probes.change import Change, ChangedFeatures, change_encoded, changed

SHORTER = Change(lambda steps, clip_id: -steps[1:], lambda total: total - 1)


def test_the_chosen_side_is_changed_and_the_other_left(experiment):
    features = experiment.features
    for sides in ("video", "audio", "both"):
        found = ChangedFeatures(features, SHORTER, sides)
        assert len(found) == len(features)
        assert (found.ids, found.video_dim, found.audio_dim) == (features.ids, 6, 5)
        for side, lengths in enumerate((found.video_lengths, found.audio_lengths)):
            for index in range(len(features)):
                before, after = features.clip(index)[side], found.clip(index)[side]
                expected = -before[1:] if sides in (("video", "audio")[side], "both") else before
                assert torch.equal(after, expected)
                assert lengths[index] == len(after)


def test_a_change_is_told_which_clip_it_is(experiment):
    seen = []
    noted = Change(lambda steps, clip_id: seen.append(clip_id) or steps, lambda total: total)
    found = ChangedFeatures(experiment.features, noted, "video").subset([3, 1])
    assert [len(found.clip(index)[0]) for index in (0, 1)] == found.video_lengths.tolist()
    assert seen == ["clip2-3", "clip2-1"]


def test_changed_features_make_batches(experiment):
    batch = collate(ChangedFeatures(experiment.features, SHORTER, "both"), range(5))
    assert batch.video_lengths.tolist() == (experiment.features.video_lengths[:5] - 1).tolist()


def test_encoded_steps_are_changed_without_their_padding():
    steps = torch.arange(12.0).view(2, 3, 2)
    steps[1, 2] = torch.nan
    found = change_encoded(Sequences(steps, torch.tensor([3, 2])), ["a", "b"], SHORTER)
    assert found.lengths.tolist() == [2, 1]
    assert found.steps.tolist() == [[[-2, -3], [-4, -5]], [[-8, -9], [0, 0]]]


@pytest.mark.parametrize("where", ["features", "encoded"])
def test_changes_follow_one_another_where_they_are_asked_for(experiment, where):
    encoded = experiment.encode(experiment.features)
    video, audio = changed(experiment, encoded, [(SHORTER, "both"), (SHORTER, "audio")], where)
    assert torch.equal(video.lengths, encoded[0].lengths - 1)
    assert torch.equal(audio.lengths, encoded[1].lengths - 2)
    own = encoded[0].steps[0, 1 : int(encoded[0].lengths[0])]
    assert torch.equal(video.steps[0, : len(own)], -own) == (where == "encoded")
    if where == "features":
        features = ChangedFeatures(ChangedFeatures(experiment.features, SHORTER, "both"), SHORTER, "audio")
        assert torch.equal(video.steps, experiment.encode(features)[0].steps)
