"""Killing writers and damaging files: what an index must survive."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

import scav_model.index.bounds as bounds
import scav_model.index.parts as parts
from scav_model.index import IndexWriter, SearchIndex, SearchIndexError, queries_by_id, rerank, search
from tests.index.worlds import clip, header

ADDED = 6
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.index.survival"])


# --- kills: what version v of the index holds is known beforehand


def change(version: int, live: list[int]) -> tuple[str, list[int]]:
    """The steps from one version of an index to the next, and the clips that each must have."""
    if version % 7 == 4 and live:
        return "delete", live[:: len(live) // 3 + 1]
    if version % 11 == 8 and live:
        return "compact", []
    return "add", list(range(version * ADDED, (version + 1) * ADDED))


def holds(version: int) -> list[int]:
    """Clips of a version, in order."""
    live: list[int] = []
    for before in range(version):
        action, numbers = change(before, live)
        live = [number for number in live if number not in numbers] if action == "delete" else live + numbers
    return live


def write_for_ever(folder: Path, ready: Connection) -> None:
    torch.set_num_threads(1)
    ready.send("ready")
    # A shard of its own for every four clips or so: two shards to a change, and several to a compaction.
    with IndexWriter(folder, shard_bytes=1 << 10) as writer:
        writer.shard_bytes = 1 << 30
        while True:
            action, numbers = change(writer.header.version, holds(writer.header.version))
            if action == "delete":
                writer.delete([f"clip-{number}" for number in numbers])
            elif action == "compact":
                writer.shard_bytes = 1 << 10
                writer.compact()
                writer.shard_bytes = 1 << 30
            else:
                for number in numbers:
                    writer.add(clip(number))
                writer.commit()
            ready.send("changed")


def check_version(folder: Path) -> int:
    """The version of an index that opens, is whole, holds what it should and answers rightly."""
    index = SearchIndex.open(folder)
    expected = holds(index.header.version)
    found = [index.id(number) for number in np.flatnonzero(index.live)]
    assert sorted(found) == sorted(f"clip-{number}" for number in expected), (index.header.version, found, expected)
    assert [problem for found in index.problems() for problem in found] == []
    if expected:
        chosen = expected[:: max(1, len(expected) // 3)]
        queries = queries_by_id(index, [f"clip-{number}" for number in chosen], "video")
        for mode in ("exact", "hybrid", "mean"):
            answer = search(index, queries, 1, mode=mode, candidates=20)
            assert [hits[0].id for hits in answer.hits] == queries.names, mode
        for row, number in enumerate(chosen):
            assert torch.equal(queries.steps(row), clip(number).steps["video"].float())
    return index.header.version


def kill(times: int, seed: int = 0) -> Counter[str]:
    """Kill a writer at random moments of its changes, and look at what it left after each.

    In memory where there is a folder for that: the system keeps what a killed process wrote in either place, and a disk
    would make most moments fall into the waiting for it.
    """
    counted: Counter[str] = Counter()
    generator = random.Random(seed)
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as parent:
        folder = Path(parent) / "index"
        before = 0
        for _ in range(times):
            if before > 100 or not folder.exists():
                # Small again, so that checking it stays quick.
                shutil.rmtree(folder, ignore_errors=True)
                IndexWriter.create(folder, header()).close()
                before = 0
            kill_once(folder, generator)
            listed = {file.name for file in SearchIndex.open(folder).header.files()} | {"index.json", ".lock"}
            version = check_version(folder)
            counted["kills"] += 1
            counted["in the middle of a change"] += any(path.name not in listed for path in folder.iterdir())
            counted["changes"] += version - before
            before = version
    return counted


def kill_once(folder: Path, generator: random.Random) -> None:
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=write_for_ever, args=(folder, there))
    process.start()
    # So that a writer that fails is an EOFError here.
    there.close()
    here.recv()
    for _ in range(generator.randint(1, 4)):
        started = time.perf_counter()
        here.recv()
    # However slow the machine is, a change takes about as long as the one before it.
    time.sleep(generator.uniform(0, 1.5) * (time.perf_counter() - started))
    process.kill()
    process.join()
    assert process.exitcode == -9, "the writer ended before it was killed"
    process.close()


# --- damage: every answer is the right one, or an error that names the file


def answers(index: SearchIndex) -> dict[str, object]:
    """Questions to a damaged index, in an order in which only the question itself checks what it reads."""
    queries = queries_by_id(index, ["clip-3", "clip-17"], "audio")
    found: dict[str, object] = {}
    for mode in ("mean", "hybrid", "exact"):
        result = search(index, queries, 5, mode=mode, candidates=8)
        found[mode] = [[(hit.id, hit.distance, hit.media) for hit in hits] for hits in result.hits]
    found["rerank"] = rerank(index, queries, [["clip-1", "clip-2", "clip-9"], ["clip-30", "clip-17"]])
    return found


def damage(path: Path, generator: random.Random) -> str:
    """Do something to a file; what."""
    content = bytearray(path.read_bytes())
    ways = ["bit", "bit", "bit", "byte", "bytes", "zeros", "cut", "longer", "moved", "empty", "gone"]
    way = generator.choice(ways) if content else "longer"
    at = generator.randrange(max(1, len(content)))
    length = generator.randint(1, 64)
    if way == "bit":
        content[at] ^= 1 << generator.randrange(8)
    elif way == "byte":
        content[at] = (content[at] + generator.randint(1, 255)) % 256
    elif way == "bytes":
        content[at : at + length] = generator.randbytes(len(content[at : at + length]))
    elif way == "zeros":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif way == "cut":
        del content[at:]
    elif way == "longer":
        content += generator.randbytes(length)
    elif way == "moved":
        content = content[at:] + content[:at]
    elif way == "empty":
        content.clear()
    if way == "gone":
        path.unlink()
    else:
        path.write_bytes(content)
    return way


def make_damageable(folder: Path) -> None:
    with IndexWriter.create(folder, header()) as writer:
        for number in range(40):
            writer.add(clip(number))
            if number % 14 == 13:
                writer.commit()
    with IndexWriter(folder) as writer:
        writer.delete(["clip-5", "clip-39"])


def damaged_answers(sound: Path, seeds: range, out: Connection) -> None:
    """Send what became of the index of each seed: the name of the file, the way, and the outcome."""
    torch.set_num_threads(1)
    # So that exact search takes both of its ways through so few clips.
    parts.EVEN, bounds.WARM = 3, 0
    right = answers(SearchIndex.open(sound))
    names = sorted(path.name for path in sound.iterdir() if path.name != ".lock")
    for seed in seeds:
        generator = random.Random(seed)
        name = generator.choice(names)
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "index"
            shutil.copytree(sound, folder)
            before = (folder / name).read_bytes()
            way = damage(folder / name, generator)
            changed = not (folder / name).exists() or (folder / name).read_bytes() != before
            out.send((seed, name, way, outcome(folder, name, right, changed)))
    out.send(None)


def outcome(folder: Path, name: str, right: dict[str, object], changed: bool) -> str:
    try:
        found = answers(SearchIndex.open(folder))
    except (SearchIndexError, FileNotFoundError) as error:
        return "named" if name in str(error) and changed else f"WRONG: {error}"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {error}"
    if found != right:
        return "WRONG: another answer"
    if not changed:
        return "not changed"
    # What no question touched is found by reading all of it.
    problems = [problem for found in SearchIndex.open(folder).problems() for problem in found]
    if any(name in problem for problem in problems):
        return "right, then named by verify"
    return "right, for only blanks changed" if name == "index.json" else "WRONG: never found"


def mutate(times: int, seed: int = 0) -> Iterator[tuple[int, str, str, str]]:
    """Damage an index in many ways, one at a time; what became of each."""
    with tempfile.TemporaryDirectory() as parent:
        sound = Path(parent) / "sound"
        make_damageable(sound)
        here, there = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=damaged_answers, args=(sound, range(seed, seed + times), there))
        process.start()
        there.close()
        try:
            # A crash of the process ends the pipe early: an EOFError here.
            while (result := here.recv()) is not None:
                yield result
        finally:
            process.join()
            process.close()
