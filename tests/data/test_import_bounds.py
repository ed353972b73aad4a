"""Importers refuse, before they read: sizes, links to other files, names, text of other types."""

import gzip
import io
import os
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from scav_model.data import FeatureStore
from scav_model.data.importers import ImportConfig, import_features
from scav_model.data.store import StoreError
from tests.data.import_files import CONFIG, VIDEO, dump, good, pack, reasons, save_npz

AUDIO = np.ones((3, 6), np.float32)
SMALL = replace(CONFIG, max_clip_bytes=4096)


def claim(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """An npy header alone."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


def test_npz_is_refused_by_its_headers(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_npz(source / "good.npz")
    for name, content in {
        "claims": claim((10**6, 10**6)),
        "overflows": claim((10**30, 4)),
        "negative": claim((-3, 4)),
        "short": dump(VIDEO)[:-8],
        "long": dump(VIDEO) + b"\0" * 8,
        "garbled": b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n",
        "version": b"\x93NUMPY\x03\x00" + dump(VIDEO)[8:],
        "fields": claim((3,), "V8"),
    }.items():
        with zipfile.ZipFile(source / f"{name}.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("video.npy", content)
            archive.writestr("audio.npy", dump(AUDIO))
    with zipfile.ZipFile(source / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.npy", dump(np.zeros((1 << 20, 4), np.float32)))
        archive.writestr("audio.npy", dump(AUDIO))
    tracemalloc.start()
    assert import_features("npz", source, tmp_path / "store", SMALL) == (1, 9)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    found = reasons(tmp_path / "store")
    assert "4000000000072 bytes (video (1000000, 1000000) and audio (3, 6)) are more than" in found["claims"]
    assert "max_clip_bytes = 4096" in found["bomb"]
    assert "max_clip_bytes" in found["overflows"]
    assert "sizes of 0 or more" in found["negative"]
    assert "as its header says" in found["short"]
    assert "as its header says" in found["long"]
    assert "not an npy array" in found["garbled"]
    assert "npy format's version (3, 0)" in found["version"]
    assert FeatureStore.open(tmp_path / "store").ids == ["good"]


def test_a_long_label_is_not_read(tmp_path: Path) -> None:
    save_npz(tmp_path / "source" / "a.npz")
    with zipfile.ZipFile(tmp_path / "source" / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.npy", dump(VIDEO))
        archive.writestr("audio.npy", dump(AUDIO))
        archive.writestr("label.npy", claim((), "<U300000000"))
    assert import_features("npz", tmp_path / "source", tmp_path / "store", CONFIG) == (1, 1)
    assert reasons(tmp_path / "store")["b"] == "label: expected a short text, got 1200000000 bytes"


def test_fortran_order_and_other_dtypes_keep_their_numbers(tmp_path: Path) -> None:
    video = np.arange(12).reshape(3, 4)
    save_npz(tmp_path / "source" / "a.npz", video=np.asfortranarray(video), audio=AUDIO.astype(">f8"))
    assert import_features("npz", tmp_path / "source" / "a.npz", tmp_path / "store", CONFIG) == (1, 0)
    steps, sound = FeatureStore.open(tmp_path / "store").clip(0)
    assert steps.tolist() == video.tolist()
    assert sound.tolist() == AUDIO.tolist()


def test_hdf5_is_refused_by_its_shapes_and_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["clip/video"], other["clip/audio"] = VIDEO, AUDIO
    (tmp_path / "raw.bin").write_bytes(VIDEO.tobytes())
    with h5py.File(source / "features.h5", "w") as file:

        def clip(name: str, **arrays: object) -> h5py.Group:
            group = file.create_group(name)
            for key, value in {"video": VIDEO, "audio": AUDIO, **arrays}.items():
                if value is not None:
                    group[key] = value
            return group

        clip("test/good")
        clip("large", video=None).create_dataset("video", (1 << 40, 4), "f4", chunks=(1024, 4), compression="gzip")
        clip("chunk", video=None).create_dataset("video", (3, 4), "f4", chunks=(1 << 12, 4), maxshape=(None, 4))
        clip("raw", video=None).create_dataset(
            "video", VIDEO.shape, "f4", external=[(str(tmp_path / "raw.bin"), 0, VIDEO.nbytes)]
        )
        layout = h5py.VirtualLayout(VIDEO.shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "clip/video", VIDEO.shape)
        clip("virtual", video=None).create_virtual_dataset("video", layout)
        clip("linked", video=None)["video"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/clip/video")
        file["mount"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
        clip("detour", video=None)["video"] = h5py.SoftLink("/mount/clip/video")
        clip("soft", video=None)["video"] = h5py.SoftLink("/test/good/video")
        file["alias"] = h5py.SoftLink("/soft")
        file["nowhere"] = h5py.SoftLink("/gone")
        file["round"], file["about"] = h5py.SoftLink("/about"), h5py.SoftLink("/round")
        file["test/loop"] = file["/"]
        clip("objects", video=None).create_dataset("video", (3, 4), h5py.vlen_dtype(np.float32))
        plugin = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plugin.set_chunk((3, 4))
        plugin.set_filter(305, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((3, 4))
        h5py.h5d.create(clip("plugin", video=None).id, b"video", h5py.h5t.NATIVE_FLOAT, space, plugin)
    assert import_features("hdf5", source, tmp_path / "store", SMALL) == (3, 12)
    store = FeatureStore.open(tmp_path / "store")
    assert sorted(zip(store.ids, store.splits, strict=True)) == [
        ("alias", "train"),
        ("good", "test"),
        ("soft", "train"),
    ]
    found = reasons(tmp_path / "store")
    assert "more than max_clip_bytes = 4096" in found["large"]
    assert "a chunk of (4096, 4) is more than max_clip_bytes" in found["chunk"]
    for name in ("raw", "virtual"):
        assert "video lies in other files (virtual or external), which are not opened" in found[name]
    for name, link in (("linked", "video"), ("mount", "mount"), ("detour", "mount")):
        assert found[name].startswith(f"{link} is a link to another file, which is not opened")
    assert found["nowhere"] == "a soft link to nothing"
    assert found["round"] == found["about"] == "soft links without end"
    assert "got objects" in found["objects"]
    assert "plugin filter 305" in found["plugin"]


def test_hdf5_without_groups_is_one_clip(tmp_path: Path) -> None:
    (tmp_path / "source" / "test").mkdir(parents=True)
    with h5py.File(tmp_path / "source" / "test" / "a.h5", "w") as file:
        file["video"], file["audio"] = VIDEO, AUDIO
    (tmp_path / "source" / "torn.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    assert import_features("hdf5", tmp_path / "source", tmp_path / "store", CONFIG) == (1, 1)
    store = FeatureStore.open(tmp_path / "store")
    assert (store.ids, store.splits) == (["a"], ["test"])
    assert "torn.h5" in reasons(tmp_path / "store")


def test_tars_are_refused_by_their_headers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    link = tarfile.TarInfo("linked.video.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pack(
        source / "a.tar",
        {
            **good("b"),
            "large.video.npy": bytes(3 << 20),
            "large.audio.npy": dump(AUDIO),
            "claims.video.npy": claim((10**6, 10**6)),
            "claims.audio.npy": dump(AUDIO),
            "link": link,
            "linked.audio.npy": dump(AUDIO),
            "twice.video.npy": dump(VIDEO),
            "twice.VIDEO.npy": dump(VIDEO),
            "twice.audio.npy": dump(AUDIO),
            "../../up.video.npy": dump(VIDEO),
            "../../up.audio.npy": dump(AUDIO),
            "/test/absolute.video.npy": dump(VIDEO),
            "/test/absolute.audio.npy": dump(AUDIO),
            "note.txt": b"text",
            "._c.video.npy": b"resource fork",
        },
    )
    assert import_features("webdataset", source, tmp_path / "store", SMALL) == (3, 4)
    store = FeatureStore.open(tmp_path / "store")
    assert list(zip(store.ids, store.splits, strict=True)) == [("b", "train"), ("up", "train"), ("absolute", "test")]
    found = reasons(tmp_path / "store")
    assert "more than max_clip_bytes = 4096" in found["large"]
    assert "more than max_clip_bytes = 4096" in found["claims"]
    assert "video.npy is a link" in found["linked"]
    assert "video.npy comes twice" in found["twice"]
    assert "passed over: 1 hidden, 1 .txt" in capsys.readouterr().out


@pytest.mark.parametrize("size", [1 << 62, -512, -1])
def test_a_header_may_claim_any_size(tmp_path: Path, size: int) -> None:
    entry = tarfile.TarInfo("x")
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        entry.type, entry.size = kind, size
        evil = entry.tobuf(tarfile.GNU_FORMAT)
        source = tmp_path / f"source{ord(kind[0:1])}"
        source.mkdir()
        pack(source / "a.tar", good("a"))
        (source / "b.tar").write_bytes(evil + bytes(1024))
        store = tmp_path / f"store{ord(kind[0:1])}"
        assert import_features("webdataset", source, store, CONFIG) == (1, 1)
        reason = reasons(store)["b.tar"]
        assert "cut off or damaged" in reason
        # Sizes are rounded up to whole blocks: -1 to none.
        assert kind == tarfile.REGTYPE or size == -1 or f"header claims {-(-size // 512) * 512} bytes" in reason


def test_a_cut_off_archive_says_where(tmp_path: Path) -> None:
    pack(tmp_path / "whole.tar", {**good("a"), **good("b"), "b.json": b'{"split": "test"}'})
    content = (tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        starts = {member.name: member.offset for member in tar}
        ends = {member.name: member.offset_data + member.size for member in tar}
    cuts = {
        "member": ends["b.audio.npy"] - 10,
        "header": starts["b.audio.npy"] + 100,
        "boundary": starts["b.json"],
    }
    for name, cut in cuts.items():
        source = tmp_path / name
        source.mkdir()
        (source / "x.tar").write_bytes(content[:cut])
        assert import_features("webdataset", source, tmp_path / f"{name}.store", CONFIG) == (1, 1)
        # The cut may have taken b's split, so b is not there rather than in the wrong one.
        assert FeatureStore.open(tmp_path / f"{name}.store").ids == ["a"]
        assert reasons(tmp_path / f"{name}.store")["x.tar"].startswith("the archive is cut off or damaged, from b on: ")
        # With the whole archive, the same call takes the rest.
        (source / "x.tar").write_bytes(content)
        assert import_features("webdataset", source, tmp_path / f"{name}.store", CONFIG) == (1, 1)
        assert FeatureStore.open(tmp_path / f"{name}.store").splits == ["train", "test"]


def test_archives_put_one_after_the_other(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pack(source / "a.tar", good("a"))
    pack(source / "b.tar", good("b"))
    (source / "a.tar").write_bytes((source / "a.tar").read_bytes() + (source / "b.tar").read_bytes())
    assert import_features("webdataset", source, tmp_path / "store", CONFIG) == (2, 1)
    assert "goes on after its end mark" in reasons(tmp_path / "store")["a.tar"]


def test_compressed_archives_and_folders_of_splits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, clip in (("test/0.tar", "a"), ("train/0.tar", "b"), ("val.tar", "c"), ("1.tar", "./test/d")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        pack(source / name, good(clip))
    plain = (source / "test/0.tar").read_bytes()
    (source / "test/0.tar").unlink()
    (source / "test/0.tar.gz").write_bytes(gzip.compress(plain))
    (source / "test/cut.tgz").write_bytes(gzip.compress(plain)[:200])
    assert import_features("webdataset", source, tmp_path / "store", CONFIG) == (4, 1)
    assert "EOFError" in reasons(tmp_path / "store")["test/cut.tgz"]
    store = FeatureStore.open(tmp_path / "store")
    assert dict(zip(store.ids, store.splits, strict=True)) == {"a": "test", "b": "train", "c": "val", "d": "test"}


def test_keys_with_dots(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", {**good("a.b"), **good("a.c"), **good("x/v1.0"), **good("-t.mp4")})
    assert import_features("webdataset", tmp_path / "a.tar", tmp_path / "store", CONFIG) == (4, 0)
    assert FeatureStore.open(tmp_path / "store").ids == ["a.b", "a.c", "x/v1.0", "-t.mp4"]


def test_an_id_that_comes_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pack(source / "0.tar", {**good("a"), **good("b")})
    pack(source / "1.tar", good("./a"))
    assert import_features("webdataset", source, tmp_path / "store", CONFIG) == (2, 1)
    assert f"skipped a ({source / '1.tar'}): the id is already used, in {source / '0.tar'}" in capsys.readouterr().out
    assert import_features("webdataset", source, tmp_path / "store", CONFIG) == (0, 1)
    for split in ("train", "test"):
        save_npz(tmp_path / "npz" / split / "a.npz")
    assert import_features("npz", tmp_path / "npz", tmp_path / "npz.store", CONFIG) == (1, 1)


TEXTS: list[tuple[object, str | None]] = [
    ("cat", "cat"),
    (b"caf\xc3\xa9", "café"),
    (np.array("cat"), "cat"),
    (np.array(b"cat"), "cat"),
    (np.array(["dog"]), "dog"),
    (np.array([[b"dog"]]), "dog"),
    (np.int64(7), "7"),
    (np.array(""), None),
]
BAD_TEXTS = [b"caf\xe9", np.array(["a", "b"]), np.array(1.5), np.array(np.nan), np.array(True), np.zeros(0)]


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_labels_are_text_of_any_kind(tmp_path: Path, kind: str) -> None:
    (tmp_path / "source").mkdir()
    values = [*(value for value, _ in TEXTS), *BAD_TEXTS]
    for index, value in enumerate(values):
        if kind == "npz":
            save_npz(tmp_path / "source" / f"{index:02d}.npz", label=np.array(value))
            continue
        with h5py.File(tmp_path / "source" / "a.h5", "a") as file:
            group = file.create_group(f"{index:02d}")
            group["video"], group["audio"] = VIDEO, AUDIO
            # HDF5 has no type for NumPy's own text.
            text = isinstance(value, np.ndarray) and value.dtype.kind == "U"
            group.attrs["label"] = value.astype(object) if text else value  # type: ignore[attr-defined]
    expected = len(TEXTS), len(BAD_TEXTS)
    assert import_features(kind, tmp_path / "source", tmp_path / "store", CONFIG) == expected
    assert FeatureStore.open(tmp_path / "store").labels == [label for _, label in TEXTS]
    assert all(
        reason.startswith(("expected 'label' to be ", "label: expected UTF-8"))
        for reason in reasons(tmp_path / "store").values()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"label": NaN}', "expected 'label' to be a string, got nan"),
        (b'{"label": ["dog"]}', "expected 'label' to be a string, got ['dog']"),
        (b'{"label": {"a": 1}}', "expected 'label' to be a string"),
        (b'{"label": true}', "expected 'label' to be a string, got True"),
        (b'{"split": 1.5}', "expected 'split' to be a non-empty string, got 1.5"),
        (b'{"split": "a\\tb"}', "expected 'split' to be of printable characters"),
        (b'{"label": "\\ud800"}', "expected 'label' to be text that UTF-8 can hold"),
        (b'{"label": "a", "label": "b"}', "the key 'label' comes twice"),
        (b'["dog"]', "json: expected an object with label and split, got list"),
        (b'{"label": "dog"', "not valid JSON: Expecting ',' delimiter at column 16"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"label": "\xff"}', "UnicodeDecodeError"),
        (b" " * (2 << 20), "json: expected at most 1048576 bytes, got 2097152"),
        (b"", "not valid JSON"),
    ],
)
def test_bad_json_costs_its_clip(tmp_path: Path, content: bytes, message: str) -> None:
    pack(tmp_path / "a.tar", {**good("a"), "a.json": content, **good("b"), "b.json": b'{"label": 3, "more": NaN}'})
    assert import_features("webdataset", tmp_path / "a.tar", tmp_path / "store", CONFIG) == (1, 1)
    assert message in reasons(tmp_path / "store")["a"]
    assert FeatureStore.open(tmp_path / "store").labels == ["3"]


def test_names_that_do_not_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = [b"caf\xe9", b"a\tb", b"new\nline", b"n" * 200, "犬\u3000".encode()]
    for name in names:
        save_npz(Path(os.fsdecode(os.fsencode(source) + b"/" + name + b".npz")))
    bad = Path(os.fsdecode(os.fsencode(source) + b"/\xc3\xa9\xff.npz"))
    bad.write_bytes(b"no archive")
    # A terminal that knows ASCII alone.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert import_features("npz", source, tmp_path / "store", CONFIG) == (5, 1)
    assert set(FeatureStore.open(tmp_path / "store").ids) == {
        r"caf\xe9",
        r"a\tb",
        r"new\nline",
        "n" * 200,
        r"犬\u3000",
    }
    assert list(reasons(tmp_path / "store")) == [r"é\xff"]
    pack(tmp_path / "a.tar", {**good("caf\udce9"), **good("x" * 300), **good("a\tb")})
    assert import_features("webdataset", tmp_path / "a.tar", tmp_path / "tar.store", CONFIG) == (3, 0)
    assert FeatureStore.open(tmp_path / "tar.store").ids == [r"caf\xe9", "x" * 300, r"a\tb"]


def test_one_odd_clip_does_not_decide_the_size_of_all(tmp_path: Path) -> None:
    save_npz(tmp_path / "source" / "a.npz", video=np.ones((3, 9)))
    for name in "bcd":
        save_npz(tmp_path / "source" / f"{name}.npz")
    save_npz(tmp_path / "source" / "e.npz", video=np.full((3, 4), 1e300))
    assert import_features("npz", tmp_path / "source", tmp_path / "store", CONFIG) == (3, 2)
    assert reasons(tmp_path / "store") == {
        "a": "video: expected numbers of shape (steps, 4), got float64 (3, 9)",
        "e": "video features are not finite in float32",
    }


def test_nothing_usable_says_why(tmp_path: Path) -> None:
    save_npz(tmp_path / "a.npz", video=np.float32(1))
    with pytest.raises(StoreError, match=r"the first, a \(.*a\.npz\): video: expected numbers of shape"):
        import_features("npz", tmp_path / "a.npz", tmp_path / "store", CONFIG)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.rar").touch()
    with pytest.raises(StoreError, match=r"no \.npz files in .* \(passed over: 1 \.rar\)"):
        import_features("npz", tmp_path / "source", tmp_path / "store", CONFIG)
    with pytest.raises(ValueError, match="expected max_clip_bytes to be at least 1"):
        ImportConfig(1, 1, max_clip_bytes=0)
    with pytest.raises(ValueError, match="expected 'split' to be of printable characters"):
        ImportConfig(1, 1, split="a\n")


def test_folders_linked_in_circles_end(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    save_npz(source / "train" / "a.npz")
    save_npz(elsewhere / "b.npz")
    (source / "train" / "loop").symlink_to(source)
    (source / "up").symlink_to(tmp_path)
    (source / "test").symlink_to(elsewhere)
    (source / "again").symlink_to(source / "train")
    (source / "c.npz").symlink_to(elsewhere / "b.npz")
    (source / "self.npz").symlink_to(source / "self.npz")
    assert import_features("npz", source, tmp_path / "store", CONFIG) == (3, 0)
    store = FeatureStore.open(tmp_path / "store")
    assert dict(zip(store.ids, store.splits, strict=True)) == {"a": "train", "b": "test", "c": "train"}
