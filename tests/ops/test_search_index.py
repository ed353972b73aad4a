"""Databases that are read item by item, and summaries that are kept."""

from typing import Any

import pytest
import torch
from torch import Tensor

import scav_kernels
from scav_kernels import SearchIndex, Summaries, summarize, topk
from tests.ops.test_topk import METRICS, clips


class Listed:
    """Sequences one by one, cut to their lengths; notes down which were read."""

    def __init__(self, steps: Tensor, lengths: Tensor) -> None:
        self._items = [one[:length] for one, length in zip(steps, lengths.tolist(), strict=True)]
        self.lengths, self.dim, self.dtype = lengths, steps.shape[2], steps.dtype
        self.seen: set[int] = set()
        self.largest = 0

    def read(self, items: Tensor) -> Tensor:
        self.seen |= set(items.tolist())
        self.largest = max(self.largest, len(items))
        out = torch.full((len(items), int(self.lengths.max()), self.dim), torch.nan, dtype=self.dtype)
        for row, item in zip(out, items.tolist(), strict=True):
            row[: self.lengths[item]] = self._items[item]
        return out


def targets_of(ql: Tensor, dl: Tensor, are: str, options: dict[str, Any]) -> Tensor:
    """Return the steps that items are resampled to, for queries of one length."""
    resample = options.get("resample", "x")
    if resample == "shorter":
        return dl.clamp(min=int(ql[0]))
    return dl if resample == are else ql[:1].expand(len(dl)).clone()


@pytest.mark.parametrize(("metric", "options"), METRICS[:8], ids=[f"{m}-{o}" for m, o in METRICS[:8]])
@pytest.mark.parametrize("are", ["x", "y"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_found_as_what_is_there(
    metric: str, options: dict[str, Any], are: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(300, 11, 48, seed=1)
    q, d = q.to(dtype), d.to(dtype)
    expected = topk(q, d, 12, ql, dl, metric=metric, queries_are=are, **options)
    monkeypatch.setattr("scav_kernels.search.index._BLOCK_NUMBERS", 37 * d[0].numel())
    for prune in ("auto", "none"):
        reader = Listed(d, dl)
        found = topk(q, SearchIndex(reader), 12, ql, metric=metric, queries_are=are, prune=prune, **options)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)
        assert reader.largest <= 37


@pytest.mark.parametrize("options", [{}, {"squared": True}, {"resample": "y"}, {"resample": "shorter"}])
@pytest.mark.parametrize("are", ["x", "y"])
@pytest.mark.parametrize("dim", [3, 12, 48])
def test_with_kept_summaries_most_is_never_read(options: dict[str, Any], are: str, dim: int) -> None:
    q, _ = clips(4, 9, dim, seed=0)
    d, dl = clips(400, 40, dim, seed=1)
    q = d[:4, :9] if options.get("resample") == "y" else q
    ql = torch.full((4,), 9)
    expected = topk(q, d, 5, ql, dl, queries_are=are, **options)
    kept = summarize(d, dl, targets_of(ql, dl, are, options), squared=options.get("squared", False))
    reader = Listed(d, dl)
    index = SearchIndex(reader, summaries=kept)
    # The second one by what the first has made of the summaries.
    for _ in range(2):
        found = topk(q, index, 5, ql, queries_are=are, **options)
        assert torch.equal(found.indices, expected.indices)
        assert torch.equal(found.distances, expected.distances)
        assert found.report == expected.report
    assert len(reader.seen) <= found.report.scored
    assert len(reader.seen) < 200
    some = topk(q, index, 5, ql, queries_are=are, candidates=5, **options)
    assert some.report.scored <= 20


def test_summaries_of_another_kind_are_made() -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(100, 11, 48, seed=1)
    kept = summarize(d, dl, dl + 1)
    for options in ({}, {"squared": True}):
        expected = topk(q, d, 5, ql, dl, **options)
        found = topk(q, SearchIndex(d, dl, kept), 5, ql, **options)
        assert torch.equal(found.indices, expected.indices)
        assert found.report.removed > 0


def test_directions_of_others_bound_too() -> None:
    q, ql = clips(4, 9, 48, seed=0)
    d, dl = clips(100, 11, 48, seed=1)
    basis = torch.linalg.qr(torch.randn(48, 20)).Q.T
    kept = summarize(Listed(d, dl), directions=basis)
    assert torch.equal(kept.directions, basis)
    found = topk(q, SearchIndex(d, dl, kept), 5, ql)
    assert torch.equal(found.indices, topk(q, d, 5, ql, dl).indices)


def test_the_old_name_of_summarize_warns() -> None:
    with pytest.warns(DeprecationWarning, match=r"^scav_kernels.summarise is now scav_kernels.summarize$"):
        assert scav_kernels.summarise is summarize
    with pytest.raises(AttributeError, match="no attribute 'summary'"):
        scav_kernels.summary  # noqa: B018


def test_wrong_inputs() -> None:
    d, dl = clips(10, 11, 48, seed=1)
    with pytest.raises(ValueError, match="has its own"):
        SearchIndex(Listed(d, dl), dl)
    with pytest.raises(ValueError, match="targets"):
        summarize(d, dl, torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ValueError, match="targets"):
        summarize(d, dl, dl[:3])
    with pytest.raises(ValueError, match=r"directions \(K, 48\)"):
        summarize(d, dl, directions=torch.zeros(3, 4))
    kept = summarize(d, dl)
    for name in ("norms", "targets", "means"):
        with pytest.raises(ValueError, match=rf"summaries\.{name}"):
            SearchIndex(d, dl, kept._replace(**{name: getattr(kept, name)[1:]}))
    with pytest.raises(ValueError, match=r"summaries\.directions"):
        SearchIndex(d, dl, kept._replace(directions=torch.zeros(3, 4)))
    with pytest.raises(ValueError, match=r"summaries\.norms"):
        SearchIndex(d.double(), dl, kept)
    with pytest.raises(ValueError, match="lengths from 1"):
        SearchIndex(Listed(d, torch.zeros_like(dl)))
    assert isinstance(kept, Summaries)


def test_summaries_within_autocast() -> None:
    steps, lengths = clips(9, 6, 40, seed=3)
    expected = summarize(steps, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = [summarize(steps, lengths), summarize(Listed(steps, lengths))]
    for summaries in found:
        assert all(torch.equal(getattr(summaries, name), getattr(expected, name)) for name in ("directions", "means"))
