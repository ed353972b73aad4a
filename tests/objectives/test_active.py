"""CM-ACC's selection against one that makes every outer product and every difference."""

import pytest
import torch
import torch.nn.functional as F

from scav_model.objectives.active import pseudo_errors, select


def embeddings(posterior, representation):
    """g (N, K·D), one candidate at a time."""
    rows = []
    for p, h in zip(posterior.double(), representation.double(), strict=True):
        q = p.clone()
        q[p.argmax()] -= 1
        rows.append(torch.outer(q, h).flatten())
    return torch.stack(rows)


def squared_distances(gradients, chosen):
    """D² (N,): to the nearest of the chosen."""
    return torch.stack([(gradients - gradients[index]).square().sum(1) for index in chosen]).min(0).values


def slow_select(posterior, representation, count, uniforms):
    """k-means++ seeding by a loop over what it says, for candidates that differ."""
    gradients = embeddings(posterior, representation)
    chosen = []
    for place in range(count):
        if not chosen:
            weights = [1.0] * len(gradients)
        else:
            weights = squared_distances(gradients, chosen).tolist()
            for index in chosen:
                weights[index] = 0.0
        aim, passed = uniforms[place].item() * sum(weights), 0.0
        for index, weight in enumerate(weights):
            passed += weight
            if passed > aim:
                chosen.append(index)
                break
    return chosen


def candidates(count, classes, size, seed):
    generator = torch.Generator().manual_seed(seed)
    posterior = (3 * torch.randn(count, classes, generator=generator)).softmax(1)
    return posterior, F.normalize(torch.randn(count, size, generator=generator), dim=1), generator


def test_an_embedding_is_the_gradient_by_the_last_layer():
    posterior, representation, generator = candidates(6, 5, 4, seed=0)
    dictionary = torch.randn(5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    for h in representation.double():
        logits = dictionary @ h
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, logits.argmax()), dictionary)
        error = pseudo_errors(logits.softmax(0)[None])[0].detach()
        torch.testing.assert_close(torch.outer(error, h), gradient)
    torch.testing.assert_close(pseudo_errors(posterior).sum(1), torch.zeros(6), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", range(8))
def test_selection_equals_the_slow_one_given_the_same_numbers(seed):
    posterior, representation, generator = candidates(30, 7, 5, seed)
    uniforms = torch.rand(20, dtype=torch.float64, generator=generator)
    chosen = select(posterior, representation, 20, uniforms)
    assert chosen.tolist() == slow_select(posterior, representation, 20, uniforms)
    assert len(set(chosen.tolist())) == 20


def test_pitfall_distances_are_squared():
    """Return the share of draws in which each candidate is second, given the first: in proportion to D²."""
    posterior, representation, generator = candidates(5, 4, 3, seed=3)
    gradients, draws = embeddings(posterior, representation), 3_000
    uniforms = torch.rand(draws, 2, dtype=torch.float64, generator=generator)
    uniforms[:, 0] = 0.1  # the first of five
    found = torch.zeros(5, dtype=torch.float64)
    for row in uniforms:
        first, second = select(posterior, representation, 2, row).tolist()
        assert first == 0
        found[second] += 1 / draws
    squared = squared_distances(gradients, [0])
    law, plain = squared / squared.sum(), squared.sqrt() / squared.sqrt().sum()
    deviation = (law * (1 - law) / draws).sqrt()
    assert ((found - law).abs() <= 4 * deviation).all()
    assert ((found - plain).abs() > 8 * deviation).any()


def test_the_first_is_uniform():
    posterior, representation, _ = candidates(8, 4, 3, seed=4)
    for index in range(8):
        inside = torch.tensor([(index + 0.5) / 8], dtype=torch.float64)
        assert select(posterior, representation, 1, inside).tolist() == [index]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_equal_candidates_are_chosen_once_each(uniform):
    """All distances are 0: the rest is drawn evenly, and still without repetition, at either end of the numbers."""
    posterior, representation = torch.full((6, 3), 1 / 3), torch.ones(6, 2)
    chosen = select(posterior, representation, 6, torch.full((6,), uniform, dtype=torch.float64))
    assert sorted(chosen.tolist()) == list(range(6))


def test_more_than_there_are_is_refused():
    posterior, representation, _ = candidates(4, 3, 2, seed=0)
    with pytest.raises(ValueError, match="from 1 to 4 of 4 candidates, got count=5"):
        select(posterior, representation, 5, torch.zeros(5, dtype=torch.float64))
