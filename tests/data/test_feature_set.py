from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scav_model.data import FeatureSet, collate


def make_set() -> FeatureSet:
    generator = torch.Generator().manual_seed(0)
    lengths = [(3, 4), (1, 2), (5, 7)]
    return FeatureSet(
        ["a", "b", "c"],
        [torch.randn(n, 4, generator=generator) for n, _ in lengths],
        [torch.randn(m, 6, generator=generator) for _, m in lengths],
    )


def test_a_set_survives_the_disk(tmp_path: Path) -> None:
    before = make_set()
    before.save(tmp_path / "set.safetensors")
    after = FeatureSet.load(tmp_path / "set.safetensors")
    assert after.ids == before.ids
    for kept, given in zip((*after.video, *after.audio), (*before.video, *before.audio), strict=True):
        assert torch.equal(kept, given)
    assert [path.name for path in tmp_path.iterdir()] == ["set.safetensors"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.safetensors"
    make_set().save(path)
    content = path.read_bytes()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_set().save(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.safetensors"]


def test_a_set_of_nothing(tmp_path: Path) -> None:
    FeatureSet([], [], []).save(tmp_path / "none.safetensors")
    none = FeatureSet.load(tmp_path / "none.safetensors")
    assert len(none) == 0
    with pytest.raises(ValueError, match="an empty feature set has no video dimension"):
        _ = none.video_dim


def test_bad_sets_and_files(tmp_path: Path) -> None:
    steps = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="got 2 ids, 1 video"):
        FeatureSet(["a", "b"], [steps], [steps])
    with pytest.raises(ValueError, match="'a' more than once"):
        FeatureSet(["a", "a"], [steps] * 2, [steps] * 2)
    with pytest.raises(ValueError, match=r"audio of 'a': expected .* at least one step, got \(0, 4\)"):
        FeatureSet(["a"], [steps], [steps[:0]])
    with pytest.raises(ValueError, match=r"video of 'b': expected 4 features a step as in 'a', got 5"):
        FeatureSet(["a", "b"], [steps, torch.zeros(3, 5)], [steps, steps])
    with pytest.raises(ValueError, match="float64"):
        FeatureSet(["a"], [steps.double()], [steps])
    with pytest.raises(FileNotFoundError, match="no feature file"):
        FeatureSet.load(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(ValueError, match="is not a feature file"):
        FeatureSet.load(tmp_path / "bad.safetensors")


@pytest.mark.parametrize(
    ("ids", "lengths"), [("[", [3]), ('"a"', [3]), ("[1]", [3]), ('["a"]', [9]), ('["a"]', [-1]), ('["a"]', [1.5])]
)
def test_a_damaged_file_is_named(tmp_path: Path, ids: str, lengths: list[int]) -> None:
    steps, sizes = torch.zeros(3, 4), torch.tensor(lengths)
    tensors = {"video": steps, "audio": steps, "video_lengths": sizes, "audio_lengths": sizes}
    save_file(
        {name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "bad.safetensors", metadata={"ids": ids}
    )
    with pytest.raises(ValueError, match=r"bad\.safetensors is not a feature file") as error:
        FeatureSet.load(tmp_path / "bad.safetensors")
    assert "\n" not in str(error.value)


def test_a_batch_is_padded_with_zeros() -> None:
    features = make_set()
    batch = collate(features, [2, 0])
    assert batch.ids == ["c", "a"]
    assert batch.video.shape == (2, 5, 4)
    assert batch.audio.shape == (2, 7, 6)
    assert batch.video_lengths.tolist() == [5, 3]
    assert batch.audio_lengths.tolist() == [7, 4]
    assert batch.video_lengths.dtype == torch.int64
    assert torch.equal(batch.video[0], features.video[2])
    assert torch.equal(batch.audio[1, :4], features.audio[0])
    assert not batch.video[1, 3:].any()
    assert not batch.audio[1, 4:].any()
    with pytest.raises(ValueError, match="at least one index"):
        collate(features, [])
