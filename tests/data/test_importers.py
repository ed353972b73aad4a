"""Features that others made, in each format, come out as they went in."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from scav_model.data import FeatureStore
from scav_model.data.importers import ImportConfig, import_features
from scav_model.data.store import StoreError
from scav_model.data.store.verify import verify
from tests.data.import_files import reasons
from tests.encoders.checkpoints import Bomb

CONFIG = ImportConfig(video_rate_hz=5.0, audio_rate_hz=6.25)
# id, label, split, video steps, audio steps
CLIPS = [("a", "dog", "test", 10, 12), ("b_000030", "cat", None, 5, 6), ("c", None, None, 3, 3)]


def arrays(name: str, video: int, audio: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(ord(name[0]))
    return {"video": random.standard_normal((video, 4)).astype(np.float16), "audio": random.standard_normal((audio, 6))}


def write_npz(root: Path) -> Path:
    root.mkdir()
    for name, label, split, video, audio in CLIPS:
        known = {key: np.array(value) for key, value in (("label", label),) if value is not None}
        (root / (split or "")).mkdir(exist_ok=True)
        np.savez(root / (split or "") / f"{name}.npz", **arrays(name, video, audio), **known)
    return root


def write_hdf5(root: Path) -> Path:
    root.mkdir()
    for name, label, split, video, audio in CLIPS:
        with h5py.File(root / "features.h5", "a") as file:
            group = file.create_group(name)
            for key, value in arrays(name, video, audio).items():
                group[key] = value
            for key, text in (("label", label), ("split", split)):
                if text is not None:
                    group.attrs[key] = text
    return root


def write_tars(root: Path) -> Path:
    root.mkdir()
    for number, (name, label, split, video, audio) in enumerate(CLIPS):
        with tarfile.open(root / f"{number:05d}.tar", "w") as tar:
            members = {f"{name}.{key}.npy": dump(value) for key, value in arrays(name, video, audio).items()}
            about = {key: text for key, text in (("label", label), ("split", split)) if text is not None}
            if about:
                members[f"{name}.json"] = json.dumps(about).encode()
            for member, content in members.items():
                entry = tarfile.TarInfo(member)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return root


def dump(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


FORMATS: list[tuple[str, Callable[[Path], Path]]] = [
    ("npz", write_npz),
    ("hdf5", write_hdf5),
    ("webdataset", write_tars),
]


@pytest.mark.parametrize(("kind", "write"), FORMATS, ids=[kind for kind, _ in FORMATS])
def test_what_went_in_comes_out(tmp_path: Path, kind: str, write: Callable[[Path], Path]) -> None:
    assert import_features(kind, write(tmp_path / "source"), tmp_path / "store", CONFIG) == (3, 0)
    store = FeatureStore.open(tmp_path / "store")
    assert sorted(store.ids) == ["a", "b_000030", "c"]
    for name, label, split, video, audio in CLIPS:
        index = store.ids.index(name)
        assert (store.labels[index], store.splits[index]) == (label, split or "train")
        found = store.clip(index)
        for steps, expected in zip(found, arrays(name, video, audio).values(), strict=True):
            assert torch.equal(steps, torch.from_numpy(expected.astype(np.float32)))
    assert (store.video_rate_hz, store.audio_rate_hz) == (5.0, 6.25)
    assert store.header.video["encoder"] == "imported"
    assert verify(tmp_path / "store").problems == []
    assert import_features(kind, tmp_path / "source", tmp_path / "store", CONFIG) == (0, 0)


def test_other_names(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source" / "a.npz", clip=np.ones((3, 4)), beats=np.ones((4, 6)))
    config = ImportConfig(5.0, 6.25, split="val", video_key="clip", audio_key="beats", dtype="bfloat16")
    assert import_features("npz", tmp_path / "source", tmp_path / "store", config) == (1, 0)
    assert FeatureStore.open(tmp_path / "store").splits == ["val"]
    with pytest.raises(StoreError, match="no clip with arrays 'video' and 'audio'"):
        import_features("npz", tmp_path / "source", tmp_path / "other", CONFIG)


def test_bad_clips_are_listed_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_npz(tmp_path / "source")
    np.savez(root / "mute.npz", video=np.ones((3, 4)))
    np.savez(root / "flat.npz", video=np.ones(4), audio=np.ones((3, 6)))
    np.savez(root / "wide.npz", video=np.ones((3, 5)), audio=np.ones((3, 6)))
    np.savez(root / "none.npz", video=np.ones((0, 4)), audio=np.ones((3, 6)))
    np.savez(root / "nan.npz", video=np.full((3, 4), np.nan), audio=np.ones((3, 6)))
    np.savez(root / "code.npz", video=np.array([object()]), audio=np.ones((3, 6)))
    (root / "torn.npz").write_bytes(b"PK\x03\x04")
    assert import_features("npz", root, tmp_path / "store", CONFIG) == (3, 7)
    lines = [json.loads(line) for line in (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()]
    reasons = {line["id"]: line["reason"] for line in lines}
    assert reasons["mute"] == "no audio array"
    assert reasons["flat"] == "video: expected numbers of shape (steps, 4), got float64 (4,)"
    assert reasons["wide"].endswith("(3, 5)")
    assert reasons["none"].endswith("(0, 4)")
    assert reasons["nan"] == "video features are not finite in float32"
    assert reasons["code"] == "video: expected numbers, got objects (pickled, or of variable length)"
    assert reasons["torn"] == "BadZipFile: File is not a zip file"
    assert "skipped torn" in capsys.readouterr().out


def test_a_tar_of_python_objects_runs_nothing(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "source")
    fired = tmp_path / "fired"
    content = io.BytesIO()
    np.save(content, np.array([Bomb(fired)], dtype=object), allow_pickle=True)
    with tarfile.open(root / "evil.tar", "w") as tar:
        for member, value in (("evil.video.npy", content.getvalue()), ("evil.audio.npy", dump(np.ones((3, 6))))):
            entry = tarfile.TarInfo(member)
            entry.size = len(value)
            tar.addfile(entry, io.BytesIO(value))
    assert import_features("webdataset", root, tmp_path / "store", CONFIG) == (3, 1)
    assert "video: expected numbers, got objects" in (tmp_path / "store" / "skipped.jsonl").read_text()
    assert not fired.exists()


@pytest.mark.parametrize("overlap", [0.5, 0.0])
def test_synchformers_segments_become_steps_at_its_rates(tmp_path: Path, overlap: float) -> None:
    """A token is its time, so that joined steps must ascend evenly, each once."""
    (tmp_path / "source").mkdir()
    hop = 0.64 * (1 - overlap)
    segments = {}
    for side, tokens in (("video", 8), ("audio", 6)):
        times = hop * np.arange(14)[:, None] + 0.64 / tokens * np.arange(tokens)  # (14, tokens) seconds
        segments[side] = np.stack((times, np.ones_like(times)), -1).astype(np.float16)
    np.savez(tmp_path / "source" / "a.npz", **segments)
    config = ImportConfig(layout="synchformer", segment_overlap=overlap)
    assert import_features("npz", tmp_path / "source", tmp_path / "store", config) == (1, 0)
    store = FeatureStore.open(tmp_path / "store")
    assert (store.video_rate_hz, store.audio_rate_hz) == (12.5, 9.375)
    seconds = hop * 13 + 0.64
    for steps, rate in zip(store.clip(0), (12.5, 9.375), strict=True):
        assert len(steps) == round(seconds * rate)
        torch.testing.assert_close(steps[:, 0], torch.arange(len(steps)) / rate, rtol=1e-3, atol=1e-3)
        assert torch.equal(steps[:, 1], torch.ones(len(steps)))
    assert store.header.video["layout"] == "synchformer"
    assert store.header.video["segment_overlap"] == overlap
    assert verify(tmp_path / "store").problems == []


def test_tokens_of_one_time_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    video, audio = np.zeros((2, 8, 1)), np.zeros((2, 6, 1))
    video[1], audio[0] = 2.0, 4.0
    np.savez(tmp_path / "source" / "a.npz", video=video, audio=audio)
    import_features("npz", tmp_path / "source", tmp_path / "store", ImportConfig(layout="synchformer"))
    video_steps, audio_steps = FeatureStore.open(tmp_path / "store").clip(0)
    assert video_steps[:, 0].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert audio_steps[:, 0].tolist() == [4.0] * 3 + [2.0] * 3 + [0.0] * 3


def test_frames_of_cav_mae_sync_are_steps_or_mean_tokens(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    random = np.random.default_rng(0)
    tokens = random.standard_normal((16, 5, 4)).astype(np.float32)
    np.savez(tmp_path / "source" / "a.npz", video=tokens, audio=tokens.mean(1))
    config = ImportConfig(layout="cav-mae-sync")
    assert import_features("npz", tmp_path / "source", tmp_path / "store", config) == (1, 0)
    store = FeatureStore.open(tmp_path / "store")
    assert (store.video_rate_hz, store.audio_rate_hz, float(store.seconds[0])) == (1.6, 1.6, 10.0)
    torch.testing.assert_close(*store.clip(0))
    faster = ImportConfig(audio_rate_hz=2.0, layout="cav-mae-sync")
    import_features("npz", tmp_path / "source", tmp_path / "faster", faster)
    assert FeatureStore.open(tmp_path / "faster").audio_rate_hz == 2.0


def test_arrays_of_another_layout_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    np.savez(tmp_path / "source" / "good.npz", video=np.ones((2, 8, 3)), audio=np.ones((2, 6, 3)))
    np.savez(tmp_path / "source" / "one.npz", video=np.ones((2, 8, 3)), audio=np.ones((2, 3)))
    np.savez(tmp_path / "source" / "text.npz", video=np.array(["a"]), audio=np.ones((2, 6, 3)))
    np.savez(tmp_path / "source" / "none.npz", video=np.ones((0, 8, 3)), audio=np.ones((2, 6, 3)))
    assert import_features("npz", tmp_path / "source", tmp_path / "store", ImportConfig(layout="synchformer")) == (1, 3)
    found = reasons(tmp_path / "store")
    assert found["one"].startswith("audio: expected segments of shape (segments, 6, features), got (2, 3); import one")
    assert found["text"] == "video: expected numbers of shape (steps, 3), got <U1 (1,)"
    assert found["none"] == "video: expected numbers of shape (steps, 3), got float32 (0, 3)"
    thirds = ImportConfig(layout="synchformer", segment_overlap=0.4)
    with pytest.raises(StoreError, match=r"expected segment_overlap to be of whole tokens of 8, got 0\.4"):
        import_features("npz", tmp_path / "source", tmp_path / "other", thirds)
    with pytest.raises(ValueError, match="expected video_rate_hz and audio_rate_hz, which the files do not say"):
        import_features("npz", tmp_path / "source", tmp_path / "other", ImportConfig(video_rate_hz=5.0))
    with pytest.raises(ValueError, match="expected layout to be one of steps, synchformer, cav-mae-sync"):
        ImportConfig(layout="segments")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="segment_overlap to be at least 0 and below 1"):
        ImportConfig(layout="synchformer", segment_overlap=1.0)


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="npz, hdf5, webdataset, got 'zarr'"):
        import_features("zarr", tmp_path, tmp_path / "store", CONFIG)
    with pytest.raises(FileNotFoundError, match="nothing at"):
        import_features("npz", tmp_path / "none", tmp_path / "store", CONFIG)
    (tmp_path / "source").mkdir()
    with pytest.raises(StoreError, match=r"no \.tar files in"):
        import_features("webdataset", tmp_path / "source", tmp_path / "store", CONFIG)
    with pytest.raises(ValueError, match="video_rate_hz to be above 0"):
        ImportConfig(0.0, 6.25)
    assert not (tmp_path / "store").exists()
