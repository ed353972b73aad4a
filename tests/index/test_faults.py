import errno
import resource
from contextlib import contextmanager

import pytest

from scav_model.index import DamagedIndexError, IndexWriter, SearchIndex, SearchIndexError, queries_by_id, search
from tests.index.survival import answers, kill, make_damageable, mutate
from tests.index.worlds import clip


def test_a_killed_writer_leaves_a_whole_version():
    counted = kill(4, seed=1)
    assert counted["kills"] == 4
    assert counted["changes"] >= 4


def test_no_damage_crashes_or_changes_an_answer():
    results = list(mutate(60, seed=5000))
    assert len(results) == 60
    assert [result for result in results if result[3].startswith("WRONG")] == []
    assert len({result[1].split(".", 1)[1] for result in results}) > 4
    assert sum(result[3] == "named" for result in results) > 20


@pytest.mark.parametrize("kind", ["index.json", "clips", "sequences", "audio.means", "bounds", "deleted"])
def test_a_flipped_bit_is_named(tmp_path, kind):
    make_damageable(tmp_path / "index")
    path = next(path for path in sorted((tmp_path / "index").iterdir()) if kind in path.name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    try:
        problems = [problem for found in SearchIndex.open(tmp_path / "index").problems() for problem in found]
    except DamagedIndexError as error:
        problems = [str(error)]
    assert len(problems) == 1
    assert problems[0].startswith(f"{path} is damaged")


def test_a_damaged_clip_is_named_and_the_others_are_found(tmp_path):
    make_damageable(tmp_path / "index")
    index = SearchIndex.open(tmp_path / "index")
    shard, number = index.at(index.number("clip-20"))
    path = tmp_path / "index" / shard.shard.sequences.name
    content = bytearray(path.read_bytes())
    width = 8 * 2
    content[shard.shard.begins["audio"] + int(shard.lengths["audio"][: number + 1].sum() - 1) * width] ^= 4
    path.write_bytes(content)
    index = SearchIndex.open(tmp_path / "index")
    with pytest.raises(DamagedIndexError, match="the audio of clip 'clip-20' does not fit its checksum"):
        search(index, queries_by_id(index, ["clip-20"], "video"), 1)
    assert search(index, queries_by_id(index, ["clip-3"], "audio"), 1).hits[0][0].id == "clip-3"
    problems = [problem for found in index.problems() for problem in found]
    assert len(problems) == 1
    with IndexWriter(tmp_path / "index") as writer, pytest.raises(DamagedIndexError, match="'clip-20'"):
        writer.compact()
    assert len(SearchIndex.open(tmp_path / "index")) == 38


@contextmanager
def files_of_at_most(bytes):
    """A full disk: a write fails in the middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("change", ["add", "delete", "compact"])
def test_a_full_disk_leaves_the_index_as_it_was(make_index, change):
    folder = make_index(20)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    right = answers_of(folder)
    with IndexWriter(folder) as writer:
        for number in range(100, 140) if change == "add" else ():
            writer.add(clip(number))
        expected = "20 clips; make room and repeat"
        with files_of_at_most(64 if change == "delete" else 2000), pytest.raises(SearchIndexError, match=expected):
            {"add": writer.commit, "delete": lambda: writer.delete(["clip-1"]), "compact": writer.compact}[change]()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert answers_of(folder) == right
        # Once there is room again, the same writer goes on.
        for number in range(100, 104):
            writer.add(clip(number))
    assert len(SearchIndex.open(folder)) == 24


def answers_of(folder):
    index = SearchIndex.open(folder)
    hits = search(index, queries_by_id(index, ["clip-3"], "video"), 20).hits[0]
    return [(hit.id, hit.distance) for hit in hits]


def test_a_disk_that_fills_at_the_header_leaves_the_index_as_it_was(make_index, monkeypatch):
    folder = make_index(9)
    right = answers_of(folder)

    def full(header, where):
        raise OSError(errno.ENOSPC, "No space left on device")

    with IndexWriter(folder) as writer:
        writer.add(clip(50))
        with monkeypatch.context() as patched:
            patched.setattr("scav_model.index.header.Header.write", full)
            with pytest.raises(SearchIndexError, match=r"No space left on device.*what it was, 9 clips"):
                writer.commit()
    assert answers_of(folder) == right
    assert not [path for path in folder.iterdir() if "000002" in path.name]


def test_what_a_killed_writer_left_is_taken_away(make_index):
    folder = make_index(5)
    names = {path.name for path in folder.iterdir()}
    for name in ("shard-000099.sequences.safetensors", ".index.json.77.partial", "deleted-000009.bin"):
        (folder / name).write_bytes(b"half")
    assert answers_of(folder)
    IndexWriter(folder).close()
    assert {path.name for path in folder.iterdir()} == names


def test_what_is_asked_of_damaged_indexes_reads_all_of_them(tmp_path):
    make_damageable(tmp_path / "index")
    assert len(answers(SearchIndex.open(tmp_path / "index"))) == 4
