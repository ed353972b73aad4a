"""Hard cases of floating point: coinciding steps, infinities, long chains of small probabilities."""

import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import scav_kernels

from .cases import CASES, CORE, Case
from .inputs import Sequences, Shape, answer, sequences
from .tolerances import ALIGNMENT, COINCIDENCE, assert_same_up_to_rounding


def at_distance_zero(steps: int, dimensions: int, norm: float) -> Tensor:
    """One sequence that stays where it is, at a place whose squares round: (1, steps, D)."""
    place = torch.randn(dimensions, generator=torch.Generator().manual_seed(0))
    return (place * norm / place.norm()).expand(1, steps, dimensions).contiguous()


@pytest.mark.parametrize("norm", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("dimensions", [1, 7, 512])
@pytest.mark.parametrize("case", [case for case in CASES if case.options.get("cost") != "cosine"], ids=str)
def test_identical_steps(case: Case, dimensions: int, norm: float) -> None:
    x = at_distance_zero(9, dimensions, norm)
    case = replace(case, options={**case.options, **({"gamma": 1e-9} if case.metric == "soft_dtw" else {})})
    found = answer(case.kernel, Sequences(x, x.clone(), None, None))
    squared = case.options.get("squared") or case.options.get("cost", "") == "sqeuclidean" or case.metric == "soft_dtw"
    allowed = (COINCIDENCE * norm) ** 2 if squared else COINCIDENCE * norm
    cells = 9 if "dtw" in case.metric else 1
    assert found.value.abs().item() <= cells * allowed + 1e-6
    for gradient in (found.x_grad, found.y_grad):
        assert gradient.abs().max().item() <= COINCIDENCE


@pytest.mark.parametrize("case", [case for case in CASES if case.options.get("cost") == "cosine"], ids=str)
def test_identical_directions(case: Case) -> None:
    x = at_distance_zero(9, 32, 5.0)
    exact = replace(case, options={**case.options, **({"gamma": 1e-9} if case.metric == "soft_dtw" else {})})
    found = answer(exact.kernel, Sequences(x, 3 * x, None, None))
    assert found.value.abs().item() <= 9 * COINCIDENCE**2 + 1e-6
    for gradient in (found.x_grad, found.y_grad):
        assert gradient.abs().max().item() <= COINCIDENCE


@pytest.mark.parametrize("case", CASES, ids=str)
def test_zero_vectors_have_finite_gradients(case: Case) -> None:
    zeros = torch.zeros(2, 4, 3)
    found = answer(case.kernel, Sequences(zeros, zeros.clone(), None, None))
    assert all(part.isfinite().all() for part in found)


@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_valid_step_reaches_its_own_pairs_only(case: Case, paired: bool, poison: float, where: str) -> None:
    # Equal lengths, so that resampling in either direction touches every step.
    given = sequences(Shape(b1=18, b2=18, n=7, m=7, ragged=False))
    clean = case.kernel(*given, paired=paired)
    spoilt = getattr(given, where).clone()
    spoilt[5, 3, 1] = poison
    value = case.kernel(*given._replace(**{where: spoilt}), paired=paired)
    affected = torch.zeros_like(clean, dtype=torch.bool)
    affected[(5,) if paired or where == "x" else (slice(None), 5)] = True
    assert not value[affected].isfinite().any()
    assert torch.equal(value[~affected], clean[~affected])


@pytest.mark.parametrize("where", ["x", "y"])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_step_whose_pairs_do_not_count_spoils_no_gradient(
    case: Case, paired: bool, poison: float, where: str
) -> None:
    given = sequences(Shape(b1=6, b2=6, n=7, m=7, ragged=False))
    spoilt = getattr(given, where).clone()
    spoilt[5, 3, 1] = poison

    def without_it(*args: Tensor, **form: bool) -> Tensor:
        value = case.kernel(*args, **form)
        return value[:5] if paired or where == "x" else value[:, :5]

    clean = answer(without_it, given, paired)
    found = answer(without_it, given._replace(**{where: spoilt}), paired)
    for part in clean._fields:
        assert torch.equal(getattr(found, part), getattr(clean, part)), part


def test_a_plan_moves_no_more_than_there_is() -> None:
    """Costs of 1e8 epsilon round by several epsilon in float32; the columns' masses are still 1/2."""
    cost = torch.tensor([[[[1.1, 1.6]]]], requires_grad=True)
    scav_kernels.sinkhorn_from_cost(cost, epsilon=1e-8).sum().backward()
    assert cost.grad.max().item() <= 0.5 + 1e-6


def test_sinkhorn_does_not_iterate_on_nan() -> None:
    """Costs of 1e39 epsilon overflow float32: however many iterations are allowed, none of them helps."""
    began = time.process_time()
    x, y = torch.tensor([[[1e18]]]), torch.zeros(1, 2, 1)
    scav_kernels.sinkhorn(x, y, cost="sqeuclidean", epsilon=1e-3, max_iterations=3_000_000)
    assert time.process_time() - began < 0.1


# Powers of two, which round nothing.
@pytest.mark.parametrize("scale", [2.0**-20, 2.0**-10, 2.0**10, 2.0**20])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_distances_scale_with_their_inputs(case: Case, scale: float) -> None:
    given = sequences(Shape(b1=3, b2=17, n=9, m=8))
    power = {"soft_dtw": 2, "interpolated_cosine": 0}.get(case.metric, 1)
    # Gamma and epsilon are in the cost's unit.
    unit = {"soft_dtw": {"gamma": scale**2}, "sinkhorn": {"epsilon": 0.05 * scale}}.get(case.metric, {})

    def scaled(x: Tensor, y: Tensor, *lengths: Tensor) -> Tensor:
        return case.kernel(x * scale, y * scale, *lengths, **unit) / scale**power

    assert_same_up_to_rounding(answer(scaled, given), answer(case.kernel, given))


def alignment(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Soft-DTW's expected alignment E = ∂ out / ∂ c (N, M) of x (N, D), y (M, D), through the public function.

    Each step of y gets a feature of its own, of size h, in which x is zero: every cost grows by the same h², and the
    gradient of x[s] in the feature of y[t] is −2 h E[s, t].
    """
    h = 2.0**-6
    n, m = len(x), len(y)
    x = torch.cat([x, x.new_zeros(n, m)], 1)[None].requires_grad_()
    y = torch.cat([y, h * torch.eye(m, dtype=y.dtype)], 1)[None]
    scav_kernels.soft_dtw(x, y, gamma=gamma).backward()
    return x.grad[0, :, -m:] / (-2 * h)


@pytest.mark.parametrize(("gamma", "scale"), [(1e-3, 1.0), (0.1, 10.0), (1.0, 1.0), (100.0, 1.0)])
def test_soft_dtw_alignment_is_a_distribution_over_paths(gamma: float, scale: float) -> None:
    n, m = 256, 240
    generator = torch.Generator().manual_seed(0)
    x, y = scale * torch.randn(n, 8, generator=generator), scale * torch.randn(m, 8, generator=generator)
    expected = alignment(x, y, gamma)
    # Every path passes both corners, every row and every column, and every anti-diagonal at most once.
    assert abs(expected[0, 0].item() - 1) <= ALIGNMENT
    assert abs(expected[-1, -1].item() - 1) <= ALIGNMENT
    assert (expected >= 0).all()
    assert (expected <= 1 + ALIGNMENT).all()
    assert (expected.sum(0) >= 1 - ALIGNMENT).all()
    assert (expected.sum(1) >= 1 - ALIGNMENT).all()
    crossings = torch.stack([expected.flip(1).diagonal(offset).sum() for offset in range(-n + 1, m)])
    assert (crossings <= 1 + ALIGNMENT).all()
    # A path that jumps over an anti-diagonal touches the two beside it.
    assert (crossings[:-1] + crossings[1:] >= 1 - ALIGNMENT).all()


def first_cells(x: Tensor, y: Tensor, *lengths: Tensor, gamma: float) -> Tensor:
    """E[0, 0] of each x (B1, N, D), summed over its y's (B2, M, D): (B1,).

    As above, but the first steps of the y's alone carry a feature of their own.
    """
    h = 2.0**-6
    x, y = (torch.nn.functional.pad(steps, (1, 0)) for steps in (x, y))
    y[:, 0, 0] = h
    x.requires_grad_()
    scav_kernels.soft_dtw(x, y, *lengths, gamma=gamma).sum().backward()
    return x.grad[:, 0, 0] / (-2 * h)


def test_soft_dtw_alignment_in_lanes() -> None:
    given = sequences(Shape(b1=3, b2=33, n=256, m=256, d=8)).map(lambda steps: 30 * steps)
    found = first_cells(*given, gamma=0.1)
    assert (found / 33 - 1).abs().max().item() <= ALIGNMENT


@pytest.mark.parametrize(("gamma", "scale"), [(1e-3, 1.0), (0.1, 10.0)])
def test_soft_dtw_alignment_of_long_sequences(gamma: float, scale: float) -> None:
    given = sequences(Shape(b1=1, b2=1, n=4096, m=4096, d=8, ragged=False)).map(lambda steps: scale * 8**0.5 * steps)
    assert abs(first_cells(given.x, given.y, gamma=gamma).item() - 1) <= ALIGNMENT
