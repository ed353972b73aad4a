"""Each thing that can be wrong with a store is found, and a sound store has nothing wrong."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from scav_model.data.store import Entry, StoreWriter
from scav_model.data.store.header import StoreHeader
from scav_model.data.store.verify import Report, verify
from scav_model.data.store.writer import SHARD_BYTES
from scav_model.encoders.clip import ClipEncoder
from tests.encoders.checkpoints import clip_folder


def make(folder: Path, video: list[Tensor], seconds: float = 2.0, **about: object) -> Path:
    """A store of clips of 10 video steps and 12 audio steps in two seconds."""
    dim = video[0].shape[1]
    generator = torch.Generator().manual_seed(1)
    header = StoreHeader(
        {"dim": dim, "rate_hz": 5.0, "encoder": "clip", "model": "m", **about},
        {"dim": 3, "rate_hz": 6.25, "encoder": "log_mel"},
    )
    with StoreWriter(folder, header, shard_bytes=SHARD_BYTES) as writer:
        for index, steps in enumerate(video):
            entry = Entry(f"clip-{index}", "train", seconds)
            assert writer.add(entry, steps, torch.randn(12, 3, generator=generator)) is None
        writer.finish()
    return folder


def good(count: int = 8) -> list[Tensor]:
    return list(torch.randn(count, 10, 4, generator=torch.Generator().manual_seed(0)))


def test_a_sound_store(tmp_path: Path) -> None:
    report = verify(make(tmp_path / "store", good()))
    assert report == Report(clips=8)


def test_hashes_sizes_and_missing_shards(tmp_path: Path) -> None:
    folder = make(tmp_path / "store", good())
    shard = folder / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    assert "shard-00000.safetensors was changed: its SHA-256 is" in verify(folder).problems[0]
    shard.write_bytes(content[:-4])
    assert f"shard-00000.safetensors has {len(content) - 4} bytes, not {len(content)}" in verify(folder).problems
    shard.unlink()
    assert "shard-00000.safetensors is missing" in verify(folder).problems


def test_nan_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = good()
    steps[3][2, 1] = torch.nan
    # The writer refuses it, so it must come from elsewhere.
    monkeypatch.setattr(Tensor, "isfinite", lambda self: torch.ones(1, dtype=torch.bool))
    folder = make(tmp_path / "store", steps)
    monkeypatch.undo()
    assert verify(folder).problems == ["video: NaN or infinite in 1 clips: clip-3"]


def test_features_and_clips_that_never_change(tmp_path: Path) -> None:
    steps = good()
    for clip in steps:
        clip[:, 2] = 0.5
    steps[5][:] = steps[5][0]
    report = verify(make(tmp_path / "store", steps))
    assert report.problems == []
    assert report.warnings == [
        "video: 1 of 4 features never change",
        "video: every step is the same in 1 clips: clip-5",
    ]


@pytest.mark.parametrize(("seconds", "sound"), [(2.0, True), (2.1, True), (1.7, True), (2.5, False), (1.0, False)])
def test_lengths_against_duration(tmp_path: Path, seconds: float, sound: bool) -> None:
    problems = verify(make(tmp_path / "store", good(7), seconds)).problems
    assert (problems == []) is sound
    if not sound:
        assert problems[0].startswith("video: lengths that do not fit duration × 5 Hz in 7 clips: clip-0 has 10 steps")
        assert problems[0].endswith("and 2 more")


def test_an_unfinished_store(tmp_path: Path) -> None:
    folder = make(tmp_path / "store", good())
    header = StoreHeader.read(folder)
    header.finished = False
    header.write(folder)
    assert verify(folder).warnings == ["unfinished: extraction has not tried every clip; repeat its command to go on"]


def test_weights_that_look_untrained_by_their_norms(tmp_path: Path) -> None:
    (warning,) = verify(make(tmp_path / "store", good(), untrained=True)).warnings
    assert "the weights of clip m look untrained: every normalization layer has gain one and offset zero" in warning


def test_clips_that_hardly_differ(tmp_path: Path) -> None:
    alike = [100 + steps for steps in good()]
    (warning,) = verify(make(tmp_path / "store", alike)).warnings
    assert "the weights look untrained, or the clips are all alike" in warning
    assert verify(make(tmp_path / "fine", [1 + steps for steps in good()])).warnings == []


def test_a_random_tower_is_told_by_what_it_makes_of_pictures(tmp_path: Path) -> None:
    """Even if its norms were touched: pictures as unlike as black, white and noise come out nearly alike."""
    encoder = ClipEncoder(str(clip_folder(tmp_path / "model", touched=False)))
    pictures = torch.Generator().manual_seed(0)
    clips = [
        (torch.randint(0, 256, (10, 28, 28, 3), generator=pictures) // 8 + 100).to(torch.uint8).numpy()
        for _ in range(6)
    ]
    warnings = verify(make(tmp_path / "store", encoder.encode(clips))).warnings
    assert any("clips differ by" in warning for warning in warnings)
