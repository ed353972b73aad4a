"""The toy distance as a user calls it: by name, with its option, and in a search. test_scaffold.py runs this file."""

from pathlib import Path

import pytest
import torch

import scav_kernels
from scav_kernels.ops.registry import METRICS
from scav_kernels.reference import mean_l1
from tests.ops.test_topk import brute_force, clips

NAME = "mean_l1"


def test_the_copy_is_tested() -> None:
    assert Path(scav_kernels.__file__).parents[1] == Path(__file__).parents[2]


def test_by_name() -> None:
    x, xl = clips(4, 9, 5, seed=0)
    y, yl = clips(3, 7, 5, seed=1)
    for options in ({}, {"weight": 3.0}, {"weight": 2}):
        every = mean_l1(x, y, xl, yl, **options)
        torch.testing.assert_close(scav_kernels.cdist(x, y, xl, yl, metric=NAME, **options), every)
        pairs = scav_kernels.pairwise_distance(x[:3], y, xl[:3], yl, metric=NAME, **options)
        torch.testing.assert_close(pairs, every[:3].diagonal())


def test_its_option_is_checked() -> None:
    x = torch.randn(2, 3, 4)
    for call in (
        lambda **options: scav_kernels.cdist(x, x, metric=NAME, **options),
        lambda **options: scav_kernels.topk(x, x, 1, metric=NAME, **options),
    ):
        with pytest.raises(TypeError, match="expected weight to be a number, got 'heavy' of type str"):
            call(weight="heavy")
        with pytest.raises(ValueError, match="expected weight"):
            call(weight=-1.0)
        with pytest.raises(TypeError, match="'mean_l1' takes the options weight, got 'wieght'; did you mean 'weight'"):
            call(wieght=1.0)


@pytest.mark.parametrize("are", ["x", "y"])
def test_exhaustive_search(are: str) -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(70, 11, 48, seed=1)
    d, dl = torch.cat([d, d[:30]]), torch.cat([dl, dl[:30]])
    d[5, 0, 3] = torch.nan
    expected = brute_force(q, d, ql, dl, are, metric=NAME).nan_to_num(nan=torch.inf).sort(dim=1, stable=True)
    for prune, reason in (("auto", f"{NAME} has no lower bound that holds"), ("none", "prune='none'")):
        found = scav_kernels.topk(q, d, 12, ql, dl, metric=NAME, queries_are=are, prune=prune)
        assert torch.equal(found.indices, expected.indices[:, :12])
        assert torch.equal(found.distances, expected.values[:, :12])
        assert found.report.exhaustive == reason
        assert found.report.scored == found.report.pairs == 400
    assert not METRICS[NAME].has_bounds
    with pytest.raises(ValueError, match="with candidates, which its lower bounds choose, got 'mean_l1'"):
        scav_kernels.topk(q, d, 1, metric=NAME, candidates=5)
