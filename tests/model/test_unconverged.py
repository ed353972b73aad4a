"""Training and search by Sinkhorn that stops early: one warning, not one a step."""

import warnings

import pytest
import torch

from scav_model.distances import Distance, Sequences

FEW = {"epsilon": 0.01, "max_iterations": 2}


def clips(seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    return Sequences(torch.randn(4, 6, 5, generator=generator), torch.tensor([6, 3, 5, 4]))


def heard(distance: Distance, calls: int) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        for call in range(calls):
            distance.all_pairs(clips(call), clips(call + 1))
            distance.pairs(clips(call), clips(call + 1))
    return messages


@pytest.mark.parametrize("metric", ["sinkhorn", "sinkhorn_divergence"])
def test_a_distance_warns_once(metric: str) -> None:
    distance = Distance(metric, FEW)
    (message,) = heard(distance, 3)
    assert str(message.message).startswith(f"{metric}: ")
    assert "pairs stopped after max_iterations = 2" in str(message.message)
    assert not heard(Distance("sinkhorn", {"epsilon": 5.0}), 1)


def test_an_option_that_changes_what_is_returned_is_refused() -> None:
    with pytest.raises(ValueError, match="sinkhorn: expected options of the distance alone, got return_convergence"):
        Distance("sinkhorn", {"return_convergence": True})
    with pytest.raises(
        ValueError, match="sinkhorn: expected options of the distance alone, got y_weights; leave it out"
    ):
        Distance("sinkhorn", {"y_weights": [1.0]})
