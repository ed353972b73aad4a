"""Search by actors of a cluster: the answers of one process, whatever dies."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from scav_model.distributed import ClusterError, SearchWorkers, connect
from scav_model.distributed.search import divide
from scav_model.distributed.shard import Limits
from scav_model.index import (
    DamagedIndexError,
    Encoded,
    IndexWriter,
    SearchIndex,
    SearchIndexError,
    queries_by_id,
    search,
)
from tests.index.worlds import clip, header

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray")
# So many that bounds are tried: of each other shard, clips of two lengths.
MANY = [f"clip-{number}" for number in range(1, 34)]


def build(folder: Path, count: int, per_shard: int, **changes: object) -> Path:
    """Clips, of which one in five is the same in every shard, and some deleted ones."""
    with IndexWriter.create(folder, header(**changes)) as writer:
        for number in range(count):
            like = number % per_shard if number % 5 == 0 else number
            writer.add(Encoded(f"clip-{number}", clip(like).steps, {"path": f"/media/{number}.mp4"}))
            if number % per_shard == per_shard - 1:
                writer.commit()
    with IndexWriter(folder) as writer:
        writer.delete([f"clip-{count - 3}", f"clip-{count - 1}"])
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    return SearchIndex.open(build(tmp_path_factory.mktemp("sharded") / "index", 400, 100))


@pytest.fixture(scope="class")
def workers(cluster: str, index: SearchIndex) -> Iterator[SearchWorkers]:
    with connect("local"), SearchWorkers(index, 2) as made:
        yield made
    # The connection was there before.
    assert ray.is_initialized()


def process(actor: object) -> int:
    return ray.get(actor.__ray_call__.remote(lambda self: os.getpid()))  # type: ignore[attr-defined]


def hold_up(actor: object, begun: Path) -> None:
    """Make the pieces of an actor's searches take minutes, and have it tell when one has begun."""

    # By value, for the actor cannot import tests.
    def patch(self: object) -> None:
        import time

        import scav_kernels

        topk = scav_kernels.topk

        def slow(*given: object, **options: object) -> object:
            answer = topk(*given, **options)  # type: ignore[arg-type]
            begun.touch()
            time.sleep(300)
            return answer

        scav_kernels.topk = slow  # type: ignore[assignment]

    ray.get(actor.__ray_call__.remote(patch))  # type: ignore[attr-defined]


class TestTwoWorkers:
    """They hold the cluster's CPUs until the last of these tests."""

    def test_the_answer_is_that_of_one_process(self, index: SearchIndex, workers: SearchWorkers) -> None:
        assert workers.parts == [range(2), range(2, 4)]
        alone = SearchIndex.open(index.folder)
        for side in ("video", "audio"):
            for mode in ("exact", "hybrid", "mean"):
                for names, k in ((MANY[:3], 12), (MANY, 5), (["clip-1"], 1000)):
                    queries = queries_by_id(index, names, side)
                    right = search(alone, queries, k, mode=mode)
                    found = search(index, queries, k, mode=mode, workers=workers)
                    assert found.hits == right.hits
                    assert found.notes == right.notes
            # Clips that are the same, in both parts: those that the index holds first come first.
            twins = search(index, queries_by_id(index, ["clip-205"], side), 3, workers=workers).hits[0]
            assert [hit.id for hit in twins] == ["clip-5", "clip-105", "clip-205"]
            assert len({hit.distance for hit in twins}) == 1

    def test_parts_prune_by_what_others_found(self, index: SearchIndex, workers: SearchWorkers) -> None:
        queries = queries_by_id(index, MANY, "video")
        workers.exact(queries, 4)  # makes the summaries, and shows that bounds are tried
        assert all(0 < report.scored < report.pairs for report in workers.reports)
        first, second = workers.actors

        def ask(actor: object, search: int) -> object:
            return ray.get(actor.exact.remote(queries, 4, search, workers.limits))  # type: ignore[attr-defined]

        alone = ask(second, 1000)
        ask(first, 1001)
        informed = ask(second, 1001)
        workers._searches = 1001
        assert informed.report.pairs == alone.report.pairs  # type: ignore[attr-defined]
        assert informed.report.scored < alone.report.scored  # type: ignore[attr-defined]

    @pytest.mark.parametrize("who", [0, 1, "limits"])
    def test_what_is_killed_in_the_middle_of_a_query_loses_nothing(
        self,
        index: SearchIndex,
        workers: SearchWorkers,
        who: int | str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        queries = queries_by_id(index, MANY, "audio")
        right = search(SearchIndex.open(index.folder), queries, 6)
        held = workers.actors[1 if who == 1 else 0]
        # Whoever is held up dies, and with it the one that knows the k-th distances.
        doomed = [process(held), *([process(workers.limits)] if who == "limits" else [])]
        begun, wait = tmp_path / "begun", ray.wait
        hold_up(held, begun)

        def kill_when_begun(*given: object, **options: object) -> object:
            end = time.monotonic() + 60
            while doomed:
                assert time.monotonic() < end, "no piece has begun"
                if begun.exists():
                    os.kill(doomed.pop(), signal.SIGKILL)
                time.sleep(0.01)
            return wait(*given, **options)

        before = list(doomed)
        monkeypatch.setattr(ray, "wait", kill_when_begun)
        found = search(index, queries, 6, workers=workers)
        assert not doomed
        assert found.hits == right.hits
        assert process(held) not in before


def test_damage_and_death_are_told_in_a_line(cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = SearchIndex.open(build(tmp_path / "index", 40, 20))
    queries = queries_by_id(index, ["clip-31"], "video")
    shard, number = index.at(index.number("clip-31"))
    path = index.folder / shard.shard.sequences.name
    content = bytearray(path.read_bytes())
    content[shard.shard.begins["audio"] + int(shard.lengths["audio"][: number + 1].sum() - 1) * 16] ^= 4
    path.write_bytes(content)
    with pytest.raises(DamagedIndexError) as alone:
        search(SearchIndex.open(index.folder), queries, 3)
    monkeypatch.setattr("scav_model.distributed.search.RESTARTS", 0)
    with SearchWorkers(index, 1) as workers:
        with pytest.raises(DamagedIndexError) as sharded:
            search(index, queries, 3, workers=workers)
        assert str(sharded.value) == str(alone.value)
        assert "the audio of clip 'clip-31' does not fit its checksum" in str(alone.value)
        os.kill(process(workers.actors[0]), signal.SIGKILL)
        with pytest.raises(ClusterError, match="a search worker died 1 times"):
            search(index, queries, 3, workers=workers)


def test_what_cannot_be(index: SearchIndex, cluster: str) -> None:
    queries = queries_by_id(index, ["clip-1"], "video")
    with pytest.raises(SearchIndexError, match="expected at least 1 worker, got 0"):
        SearchWorkers(index, 0)
    with pytest.raises(SearchIndexError, match="expected gpus_per_worker to be 0 or more, got -1"):
        SearchWorkers(index, 1, gpus_per_worker=-1)
    with pytest.raises(ClusterError, match="a cluster of at least 3 CPUs for 3 workers with 1 each, got one of 2"):
        SearchWorkers(index, 3)
    with pytest.raises(ClusterError, match=r"at least 0\.5 GPUs for 1 workers with 0\.5 each, got one of 0"):
        SearchWorkers(index, 1, gpus_per_worker=0.5)
    with pytest.raises(SearchIndexError, match="mode bounds searches in one process"):
        search(index, queries, mode="bounds", workers=object())  # type: ignore[arg-type]


def test_shards_are_divided_evenly() -> None:
    assert divide([10] * 6, 3) == [range(2), range(2, 4), range(4, 6)]
    assert divide([10, 10], 5) == [range(1), range(1, 2)]
    assert divide([100, 1, 1, 1], 2) == [range(1), range(1, 4)]
    assert divide([], 2) == []
    for workers in range(1, 9):
        parts = divide([3, 1, 4, 1, 5, 9, 2, 6], workers)
        assert [shard for part in parts for shard in part] == list(range(8))
        assert len(parts) <= workers


def test_what_is_told_twice_is_counted_once() -> None:
    limits, nothing = Limits(), torch.full((1, 2), torch.inf)
    assert limits.offer(1, 0, torch.tensor([[1.0, torch.inf]])).tolist() == [torch.inf]
    assert limits.offer(1, 0, torch.tensor([[1.0, torch.inf]])).tolist() == [torch.inf]
    assert limits.offer(1, 1, torch.tensor([[3.0, 4.0]])).tolist() == [3.0]
    # A part that is redone knows less than it did, which stays true.
    assert limits.offer(1, 1, nothing).tolist() == [3.0]
    assert limits.offer(2, 0, torch.tensor([[5.0, 6.0]])).tolist() == [6.0]
    # Of an earlier search.
    assert limits.offer(1, 1, torch.tensor([[0.0, 0.0]])).tolist() == [torch.inf]
    assert limits.offer(2, 0, nothing).tolist() == [6.0]
