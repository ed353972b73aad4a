"""Each disturbance against its definition, written out step by step."""

import itertools
import math

import numpy as np
import pytest
import torch

from scav_model.experiments.probes.transforms import TRANSFORMATIONS, crop, permute, reverse, roll, shift, warp

LENGTHS = (1, 2, 3, 10, 41)
STRENGTHS = (0.0, 0.03, 0.2, 0.5, 0.77, 1.0)


def numbered(total: int) -> torch.Tensor:
    """Steps (T, 2) that say their own place."""
    return torch.arange(total, dtype=torch.float32)[:, None] * torch.tensor([1.0, -10.0])


def places(steps: torch.Tensor) -> list[int]:
    assert torch.equal(steps[:, 1], -10 * steps[:, 0])
    return steps[:, 0].int().tolist()


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("total", LENGTHS)
def test_strength_0_changes_no_bit(name, total):
    steps = torch.randn(total, 5, generator=torch.Generator().manual_seed(total))
    for seed in range(5):
        assert torch.equal(TRANSFORMATIONS[name].apply(steps, 0.0, random(seed)), steps)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_lengths_are_as_announced_and_seeds_repeat(name, strength):
    transformation = TRANSFORMATIONS[name]
    for total in LENGTHS:
        steps = numbered(total)
        before = steps.clone()
        changed = transformation.apply(steps, strength, random(3))
        assert changed.shape == (transformation.length(total, strength), 2)
        assert torch.equal(changed, transformation.apply(steps, strength, random(3)))
        assert torch.equal(steps, before)


@pytest.mark.parametrize("name", ["crop", "warp", "reverse", "permute"])
def test_seeds_differ(name):
    results = [TRANSFORMATIONS[name].apply(numbered(41), 0.4, random(seed)) for seed in range(8)]
    assert any(not torch.equal(results[0], other) for other in results[1:])


def test_shift_delays_and_holds_the_first_step():
    assert places(shift(numbered(10), 0.3, random())) == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert places(shift(numbered(10), 1.0, random())) == [0] * 10


def test_roll_delays_around_the_end():
    assert places(roll(numbered(10), 0.6, random())) == [7, 8, 9, 0, 1, 2, 3, 4, 5, 6]
    assert places(roll(numbered(10), 1.0, random())) == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_crop_keeps_steps_in_a_row_from_anywhere():
    starts = set()
    for seed in range(60):
        kept = places(crop(numbered(10), 0.7, random(seed)))
        assert kept == list(range(kept[0], kept[0] + 3))
        starts.add(kept[0])
    assert starts == set(range(8))
    assert len(crop(numbered(10), 1.0, random())) == 1


@pytest.mark.parametrize("strength", STRENGTHS)
def test_warp_is_its_formula(strength):
    total, signs = 41, set()
    for seed in range(8):
        found = warp(numbered(total), strength, random(seed))[:, 0].double()
        expected = {}
        for sign in (1, -1):
            at = [t + sign * total * strength / math.pi * math.sin(math.pi * (t + 0.5) / total) for t in range(total)]
            expected[sign] = torch.tensor([min(max(place, 0.0), total - 1.0) for place in at], dtype=torch.float64)
        near = {sign for sign, places in expected.items() if torch.allclose(found, places, atol=1e-4)}
        assert near
        signs |= near
        assert (found.diff() >= -1e-4).all()
    assert signs == {1, -1}


def test_warp_moves_the_middle_by_s_over_pi():
    middle = warp(numbered(41), 0.5, random())[20, 0].item()
    assert abs(middle - 20) == pytest.approx(41 * 0.5 / math.pi, abs=1e-4)


def test_warp_interpolates_between_steps():
    steps = torch.tensor([[0.0], [0.0], [8.0], [0.0]])
    late, early = (-4 * 0.25 / math.pi * math.sin(math.pi * 2.5 / 4), 4 * 0.25 / math.pi * math.sin(math.pi * 2.5 / 4))
    assert warp(steps, 0.25, random())[2].item() in (
        pytest.approx(8 * (1 + late), abs=1e-4),
        pytest.approx(8 * (1 - early), abs=1e-4),
    )


def test_reverse_turns_steps_in_a_row_from_anywhere():
    starts = set()
    for seed in range(60):
        found = places(reverse(numbered(10), 0.7, random(seed)))
        start = next(place for place in range(10) if found[place] != place)
        assert found == [*range(start), *range(start + 6, start - 1, -1), *range(start + 7, 10)]
        starts.add(start)
    assert starts == {0, 1, 2, 3}
    assert places(reverse(numbered(10), 1.0, random())) == list(range(9, -1, -1))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_permute_is_a_sort_of_its_keys(strength):
    total, seed = 41, 5
    uniform = random(seed).random(total)
    keys = {t: (1 - strength) * t + strength * total * uniform[t] for t in range(total)}
    assert places(permute(numbered(total), strength, random(seed))) == sorted(keys, key=keys.__getitem__)


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.45])
def test_permute_keeps_the_order_of_steps_far_apart(strength):
    total, changed = 60, 0
    for seed in range(20):
        order = places(permute(numbered(total), strength, random(seed)))
        assert sorted(order) == list(range(total))
        turned = [early - late for place, early in enumerate(order) for late in order[place:] if late < early]
        assert all(apart < strength * total / (1 - strength) for apart in turned)
        changed += bool(turned)
    assert changed == 20


def test_permute_at_1_takes_every_order():
    orders = [tuple(places(permute(numbered(3), 1.0, random(seed)))) for seed in range(600)]
    assert all(70 < orders.count(order) < 130 for order in itertools.permutations(range(3)))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_more_of_it_disturbs_more(name):
    """Mean displacement grows with the strength: of the same clip, with the same draws."""
    total = 40
    moved = []
    for strength in (0.0, 0.1, 0.4, 1.0):
        distances = []
        for seed in range(20):
            changed = TRANSFORMATIONS[name].apply(numbered(total), strength, random(seed))[:, 0]
            at = torch.linspace(0, total - 1, len(changed)) if len(changed) > 1 else torch.tensor([(total - 1) / 2])
            distances.append((changed - at).abs().mean().item())
        moved.append(sum(distances) / len(distances))
    assert moved[0] == pytest.approx(0, abs=1e-4)
    assert moved[0] < moved[1] < moved[2] < moved[3]
