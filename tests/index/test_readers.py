"""A reader answers from the version that it opened, whatever a writer does meanwhile."""

import os
import subprocess
import sys

import pytest

from scav_model.index import IndexWriter, SearchIndex, queries_by_id, search
from tests.index.survival import answers
from tests.index.worlds import clip

pytestmark = pytest.mark.slow

WRITER = """
import sys
import torch
from scav_model.index import IndexWriter
from tests.index.worlds import clip
torch.set_num_threads(1)
print("ready", flush=True)
number = 100
while True:
    with IndexWriter(sys.argv[1], shard_bytes=1 << 10) as writer:
        for _ in range(12):
            writer.add(clip(number))
            number += 1
        writer.delete([f"clip-{number - gone}" for gone in range(1, 13)])
        writer.compact()
"""


def test_a_reader_opened_before_a_change_answers_as_before(make_index):
    folder = make_index(31)
    right = answers(SearchIndex.open(folder))
    # The first has read nothing yet when its files lose their names, the second has read all.
    unread, read = SearchIndex.open(folder), SearchIndex.open(folder)
    assert answers(read) == right
    names = {file.name for file in unread.header.files()}
    with IndexWriter(folder) as writer:
        writer.add(clip(50))
        writer.delete(["clip-3", "clip-17"])
        writer.compact()
    assert not names & {path.name for path in folder.iterdir()}
    for index in (unread, read):
        assert answers(index) == right
        assert [problem for found in index.problems() for problem in found] == []
        assert len(index.shards[0].means("video")) == len(index.shards[0])


def test_an_open_index_holds_no_descriptors(make_index):
    folder = make_index(31, per_shard=2)
    index = SearchIndex.open(folder)
    answers(index)
    before = len(os.listdir("/dev/fd"))
    opened = [SearchIndex.open(folder) for _ in range(3)]
    assert [answers(one) for one in opened] == [answers(index)] * 3
    assert len(os.listdir("/dev/fd")) == before


def test_a_folder_needs_no_name_in_utf_8(make_index, tmp_path):
    folder = make_index(31)
    right = answers(SearchIndex.open(folder))
    moved = folder.rename(tmp_path / os.fsdecode(b"index \xff"))
    assert answers(SearchIndex.open(moved)) == right


def test_searches_beside_a_writer_never_fail(make_index):
    folder = make_index(20, per_shard=4)
    first = SearchIndex.open(folder)
    asked = queries_by_id(first, ["clip-3"], "video")
    hits = {mode: search(first, asked, 20, mode=mode).hits[0] for mode in ("exact", "hybrid", "mean")}
    right = {mode: {hit.id: hit.distance for hit in found} for mode, found in hits.items()}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        versions = set()
        for number in range(510):
            mode = ("exact", "hybrid", "mean")[number % 3]
            index = SearchIndex.open(folder)
            versions.add(index.header.version)
            found = {hit.id: hit.distance for hit in search(index, asked, len(index), mode=mode).hits[0]}
            # Clips come and go. Those that stay are as far as they were, but for digits that depend on their neighbors.
            assert {name: found.get(name) for name in right[mode]} == pytest.approx(right[mode], rel=1e-4, abs=1e-5)
            if number % 50 == 0:
                found = {hit.id: hit.distance for hit in search(first, asked, 20, mode=mode).hits[0]}
                assert found == right[mode]
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.communicate()
    assert len(versions) > 10


def test_what_killed_writers_left_is_removed_by_the_next(make_index):
    folder = make_index(4)
    for name in (".index.json.1.partial", ".shard-000001.clips.safetensors.22.partial", "shard-000009.video.means.bin"):
        (folder / name).write_bytes(b"half")
    IndexWriter(folder).close()
    listed = {file.name for file in SearchIndex.open(folder).header.files()}
    assert {path.name for path in folder.iterdir()} == listed | {"index.json", ".lock"}
