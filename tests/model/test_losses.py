import math

import pytest
import torch

import scav_kernels
from scav_kernels.nn import SequenceContrastiveLoss, symmetric_cross_entropy
from scav_model.config import Config, LossConfig, RetrievalConfig
from scav_model.distances import POOLED_COSINE, Distance, Sequences, retrieval_distance
from scav_model.losses import ContrastiveLoss


def clips(batch: int, steps: int, seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, steps + 1, (batch,), generator=generator)
    return Sequences(torch.randn(batch, steps, 4, generator=generator, dtype=torch.float64), lengths)


def test_cross_entropy_by_hand():
    # Rows: log(1 + e^-2) and log(1 + e^-1); columns: log(1 + e^-3) and log(1 + e^0).
    logits = torch.tensor([[0.0, -2.0], [-3.0, -2.0]], dtype=torch.float64)
    rows = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2
    columns = (math.log(1 + math.exp(-3)) + math.log(2)) / 2
    assert symmetric_cross_entropy(logits).item() == pytest.approx((rows + columns) / 2)


def test_loss_by_hand():
    """One-step clips on a line: distances 0 on the diagonal, 3 beside it, so all four terms are log(1 + e^-6)."""
    points = Sequences(torch.tensor([[[0.0]], [[3.0]]]), torch.tensor([1, 1]))
    loss = ContrastiveLoss(LossConfig(scale=2.0))
    assert loss(points, points).item() == pytest.approx(math.log(1 + math.exp(-6)), abs=1e-6)


def test_pooled_cosine_equals_scaled_cosine():
    video, audio = clips(5, 6, 0), clips(5, 8, 1)
    means = [
        torch.stack([steps[:length].mean(0) for steps, length in zip(*side, strict=True)]) for side in (video, audio)
    ]
    cosine = torch.nn.functional.cosine_similarity(means[0][:, None], means[1][None], dim=-1)
    loss = ContrastiveLoss(LossConfig(metric=POOLED_COSINE, scale=7.0)).double()
    torch.testing.assert_close(loss(video, audio), symmetric_cross_entropy(7 * cosine))


@pytest.mark.parametrize(
    ("metric", "options", "per_step"),
    [
        ("interpolated_euclidean", {"squared": True}, False),
        ("dtw", {}, True),
        ("dtw", {"normalize": "path"}, False),
        ("soft_dtw", {"gamma": 0.5, "cost": "euclidean"}, True),
        ("sinkhorn", {"epsilon": 0.1, "max_iterations": 20}, False),
        (POOLED_COSINE, {}, False),
    ],
)
def test_every_metric_trains(metric, options, per_step):
    video, audio = clips(3, 4, 0), clips(3, 5, 1)
    loss = ContrastiveLoss(LossConfig(metric=metric, options=options)).double()
    steps = [side.steps.requires_grad_() for side in (video, audio)]
    value = loss(video, audio)
    value.backward()
    assert value.isfinite()
    assert all(x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in (*steps, loss.log_scale))
    assert loss.distance.per_step == per_step
    all_pairs = loss.distance.all_pairs(video, audio)
    torch.testing.assert_close(all_pairs.diagonal(), loss.distance.pairs(video, audio))
    if metric != POOLED_COSINE:
        plain = scav_kernels.cdist(
            *(s.steps for s in (video, audio)), video.lengths, audio.lengths, metric=metric, **options
        )
        divided = plain / (video.lengths[:, None] + audio.lengths[None, :])
        torch.testing.assert_close(all_pairs, divided if per_step else plain)


def test_scale_stays_within_its_bounds_and_can_come_back():
    loss = ContrastiveLoss(LossConfig(scale=10.0, min_scale=1.0, max_scale=20.0))
    for outside, bound in ((50.0, 20.0), (0.1, 1.0)):
        with torch.no_grad():
            loss.log_scale.fill_(math.log(outside))
        scale = loss.scale
        assert scale.item() == pytest.approx(bound)
        assert torch.autograd.grad(scale, loss.log_scale)[0].item() == pytest.approx(bound)


def test_scale_can_be_fixed():
    assert not ContrastiveLoss(LossConfig(learn_scale=False)).log_scale.requires_grad


def test_retrieval_distance_follows_the_training():
    def metric_and_options(loss: LossConfig, **retrieval):
        distance = retrieval_distance(Config(loss=loss, retrieval=RetrievalConfig(**retrieval)))
        return distance.metric, distance.options

    soft = LossConfig(metric="soft_dtw", options={"gamma": 0.1})
    assert metric_and_options(soft) == ("soft_dtw", {"gamma": 0.1})
    assert metric_and_options(soft, metric="dtw") == ("dtw", {})
    assert metric_and_options(soft, metric="dtw", options={"band": 3}) == ("dtw", {"band": 3})
    assert metric_and_options(LossConfig(metric=POOLED_COSINE)) == ("interpolated_euclidean", {})


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="pooled_cosine has no options, got gamma"):
        Distance(POOLED_COSINE, {"gamma": 1.0})
    with pytest.raises(ValueError, match="expected one audio per video, got 3 videos, 2 audios"):
        ContrastiveLoss()(clips(3, 4, 0), clips(2, 4, 0))
    with pytest.raises(ValueError, match="ascending order"):
        LossConfig(scale=200.0)


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw"])
def test_the_loss_of_one_process_is_that_of_scav_kernels(metric):
    video, audio = clips(4, 5, seed=1), clips(4, 6, seed=2)
    expected = SequenceContrastiveLoss(metric, scale=3.0)(video.steps, audio.steps, video.lengths, audio.lengths)
    assert torch.equal(ContrastiveLoss(LossConfig(metric, scale=3.0))(video, audio), expected)
