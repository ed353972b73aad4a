"""Results do not depend on the order of a batch, its other members, memory layout, threads or earlier calls."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .cases import CASES, CORE, Case
from .filled_memory import given
from .inputs import Sequences, Shape, answer, sequences
from .tolerances import assert_close, assert_same_up_to_rounding


@pytest.mark.parametrize("case", CASES, ids=str)
def test_permuting_a_batch_permutes_the_result(case: Case) -> None:
    given = sequences(Shape(b1=7, b2=19, n=8, m=9))
    generator = torch.Generator().manual_seed(0)
    i, j = torch.randperm(7, generator=generator), torch.randperm(19, generator=generator)
    permuted = Sequences(given.x[i], given.y[j], given.x_lengths[i], given.y_lengths[j])
    assert_close("value", case.kernel(*permuted), case.kernel(*given)[i][:, j])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_paired_is_the_diagonal_of_all_pairs(case: Case) -> None:
    given = sequences(Shape(b1=18, b2=18, n=8, m=9))

    def diagonal(*args: Tensor, **options: object) -> Tensor:
        return case.kernel(*args).diagonal()

    paired = answer(case.kernel, given, paired=True)
    assert_same_up_to_rounding(paired, answer(diagonal, given))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_pair_does_not_depend_on_its_batch(case: Case) -> None:
    given = sequences(Shape(b1=3, b2=18, n=8, m=9))
    together = case.kernel(*given)
    for i in range(3):
        for j in range(18):
            alone = case.kernel(
                given.x[i : i + 1], given.y[j : j + 1], given.x_lengths[i : i + 1], given.y_lengths[j : j + 1]
            )
            assert_close(f"pair {i}, {j}", alone, together[i : i + 1, j : j + 1])


def transposed(x: Tensor) -> Tensor:
    return x.permute(2, 1, 0).contiguous().permute(2, 1, 0)


def every_second_of_a_wider_one(x: Tensor) -> Tensor:
    wide = x.new_full((x.shape[0], 2 * x.shape[1], 3 * x.shape[2]), torch.nan)
    wide[:, ::2, 1::3] = x
    return wide[:, ::2, 1::3]


def at_an_odd_offset(x: Tensor) -> Tensor:
    room = x.new_full((x.numel() + 1,), torch.nan)
    room[1:] = x.flatten()
    return room[1:].view_as(x)


@pytest.mark.parametrize("layout", [transposed, every_second_of_a_wider_one, at_an_odd_offset])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_layout(case: Case, paired: bool, layout: Callable[[Tensor], Tensor]) -> None:
    given = sequences(Shape(b1=3, b2=3, n=6, m=5, d=17))

    def laid_out(x: Tensor, y: Tensor, *lengths: Tensor, paired: bool = False) -> Tensor:
        x, y = layout(x), layout(y)
        assert layout is at_an_odd_offset or not x.is_contiguous()
        return case.kernel(x, y, *lengths, paired=paired)

    assert_same_up_to_rounding(answer(laid_out, given, paired), answer(case.kernel, given, paired))


@pytest.mark.parametrize("case", CORE, ids=str)
def test_expanded_inputs_and_strided_lengths(case: Case) -> None:
    given = sequences(Shape(b1=1, b2=1, n=6, m=5))
    x_lengths, y_lengths = torch.tensor([4, 0, 4, 0, 4, 0])[::2], torch.tensor(5).expand(4)

    def expanded(x: Tensor, y: Tensor, *_: Tensor) -> Tensor:
        return case.kernel(x.expand(3, 6, 4), y.expand(4, 5, 4), x_lengths, y_lengths)

    def repeated(x: Tensor, y: Tensor, *_: Tensor) -> Tensor:
        return case.kernel(x.repeat(3, 1, 1), y.repeat(4, 1, 1), x_lengths.clone(), y_lengths.clone())

    assert_same_up_to_rounding(answer(expanded, given), answer(repeated, given))


@pytest.mark.parametrize("ragged", [pytest.param(False, marks=pytest.mark.slow), True], ids=["whole", "ragged"])
@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_thread_count(case: Case, paired: bool, ragged: bool, threads: Callable[[int], None]) -> None:
    given = sequences(Shape(b1=37, b2=37, n=17, m=16, d=33, ragged=ragged))
    threads(1)
    one = answer(case.kernel, given, paired)
    threads(2)
    assert_same_up_to_rounding(answer(case.kernel, given, paired), one)


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("case", CORE, ids=str)
def test_a_batch_larger_than_cache(case: Case, count: int, threads: Callable[[int], None]) -> None:
    # Each x takes 600 kB, so that gradients are gathered for a few at a time.
    given = sequences(Shape(b1=9, b2=18, n=33, m=5, d=4560))
    threads(count)

    def one_by_one(x: Tensor, y: Tensor, x_lengths: Tensor, y_lengths: Tensor) -> Tensor:
        rows = [case.kernel(x[i : i + 1], y, x_lengths[i : i + 1], y_lengths) for i in range(len(x))]
        return torch.cat(rows)

    assert_same_up_to_rounding(answer(case.kernel, given), answer(one_by_one, given))


@pytest.mark.parametrize("paired", [False, True], ids=["all_pairs", "paired"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_runs_are_bit_identical(case: Case, paired: bool, threads: Callable[[int], None]) -> None:
    given = sequences(Shape(b1=37, b2=37, n=17, m=16, d=33))
    threads(2)
    first, second = (answer(case.kernel, given, paired) for _ in range(2))
    for part in first._fields:
        assert torch.equal(getattr(first, part), getattr(second, part)), part


@pytest.mark.parametrize("case", CORE, ids=str)
def test_fresh_results_are_not_read(case: Case) -> None:
    expected = answer(case.kernel, given())
    # In this mode torch fills every new tensor with NaN.
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        actual = answer(case.kernel, given())
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_up_to_rounding(actual, expected)


@pytest.fixture(scope="module")
def filled_memory_answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tensor, ...]]:
    """Return the answers of a process whose allocator fills memory with numbers of 3e38, or 1e306 in float64."""
    file = tmp_path_factory.mktemp("filled") / "answers.pt"
    subprocess.run(
        [sys.executable, "-m", "tests.ops.filled_memory", file],
        env={**os.environ, "MALLOC_PERTURB_": "128"},
        cwd=Path(__file__).parents[2],
        check=True,
    )
    loaded: dict[str, tuple[Tensor, ...]] = torch.load(file)
    return loaded


@pytest.mark.parametrize("case", CORE, ids=str)
def test_fresh_memory_is_not_read(case: Case, filled_memory_answers: dict[str, tuple[Tensor, ...]]) -> None:
    expected = answer(case.kernel, given())
    assert_same_up_to_rounding(type(expected)(*filled_memory_answers[str(case)]), expected)
