"""Each source contrasts with the right clips, step after step."""

import math
from dataclasses import replace

import pytest
import torch

from scav_model.config import LossConfig
from scav_model.data import collate
from scav_model.distances import POOLED_COSINE, Sequences, pooled
from scav_model.losses import ContrastiveLoss
from scav_model.objective_config import NegativesConfig
from scav_model.objectives.active import select
from scav_model.objectives.bank import draw, neighborhood, supplemented_loss
from scav_model.objectives.dictionary import Batched, clip_keys
from scav_model.objectives.objective import SOURCES

SMALL = NegativesConfig(size=8, pool=24, momentum=0.9, neighbors=1, candidates=5, hard=3)


def make(source, model, **changes):
    return SOURCES[source](replace(SMALL, source=source, **changes), model)


def step(source, contrast, model, features, chosen):
    """The loss of one batch, after which its keys are taken in."""
    batch = collate(features, chosen)
    video, audio = model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
    sides = Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)
    loss = source(contrast, *sides, batch)
    source.after_step(model)
    return loss


def apart(entries):
    return [Sequences(steps[None], length[None]) for steps, length in zip(*entries.clips, strict=True)]


@pytest.fixture
def contrast():
    return ContrastiveLoss(LossConfig(scale=5.0))


@pytest.mark.parametrize("name", ["queue", "random", "active"])
def test_pitfall_the_batch_is_not_in_its_own_dictionary(name, model, contrast, train_features):
    """A batch that comes twice in a row would be all of its dictionary."""
    source = make(name, model)
    assert step(source, contrast, model, train_features, range(4)).item() == 0
    assert step(source, contrast, model, train_features, range(4)).item() == 0
    assert step(source, contrast, model, train_features, range(4, 8)).item() > 0


@pytest.mark.parametrize("name", ["random", "active"])
def test_selected_dictionaries_are_of_the_pool_and_of_other_clips(name, model, contrast, train_features):
    source = make(name, model, size=20)
    seen = []
    for start in (0, 6, 12, 18, 24, 30, 21):
        own = set(clip_keys(train_features.ids[start : start + 6]).tolist())
        pool = set(source.memory.entries()[0].keys.tolist())
        # The last batch has been seen before.
        assert bool(pool & own) == (start == 21)
        step(source, contrast, model, train_features, range(start, start + 6))
        for shelf in (source.videos, source.audios):
            held = shelf.first(source.held).keys.tolist()
            assert len(held) == len(set(held)) == min(source.config.size, len(pool - own))
            assert set(held) <= pool - own
            seen.append(frozenset(held))
    # Each modality has a dictionary of its own, and it changes.
    assert len(set(seen[-8:])) > 4


def test_active_takes_what_its_formula_says_in_both_directions(model, contrast, train_features):
    source = make("active", model)
    for start in (0, 8):
        step(source, contrast, model, train_features, range(start, start + 8))
    videos, audios = source.memory.entries()
    before_videos, before_audios = (shelf.first(8) for shelf in (source.videos, source.audios))
    scale = contrast.scale.detach()
    by_audios = torch.stack(  # (N, K), a candidate at a time
        [contrast.distance.all_pairs(one, before_audios.clips)[0] for one in apart(videos)]
    )
    by_videos = torch.stack([contrast.distance.all_pairs(before_videos.clips, one)[:, 0] for one in apart(audios)])
    torch.manual_seed(11)
    uniforms = torch.rand(2, 8, dtype=torch.float64)
    chosen_videos = select((-scale * by_audios).softmax(1), pooled(videos.clips), 8, uniforms[0])
    chosen_audios = select((-scale * by_videos).softmax(1), pooled(audios.clips), 8, uniforms[1])
    expected = videos.keys[chosen_videos].tolist(), audios.keys[chosen_audios].tolist()
    torch.manual_seed(11)
    step(source, contrast, model, train_features, range(40, 48))
    assert (source.videos.keys.tolist(), source.audios.keys.tolist()) == expected


@pytest.mark.parametrize("name", ["random", "active"])
def test_candidates_are_drawn_from_all_clips_and_encoded_anew(name, model, contrast, train_features):
    source = make(name, model, encode_anew=True, momentum=0.0)
    source.features = train_features
    seen = set()
    for start in range(0, 24, 4):
        step(source, contrast, model, train_features, range(start, start + 4))
        own = set(clip_keys(train_features.ids[start : start + 4]).tolist())
        for shelf, side in ((source.videos, 0), (source.audios, 1)):
            held = shelf.first(source.held)
            assert len(set(held.keys.tolist())) == 8
            assert not set(held.keys.tolist()) & own
            seen |= set(held.keys.tolist())
            # As the encoders are now, not as they were when the clip was trained on.
            place = clip_keys(train_features.ids).tolist().index(held.keys[0].item())
            clip = source.momentum(collate(train_features, [place]))[side]
            length = held.clips.lengths[0]
            torch.testing.assert_close(held.clips.steps[0, :length], clip.steps[0, :length])
        for parameter in model.parameters():
            parameter.data += 0.01
        source.momentum.follow(model)
    assert len(seen) > 40
    assert len(source.memory.entries()[0].keys) == 1


@pytest.mark.parametrize("name", ["queue", "random", "active"])
def test_copies_are_no_negatives_where_they_are_marked(name, model, contrast, train_features):
    copies = train_features.subset(range(8))
    copies.ids = [f"clip#{number}" for number in range(4)] + [f"other#{number}" for number in range(4)]
    for mark, expected in ((None, False), ("#", True)):
        source = make(name, model, copy_mark=mark)
        assert step(source, contrast, model, copies, range(2)).item() == 0
        assert (step(source, contrast, model, copies, range(2, 4)).item() == 0) == expected
        assert step(source, contrast, model, copies, range(4, 6)).item() > 0


def test_copies_and_candidates_anew_are_refused_elsewhere():
    for changes in ({"source": "bank", "copy_mark": "#"}, {"source": "queue", "copy_mark": ""}):
        with pytest.raises(ValueError, match=r"negatives\.copy_mark"):
            replace(SMALL, **changes)
    with pytest.raises(ValueError, match="random or active with"):
        replace(SMALL, source="queue", encode_anew=True)


def test_a_dictionary_is_kept_for_as_many_steps_as_asked(model, contrast, train_features):
    source = make("random", model, every=3)
    kept = []
    for start in range(0, 60, 6):
        step(source, contrast, model, train_features, range(start, start + 6))
        kept.append(tuple(source.videos.first(source.held).keys.tolist()))
    assert kept[3] == kept[4] == kept[5] != kept[6] == kept[7] == kept[8] != kept[9]


def test_keys_are_taken_in_before_the_encoders_follow(model, contrast, train_features):
    source = make("queue", model, momentum=0.0)
    batch = collate(train_features, range(3))
    expected = source.momentum(batch)[0].steps
    for parameter in model.parameters():
        parameter.data += 0.1
    step(source, contrast, model, train_features, range(3))
    assert torch.equal(source.memory.entries()[0].clips.steps, expected)
    assert all(torch.equal(a, b) for a, b in zip(source.momentum.parameters(), model.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="after_step follows a forward pass"):
        source.after_step(model)


def test_neighbors_are_nearest_in_both_modalities_and_never_the_clip_itself():
    def unit(*angles):
        return Sequences(torch.tensor([[[math.cos(a), math.sin(a)]] for a in angles]), torch.ones(len(angles)).long())

    from scav_model.objectives.dictionary import Entries

    keys = torch.tensor([5, 6, 7, 8])
    videos, audios = Entries(unit(0.0, 0.3, 0.1, 3.0), keys), Entries(unit(0.0, 0.1, 0.9, 0.1), keys)
    query = Batched(unit(1.0), unit(1.0), unit(0.0), unit(0.0), *(torch.tensor([5]),) * 2)
    distances = neighborhood(query, videos, audios)
    assert distances[0].isinf().tolist() == [True, False, False, False]
    expected = [2 - math.cos(a) - math.cos(b) for a, b in ((0.3, 0.1), (0.1, 0.9), (3.0, 0.1))]
    torch.testing.assert_close(distances[0, 1:], torch.tensor(expected))
    near, hard = draw(distances, 1, 2, 2)
    assert near.tolist() == [[1]]
    assert sorted(hard[0].tolist()) == [2, 3]


def test_hard_negatives_are_drawn_from_the_candidates_alone():
    distances = torch.rand(50, 20, generator=torch.Generator().manual_seed(0))
    near, hard = draw(distances, 2, 6, 4)
    order = distances.argsort(1)
    assert torch.equal(near, order[:, :2])
    drawn = [set(row.tolist()) for row in hard]
    assert all(len(row) == 4 for row in drawn)
    assert all(row <= set(ranks[2:8].tolist()) for row, ranks in zip(drawn, order, strict=True))
    assert len({tuple((order[i] == place).nonzero().item() for place in hard[i]) for i in range(50)}) > 10


def test_supplemented_loss_by_a_loop():
    generator = torch.Generator().manual_seed(0)
    batch, more, hard = (torch.randn(3, n, generator=generator) for n in (3, 2, 4))
    terms = []
    for i in range(3):
        against = [batch[i, j] for j in range(3) if j != i] + list(hard[i])
        for positive in (batch[i, i], *more[i]):
            terms.append(-torch.log(positive.exp() / (positive.exp() + sum(x.exp() for x in against))))
    torch.testing.assert_close(supplemented_loss(batch, torch.eye(3).bool(), more, hard), torch.stack(terms).mean())
    empty = torch.empty(3, 0)
    plain = torch.nn.functional.cross_entropy(batch, torch.arange(3))
    torch.testing.assert_close(supplemented_loss(batch, torch.eye(3).bool(), empty, empty), plain)


@pytest.mark.parametrize("metric", ["interpolated_euclidean", POOLED_COSINE])
def test_a_bank_is_used_once_it_is_full_enough(metric, model, train_features):
    contrast = ContrastiveLoss(LossConfig(metric=metric, scale=5.0))
    source = make("bank", model)
    batch = collate(train_features, range(40, 44))

    def plain_and_supplemented():
        video, audio = model(batch.video, batch.audio, batch.video_lengths, batch.audio_lengths)
        sides = Sequences(video, batch.video_lengths), Sequences(audio, batch.audio_lengths)
        return contrast(*sides).item(), source(contrast, *sides, batch).item()

    plain, first = plain_and_supplemented()
    assert first == pytest.approx(plain, rel=1e-6)
    source.after_step(model)
    step(source, contrast, model, train_features, range(8))
    plain, supplemented = plain_and_supplemented()
    assert supplemented != pytest.approx(plain, rel=1e-3)


def test_settings_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"negatives.pool must be at least negatives.size \(8\), got 4"):
        NegativesConfig(source="active", size=8, pool=4)
    with pytest.raises(ValueError, match=r"source must be one of batch, queue, random, active, bank, got 'moco'"):
        NegativesConfig(source="moco")
    with pytest.raises(ValueError, match=r"negatives.size must be above neighbors"):
        NegativesConfig(source="bank", size=8, candidates=8, hard=2)
