"""Queries: encoded sequences of one side, by name."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scav_model.distances import Sequences
from scav_model.index.header import SIDES, SearchIndexError
from scav_model.index.index import IndexReader
from scav_model.storage.text import shown

# Ids that are compared with one that is not there.
COMPARED = 50_000


@dataclass(frozen=True)
class Queries:
    """Q encoded queries.

    Attributes:
        side: video or audio; the other side of the index is searched.
        names: of each query, an id or a file.
        sequences: steps (Q, T, D) float32 and lengths (Q,).
        media: path of each query's file, None where there is none.
    """

    side: str
    names: list[str]
    sequences: Sequences
    media: list[str | None]

    @property
    def target(self) -> str:
        """The side that is searched."""
        return "audio" if self.side == "video" else "video"

    def __len__(self) -> int:
        return len(self.names)

    def steps(self, query: int) -> Tensor:
        """Return the steps (T, D) of one query."""
        return self.sequences.steps[query, : int(self.sequences.lengths[query])]

    def one(self, query: int) -> Sequences:
        """Return one query, unpadded: (1, T, D)."""
        return Sequences(self.steps(query)[None], self.sequences.lengths[query : query + 1])

    def check(self, index: IndexReader) -> None:
        """Check that the index can be searched for these queries.

        Raises:
            SearchIndexError: it cannot; the message says why.
        """
        if self.side not in SIDES:
            raise SearchIndexError(f"expected queries to be of video or audio, got {self.side!r}")
        if not len(self):
            raise SearchIndexError("expected at least one query, got none")
        index.check_side(self.target)
        if self.sequences.steps.shape[2] != index.header.dim:
            raise SearchIndexError(
                f"expected queries of {index.header.dim} features a step, as {index.folder} holds, got "
                f"{self.sequences.steps.shape[2]}; encode them with {index.header.checkpoint}"
            )
        for query, name in enumerate(self.names):
            if not bool(self.steps(query).isfinite().all()):
                raise SearchIndexError(f"the query {name!r} is NaN or infinite")


def make_queries(
    side: str, names: Sequence[str], steps: Sequence[Tensor], media: Sequence[str | None] | None = None
) -> Queries:
    """Return queries of steps (T, D) each."""
    lengths = torch.tensor([len(one) for one in steps], dtype=torch.int64)
    padded = torch.nn.utils.rnn.pad_sequence([one.float() for one in steps], batch_first=True)
    return Queries(side, list(names), Sequences(padded, lengths), list(media or [None] * len(names)))


def queries_by_id(index: IndexReader, ids: Sequence[str], side: str) -> Queries:
    """Return clips of the index as queries; their `side` searches the other side.

    Raises:
        SearchIndexError: an id that is not there, or a side that the index does not hold.
    """
    index.check_side(side)
    numbers = [index.number(name) for name in ids]
    media = [index.media(number).get("path") for number in numbers]
    return make_queries(side, ids, [index.steps(side, number) for number in numbers], media)


def check_id(index: IndexReader, name: str) -> None:
    """Check that a clip has this id.

    Raises:
        SearchIndexError: no clip has that id, where no file has that name; the message names the ids nearest to it.
    """
    if name in index.numbers:
        return
    if os.path.isdir(name):
        raise SearchIndexError(
            f"expected a media file or the id of a clip, got the folder {shown(name)}; name files in it"
        )
    reason = "it was deleted" if any(name in shard.ids for shard in index.shards) else "no clip has that id"
    near = difflib.get_close_matches(name, itertools.islice(index.numbers, COMPARED), n=3)
    advice = f"did you mean {', '.join(map(shown, near))}?" if near else "check the name"
    raise SearchIndexError(
        f"expected a media file or the id of a clip: there is no such file, and {shown(name)} is not in "
        f"{index.folder}: {reason}; {advice}"
    )
