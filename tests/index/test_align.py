import pytest
import torch
import torch.nn.functional as F

from scav_model.distances import Distance, Sequences
from scav_model.index.align import align
from scav_model.index.matrix import cost_matrix, matching_times, per_second

RATES = {"video": 5.0, "audio": 6.25}
METRICS = [
    ("interpolated_euclidean", {}),
    ("interpolated_euclidean", {"squared": True, "resample": "y"}),
    ("interpolated_euclidean", {"resample": "shorter"}),
    ("dtw", {"band": 3}),
    ("dtw", {"cost": "cosine"}),
    ("soft_dtw", {"gamma": 0.1}),
    ("sinkhorn", {"epsilon": 0.05}),
    ("sinkhorn", {"cost": "sqeuclidean"}),
    ("soft_dtw_divergence", {}),
    ("sinkhorn_divergence", {}),
    ("pooled_cosine", {}),
    ("chamfer", {}),
    ("chamfer", {"direction": "both", "cost": "cosine"}),
    ("interpolated_cosine", {}),
    ("interpolated_cosine", {"resample": "shorter", "mode": "nearest"}),
]
# Their values are sums over matches and nothing else.
WHOLE = ("interpolated_euclidean", "dtw", "pooled_cosine", "chamfer", "interpolated_cosine")


def pair(steps=(8, 10), dim=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(count, dim, generator=generator), dim=1) for count in steps]


@pytest.mark.parametrize("side", ["video", "audio"])
@pytest.mark.parametrize(("metric", "options"), METRICS)
def test_contributions_and_the_rest_are_the_distance(metric, options, side):
    video, audio = pair()
    distance = Distance(metric, options)
    found = align(distance, *((video, audio) if side == "video" else (audio, video)), side, RATES)
    whole = float(distance.pairs(*(Sequences(one[None], torch.tensor([len(one)])) for one in (video, audio))))
    assert found.distance == pytest.approx(whole, rel=1e-5)
    assert sum(found.contribution) + found.rest == pytest.approx(whole, rel=1e-5, abs=1e-6)
    if metric in WHOLE:
        assert found.rest == pytest.approx(0, abs=1e-5)
    assert max(found.weight) == 1
    seconds = {"video": 8 / 5.0, "audio": 10 / 6.25}
    other = "audio" if side == "video" else "video"
    for places, end in ((found.query, seconds[side]), (found.clip, seconds[other])):
        assert 0 <= min(places) <= max(places) <= end
    assert found.unit == "s"


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw", "sinkhorn", "chamfer"])
def test_a_sequence_meets_itself_in_time(metric):
    video, _ = pair((9, 9), dim=32)
    options = {"epsilon": 0.005} if metric == "sinkhorn" else {}
    found = align(Distance(metric, options), video, video, "video", {"video": 3.0, "audio": 3.0})
    assert found.query == pytest.approx(found.clip)
    assert found.query == pytest.approx([(step + 0.5) / 3 for step in range(9)])
    assert sum(found.contribution) == pytest.approx(0, abs=1e-4)


def test_what_comes_late_is_met_late():
    """A video whose second half holds still meets a sound that plays its first half at half the speed."""
    video, _ = pair((12, 12), dim=32)
    audio = video[:6].repeat_interleave(2, dim=0)
    found = align(Distance("dtw"), torch.cat((video[:6], video[5:6].expand(6, -1))), audio, "video", RATES)
    at = dict(zip(found.clip, found.query, strict=True))
    assert at[(3 + 0.5) / 6.25] == pytest.approx((1 + 0.5) / 5.0)
    assert at[(8 + 0.5) / 6.25] == pytest.approx((4 + 0.5) / 5.0)


def test_where_no_rates_are_known_places_are_steps():
    video, audio = pair()
    found = align(Distance("dtw"), video, audio, "video", {"video": None, "audio": 6.25})
    assert found.unit == "steps"
    assert (found.query[0], found.clip[0]) == (0, 0)
    assert (found.query[-1], found.clip[-1]) == (7, 9)


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw", "soft_dtw", "sinkhorn", "pooled_cosine"])
@pytest.mark.parametrize("side", ["video", "audio"])
def test_costs_are_those_that_matches_are_weighed_by(metric, side):
    video, audio = pair()
    query, clip = (video, audio) if side == "video" else (audio, video)
    costs = cost_matrix(Distance(metric), query, clip, side)
    apart = torch.stack([(step - clip).square().sum(1) for step in query])
    expected = {"soft_dtw": apart, "pooled_cosine": apart / 2}.get(metric, apart.sqrt())  # steps of length 1
    torch.testing.assert_close(costs, expected)


@pytest.mark.parametrize("metric", ["interpolated_euclidean", "dtw", "sinkhorn", "pooled_cosine"])
def test_seconds_add_up_to_the_distance(metric):
    found = align(Distance(metric), *pair((10, 20)), "video", {"video": 5.0, "audio": 6.25})
    seconds = per_second(found, 20 / 6.25)
    assert len(seconds) == 4
    assert sum(seconds) + found.rest == pytest.approx(found.distance, rel=1e-5)


def test_times_that_match_follow_the_path():
    video, _ = pair((9, 9), dim=32)
    found = align(Distance("dtw"), video, video, "video", {"video": 3.0, "audio": 3.0})
    middles = [(step + 0.5) / 3 for step in range(9)]
    assert matching_times(found.query, found.clip, found.weight, 9, 3.0) == pytest.approx(middles)
    # Where nothing matches a step, its time lies between its neighbors'.
    assert matching_times([0.5, 2.5], [1.0, 3.0], [1.0, 1.0], 3, 3.0) == pytest.approx([1.0, 2.0, 3.0])
