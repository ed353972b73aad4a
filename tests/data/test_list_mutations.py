"""Lists and archives with bytes changed, cut or doubled give rows or an error in one line."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from scav_model.data import FeatureStore
from scav_model.data.datasets import music, vggsound
from scav_model.data.importers import import_features
from scav_model.data.manifest import ManifestError, read_manifest, read_manifest_lenient
from scav_model.data.store import StoreError
from tests.data.import_files import CONFIG, VIDEO, good, pack, save_npz

MUTANTS = 60  # of each kind
TOKENS = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"{", b"}", b"[", b"NaN", b"\xef\xbb\xbf", b"\xff\xfe", b";", b"\t"]
NAMES = ["aaa", "-bb", "ccc", "d.d"]


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Return `content` with one to four bytes, pieces or tokens changed, cut, moved or doubled."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, kind = int(random.integers(len(changed) + 1)), random.integers(6)
        length = int(random.integers(1, 20))
        if kind == 0:
            changed[at : at + 1] = bytes([random.integers(256)])
        elif kind == 1:
            changed[at:at] = TOKENS[random.integers(len(TOKENS))]
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at : at + length] = TOKENS[random.integers(len(TOKENS))] * 3
        elif random.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def check_line(error: Exception) -> None:
    assert "\n" not in str(error)
    str(error).encode()


def read_csv(path: Path) -> None:
    content = path.read_bytes()
    found = vggsound(path, path.parent)
    said = sum(int(remark.split()[0]) for remark in found.remarks if "rows repeat" in remark)
    rows = len(found.clips) + len(found.missing) + said
    # Every line that still is one of the original is still there.
    intact = sum(line in ROWS for line in set(content.split(b"\n")))
    assert rows >= intact


HEADER = b"id,start,label,split"
ROWS = [f'{name},{index},"label {index}, loud",test'.encode() for index, name in enumerate(NAMES)]


def read_jsonl(path: Path) -> None:
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    clips, bad = read_manifest_lenient(path)
    if not path.read_bytes().startswith(b"\xff\xfe"):
        # A byte order mark alone is blank, too.
        assert len(clips) + len(bad) >= len([line for line in lines if line.strip(b"\xef\xbb\xbf \r")])
    for entry in bad:
        check_line(ValueError(str(entry)))
    if not bad:
        assert read_manifest(path) == clips


def read_json(path: Path) -> None:
    music(path, path.parent)


LISTS: dict[str, tuple[bytes, Callable[[Path], None]]] = {
    "csv": (b"\n".join([*ROWS, b""]), read_csv),
    "header": (b"\n".join([HEADER, *ROWS, b""]), read_csv),
    "jsonl": (
        b"\n".join(json.dumps({"id": name, "path": "x", "split": "test", "label": "é"}).encode() for name in NAMES),
        read_jsonl,
    ),
    "json": (json.dumps({"videos": {"solo": {"flute": NAMES}}}).encode(), read_json),
}


@pytest.mark.parametrize("kind", LISTS)
def test_mutants_of_lists(tmp_path: Path, kind: str) -> None:
    content, read = LISTS[kind]
    path, random = tmp_path / "list", np.random.default_rng(0)
    path.write_bytes(content)
    read(path)
    for number in range(MUTANTS * 5):
        path.write_bytes(mutate(content, random))
        try:
            read(path)
        except ManifestError as error:
            check_line(error)
        except Exception as error:
            raise AssertionError(f"mutant {number}: {path.read_bytes()!r}") from error


def npz(folder: Path) -> Path:
    save_npz(folder / "a.npz", label=np.array("dog"))
    return folder / "a.npz"


def hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        for name in NAMES:
            group = file.create_group(name)
            group["audio"], group.attrs["label"] = np.ones((3, 6)), "dog"
            group.create_dataset("video", data=VIDEO, chunks=(3, 4), compression="gzip")
    return folder / "a.h5"


def tar(folder: Path) -> Path:
    pack(folder / "a.tar", {key: value for name in NAMES for key, value in good(name).items()})
    return folder / "a.tar"


def tar_gz(folder: Path) -> Path:
    (folder / "a.tar.gz").write_bytes(gzip.compress(tar(folder).read_bytes(), mtime=0))
    (folder / "a.tar").unlink()
    return folder / "a.tar.gz"


@pytest.mark.parametrize(
    ("kind", "write", "clips"),
    [("npz", npz, 1), ("hdf5", hdf5, 4), ("webdataset", tar, 4), ("webdataset", tar_gz, 4)],
    ids=["npz", "hdf5", "tar", "tar.gz"],
)
def test_mutants_of_archives(
    tmp_path: Path, kind: str, write: Callable[[Path], Path], clips: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    path, random = write(tmp_path), np.random.default_rng(0)
    content = path.read_bytes()
    for number in range(MUTANTS):
        path.write_bytes(mutate(content, random))
        store = tmp_path / f"store-{number}"
        try:
            taken, skipped = import_features(kind, path, store, CONFIG)
        except StoreError as error:
            check_line(error)
            continue
        except Exception as error:
            raise AssertionError(f"mutant {number} of {kind}") from error
        assert taken == len(FeatureStore.open(store))
        assert skipped or taken == clips
