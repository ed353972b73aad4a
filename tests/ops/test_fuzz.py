"""Random calls of every op: each raises a decent error, or returns what is right. `fuzz.py` says how to make more."""

import inspect

import pytest
import torch
from torch import Tensor

from scav_kernels import reference

from . import fuzz, fuzz_oracle
from .fuzz_calls import Arguments, Artist, all_ops, overload
from .inputs import weights

CALLS, SHARDS = 24_000, 4
SHARD = CALLS // SHARDS
FORWARD = [op for op in all_ops() if not op.endswith("_backward")]


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_random_calls(shard: int) -> None:
    report = fuzz.run(SHARD, seed=0, processes=1, first=shard * SHARD)
    print(report)
    assert not report.failures, str(report)
    assert report.counts.total() == SHARD
    assert report.counts["compared"] > 0.5 * SHARD
    assert report.counts["refused"] > 0.3 * SHARD
    for op in all_ops():
        assert report.compared[op] > 0.25 * SHARD / len(all_ops()), op


@pytest.mark.parametrize("op", FORWARD)
def test_the_oracle_agrees_with_the_reference(op: str) -> None:
    compared = 0
    for index in range(80):
        given = small_numbers(op, index)
        if given is None:
            continue
        compared += 1
        parameters = inspect.signature(getattr(reference, op)).parameters
        names = [name for name in parameters if name in given and name != "return_convergence"]
        leaves = {name: given[name].detach().contiguous().clone().requires_grad_() for name in gradients_of(given)}
        value = getattr(reference, op)(**{name: leaves.get(name, given[name]) for name in names})
        expected, *others = fuzz_oracle.expected(op, given)
        assert expected.mismatch(value) is None, index
        if given.get("return_convergence"):
            _, ended = getattr(reference, op)(**{name: given[name] for name in names}, return_convergence=True)
            for output, of in zip(others[1:], ended, strict=True):
                assert output.mismatch(of) is None, index
        # A cosine's rounding may break a tie of DTW the other way.
        if op == "dtw" and given["cost"] == "cosine":
            continue
        grad = weights(value)
        value.backward(grad)
        back = {**given, **saved_by(op, given), "grad": grad, "need_x": True, "need_y": True}
        for leaf, gradient in zip(leaves.values(), fuzz_oracle.expected(f"{op}_backward", back), strict=True):
            assert gradient.mismatch(leaf.grad) is None, index
    assert compared >= 20


def small_numbers(op: str, index: int) -> Arguments | None:
    """Arguments of a valid call in float64, of a draw that is small, and free of poison, which the reference lacks."""
    artist = Artist(seed=1, index=index)
    artist.dtype = torch.float64
    given = artist.valid(op).arguments
    small = 0 < artist.b1 * artist.b2 * artist.n * artist.m <= 200 and artist.max_iterations <= 100
    return given if small and all(given[name].abs().lt(1e20).all() for name in gradients_of(given)) else None


def gradients_of(given: Arguments) -> list[str]:
    return [name for name in ("x", "y", "cost") if isinstance(given.get(name), Tensor)]


def saved_by(op: str, given: Arguments) -> Arguments:
    """Return what the op saves for its backward pass, by name."""
    call = overload(op)
    outputs = call(
        *(
            {**given, "save_path": True, "save_potentials": True, "return_convergence": True}[a.name]
            for a in call._schema.arguments
        )
    )
    names = [of.name or "out" for of in call._schema.returns]
    return dict(zip(names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
