"""Killed or interrupted at any moment, a store opens and is gone on with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from store_clips import clips, contents, fill, header

from scav_model.data import FeatureStore
from scav_model.data.store import Skipped, StoreWriter

pytestmark = pytest.mark.slow

KILLED = """
import os, signal, sys, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from store_clips import clips, header
from scav_model.data.store import Skipped, StoreWriter

def write(folder, survived):
    calls = 0
    def counted(real):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls > survived:
                # A file that is being appended to may be cut anywhere.
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)
        return call
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    with StoreWriter(folder, header(), shard_bytes=150) as writer:
        for number, clip in enumerate(clips()):
            writer.add(*clip)
            if number == 1:
                writer.skip(Skipped("bad", "bad.mp4", "no audio stream"))
        writer.finish()
    os._exit(0)

prepared = clips()  # before any fork, so that no child needs PyTorch's threads
warnings.simplefilter("ignore")
for survived in range(200):
    child = os.fork()
    if child == 0:
        write(Path(sys.argv[1]) / str(survived), survived)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        print(survived)
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_any_moment_it_opens_and_goes_on_to_the_same_store(tmp_path: Path) -> None:
    """Killed before the first, the second, … of all the calls that bring something to the disk."""
    program = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    moments = int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert moments > 25
    whole = contents(tmp_path / str(moments))
    opened = set()
    for moment in range(moments):
        folder = tmp_path / str(moment)
        # What a torn append leaves.
        for name in ("manifest.jsonl", "skipped.jsonl"):
            if (folder / "header.json").exists():
                with (folder / name).open("ab") as file:
                    file.write(b'{"id": "cli')
        if (folder / "header.json").exists():
            store = FeatureStore.open(folder)
            opened.add(len(store))
            for index, (_, video, audio) in enumerate(clips()[: len(store)]):
                assert torch.equal(store.clip(index)[0], video)
                assert torch.equal(store.clip(index)[1], audio)
        with StoreWriter(folder, header(), shard_bytes=150) as writer:
            for number, (entry, video, audio) in enumerate(clips()):
                if entry.id not in writer.done:
                    writer.add(entry, video, audio)
                if number == 1 and "bad" not in writer.skipped:
                    writer.skip(Skipped("bad", "bad.mp4", "no audio stream"))
            writer.finish()
        assert contents(folder) == whole, moment
    assert opened >= {0, 5}
    assert len(opened) >= 4


def test_ctrl_c_at_any_moment_keeps_what_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the middle of writing, the store is written anew on the way out."""
    real = os.fsync
    moment = calls = 0

    def interrupted(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == moment:
            raise KeyboardInterrupt
        real(descriptor)

    monkeypatch.setattr(os, "fsync", interrupted)
    for moment in range(3, 100):
        calls = 0
        folder = tmp_path / str(moment)
        taken: list[str] = []
        try:
            with StoreWriter(folder, header(), shard_bytes=150) as writer:
                for clip in clips():
                    taken.append(clip[0].id)
                    writer.add(*clip)
                    writer.skip(Skipped(f"bad-{clip[0].id}", "bad.mp4", "no audio stream"))
        except KeyboardInterrupt:
            pass
        if calls < moment:
            break
        store = FeatureStore.open(folder)
        assert store.ids == taken
        for index, (_, video, audio) in enumerate(clips()[: len(taken)]):
            assert torch.equal(store.clip(index)[0], video)
            assert torch.equal(store.clip(index)[1], audio)
        assert not list(folder.glob(".*.partial"))
        assert fill(folder, 150).ids == [clip[0].id for clip in clips()]
    assert moment > 15
