"""Windows and offsets where the right answer is known."""

import pytest
import torch

from scav_model.experiments.downstream.sync import change_distance, cut_windows, score

RATES = 12.5, 15.625  # steps a second


@pytest.mark.parametrize("wanted", [-2.0, -0.7, 0.0, 1.3, 2.0])
def test_windows_begin_where_their_offsets_say(wanted):
    video, audio = torch.arange(100.0)[:, None] / RATES[0], torch.arange(125.0)[:, None] / RATES[1]  # seconds
    (picture, sounds), offset, offsets = cut_windows(video, audio, *RATES, 2.0, wanted)
    assert offset == pytest.approx(wanted, abs=0.5 / RATES[0])
    assert picture[0].item() == pytest.approx(2 + offset, abs=1e-5)
    torch.testing.assert_close(sounds[:, 0, 0], 2 + offsets.float())
    assert len(picture) / RATES[0] == pytest.approx(4)
    assert sounds.shape[1] / RATES[1] == pytest.approx(4, abs=1 / RATES[1])
    assert (offsets[0], offsets[-1]) == (-2, pytest.approx(2, abs=1 / RATES[1]))


def test_change_finds_the_offset_of_flashes_and_sounds():
    generator = torch.Generator().manual_seed(0)
    strikes = torch.rand(12, generator=generator) * 7.5 + 0.2
    video, audio = (
        torch.stack([(torch.arange(n) / rate >= strike).float() for strike in strikes], dim=1)
        for n, rate in zip((100, 125), RATES, strict=True)
    )
    (picture, sounds), offset, offsets = cut_windows(video, audio, *RATES, 2.0, 0.9)
    found = offsets[change_distance(picture, sounds).argmin()]
    assert abs(float(found) - offset) <= 0.1


def test_score():
    assert score([0.0, 1.0, -1.0, 0.5], [0.2, 1.0, 1.0, 0.0]) == {
        "accuracy": 50.0,
        "error": pytest.approx((0.2 + 0 + 2 + 0.5) / 4),
    }


def test_short_clips_are_refused():
    with pytest.raises(ValueError, match=r"longer than 2 · reach = 4 s by two steps, got 4\.0 s"):
        cut_windows(torch.zeros(50, 1), torch.zeros(63, 1), *RATES, 2.0, 0.0)
