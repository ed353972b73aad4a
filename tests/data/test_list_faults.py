"""Manifests, tables and folders as people have them: encodings, quotes, odd names, broken lines."""

import codecs
import json
import os
from pathlib import Path

import pytest

from scav_model.data.datasets import folder, music, vggsound
from scav_model.data.ids import name_problem
from scav_model.data.manifest import Clip, ManifestError, read_manifest, read_manifest_lenient, write_manifest

GOOD = '{"id": "a", "path": "a.mp4", "split": "train"}'


def line(name: str, **more: object) -> str:
    return json.dumps({"id": name, "path": f"{name}.mp4", "split": "test", **more}, ensure_ascii=False)


def ids(path: Path) -> list[str]:
    return [clip.id for clip in read_manifest(path)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_manifest_in_any_unicode(tmp_path: Path, encoding: str, end: str) -> None:
    text = end.join([line("a", label="犬\u2028é\u0085"), line("-b"), ""])
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / "m.jsonl").write_bytes(mark + text.encode(encoding))
    clips = read_manifest(tmp_path / "m.jsonl")
    assert [(clip.id, clip.label) for clip in clips] == [("a", "犬\u2028é\u0085"), ("-b", None)]


def test_manifests_put_one_after_the_other_keep_their_marks(tmp_path: Path) -> None:
    content = b"".join(codecs.BOM_UTF8 + f"{line(name)}\n".encode() for name in "ab")
    (tmp_path / "m.jsonl").write_bytes(content)
    assert ids(tmp_path / "m.jsonl") == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'{"id": "caf\xe9", "path": "b", "split": "test"}', "expected UTF-8 text, got the byte 0xe9"),
        (b'{"id": "b\0", "path": "b", "split": "test"}', "got a NUL byte"),
        (b'{"id": "a\\tb", "path": "b", "split": "test"}', r"'id' to be of printable characters .* got 'a\\tb'"),
        (b'{"id": "a\\nb", "path": "b", "split": "test"}', "'id' to be of printable"),
        (b'{"id": "\\u0000", "path": "b", "split": "test"}', "'id' to be of printable"),
        (b'{"id": "\\ud800", "path": "b", "split": "test"}', r"'id' to be of printable .* got '\\ud800'"),
        (b'{"id": "b", "path": "b", "split": "te\\nst"}', "'split' to be of printable"),
        (b'{"id": "b", "path": "b", "split": "test", "label": "\\udfff"}', "'label' to be text that UTF-8 can hold"),
        (b'{"id": "b", "path": "a\\u0000", "split": "test"}', "'path' to be the name of a file"),
        (b'{"id": "b", "path": "\\ud800", "split": "test"}', "'path' to be the name of a file"),
        (b'{"id": "b", "path": "https://youtu.be/b", "split": "test"}', "a file on this machine, got the address"),
        (b'{"id": "b", "path": "file:///b.mp4", "split": "test"}', "a file on this machine, got the address"),
        (b'{"id": "b", "id": "c", "path": "b", "split": "test"}', "the key 'id' comes twice"),
        (b'{"id": "b", "path": "b", "split": "test", "start": 1' + b"0" * 400 + b"}", "'start' to be a number"),
        (b'{"id": "b", "path": "b", "split": "test", "start": 1e400}', "'start' to be a number"),
        (b'{"id": "b", "path": "b", "split": "test", "label": {"a": [1]}}', "'label' to be a string, got {'a': "),
        (b"[" * 100_000, "nested too deep"),
        (b'{"id": "b"', "not valid JSON"),
        (b"null", "expected a JSON object"),
        (line("a").encode(), "id 'a' is already used on line 1"),
    ],
)
def test_a_bad_line_costs_itself_alone_where_the_run_goes_on(tmp_path: Path, bad: bytes, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\n".join([line("a").encode(), b"", bad, line("c").encode()]))
    clips, lines = read_manifest_lenient(path)
    assert [clip.id for clip in clips] == ["a", "c"]
    assert [entry.number for entry in lines] == [3]
    assert str(lines[0]).startswith(f"{path}:3: ")
    assert "\n" not in str(lines[0])
    str(lines[0]).encode()
    with pytest.raises(ManifestError, match=rf"m\.jsonl, line 3: .*{message}"):
        read_manifest(path)


def test_what_is_no_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    for content, message in (
        (b"\x89PNG\r\n\x1a\n\0\0", "got a binary file"),
        (b"id,start\na,1\n", r"line 1: not valid JSON|the first: .*:1: not valid JSON"),
        (b"", "got an empty manifest"),
        (line("a").encode("utf-16-le"), "got a NUL byte"),
    ):
        path.write_bytes(content)
        for read in (read_manifest, read_manifest_lenient):
            with pytest.raises(ManifestError, match=message):
                read(path)
    for read in (read_manifest, read_manifest_lenient):
        with pytest.raises(ManifestError, match="is a folder; expected a manifest"):
            read(tmp_path)
        with pytest.raises(ManifestError, match="cannot read this manifest"):
            read(path / "below")


def test_ids_that_a_store_can_hold() -> None:
    for name in ("-starts_with_dash", "a b", "犬/1", "n" * 300, "a.b"):
        assert name_problem("id", name) is None
    for name in ("", None, 3, "a\n", "\u2028", "\ud800"):
        assert name_problem("id", name)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    root.mkdir()
    for name in ("---a_000001.mp4", "bbb_000030.MKV", "ccc.webm"):
        (root / name).touch()
    return root


ROWS = [
    ("---a_000001", "people marching", "test"),
    ("bbb_000030", "waterfall, loud", "train"),
    ("ccc_000007", "x", "v"),
]
TABLES = {
    "spaces": b'---a, 1, people marching, test\nbbb , 30 , "waterfall, loud" , train\nccc, 7, x, v\n',
    "mark": codecs.BOM_UTF8 + b'---a,1,people marching,test\nbbb,30,"waterfall, loud",train\nccc,7,x,v',
    "utf-16": '---a,1,people marching,test\nbbb,30,"waterfall, loud",train\nccc,7,x,v'.encode("utf-16"),
    "windows": b'---a,1,people marching,test\r\n\r\nbbb,30,"waterfall, loud",train\r\nccc,7,x,v\r\n',
    "mac": b'---a,1,people marching,test\rbbb,30,"waterfall, loud",train\rccc,7,x,v\r',
    "semicolons": b"---a;1;people marching;test\nbbb;30;waterfall, loud;train\nccc;7;x;v\n",
    "tabs": b"---a\t1\tpeople marching\ttest\nbbb\t30\twaterfall, loud\ttrain\nccc\t7\tx\tv\n",
    "trailing": b'---a,1,people marching,test,\nbbb,30,"waterfall, loud",train,,\nccc,7,x,v\n',
    "header": b'YouTube_ID,start_seconds,Label,SPLIT\n---a,1,people marching,test\nbbb,30,"waterfall, loud",train\n'
    b"ccc,7,x,v\n",
    "order": b'split,label,start,id\ntest,people marching,1,---a\ntrain,"waterfall, loud",30,bbb\nv,x,7,ccc\n',
    "comment": b"# YouTube ID, start seconds, label, train/test split.\n---a,1,people marching,test\n"
    b'bbb,30,"waterfall, loud",train\nccc,7,x,v\n',
    "files": b"file;label;split\n---a_000001.mp4;people marching;test\n"
    b"bbb_000030;waterfall, loud;train\nccc_000007;x;v",
    "quotes": b'---a,1,"people" marching,test\nbbb,30,"waterfall, loud",train\nccc,7,x,v\n',
    "decimals": b'---a,1.0,people marching,test\nbbb,30.000,"waterfall, loud",train\nccc,7.,x,v\n',
    "line end": b'---a,1,"people\nmarching",test\nbbb,30,"waterfall,\r\nloud",train\nccc,7,x,v\n',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_any_form(tmp_path: Path, media: Path, name: str) -> None:
    (tmp_path / "list.csv").write_bytes(TABLES[name])
    found = vggsound(tmp_path / "list.csv", media)
    assert [(clip.id, clip.label, clip.split) for clip in found.clips] == ROWS
    assert found.missing == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'---a,1,"people marching,test\nbbb,30,waterfall,train\n',
            "line 1: cannot read this row .*a quote is not closed",
        ),
        (b'---a,1,"people,test\nbbb,30,waterfall",train\nccc,7,x,v\n', "line 1: .*takes in other rows"),
        (b'split,id,start,label\nv,a,1,"b\nv,b,2,c"\n', "line 2: .*takes in other rows"),
        (b'ccc,7,x,v\n---a,1,"people,test', "line 2: cannot read this row .*a quote is not closed"),
        (b'ccc,7,x,v\n---a,1,people,"', "line 2: cannot read this row .*a quote is not closed"),
        (b"ccc,7,x,v\n---a,1,caf\xe9,test\n", "line 2: expected UTF-8 text, got the byte 0xe9"),
        (b"ccc,7,x,v\n---a,1,\0,test\n", "got a binary file"),
        (b"ccc,7,x,v\n\n,7,x,v\n", "line 3: expected id,start,label,split or"),
        (b"ccc,7,x,v\nccc,,x,v\n", "line 2: expected id,start"),
        (b"ccc,7,x,v\nccc,-7,x,v\n", "line 2: expected id,start"),
        (b"ccc,7,x,v\nccc,7,x,v,more\n", "line 2: expected id,start"),
        ("ccc,7,x,v\nccc,²,x,v\n".encode(), "line 2: expected id,start"),
        (b"id,start,end,label\nccc,7,17,x\n", "line 1: expected id,start"),
        (b"id,start\n", ": expected rows of .* got an empty list"),
        (b"", "got an empty list"),
        (f"{GOOD}\n".encode(), r"line 1: expected id,start.* \(a manifest\?"),
        ("ccc\u200b\u2028d,7,x,v\n".encode(), "line 1: expected 'id' to be of printable"),
        (codecs.BOM_UTF16_LE + b"a\0,", "expected UTF-8 text, or"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, media: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"list\.csv.*{message}"):
        vggsound(tmp_path / "list.csv", media)


def test_empty_cells_are_no_label_and_no_split(tmp_path: Path, media: Path) -> None:
    (tmp_path / "list.csv").write_text("---a,1,,\nccc,7,x,\nbbb_000030.mp4,\n")
    found = vggsound(tmp_path / "list.csv", media, split="val")
    assert [(clip.label, clip.split) for clip in found.clips] == [(None, "val"), ("x", "val"), (None, "val")]


def test_rows_that_repeat_a_clip_are_counted(tmp_path: Path, media: Path) -> None:
    (tmp_path / "list.csv").write_text("ccc,7,x,v\nccc,7,x,v\nccc,7,y,v\nlost,1,z,v\nlost,1,z,v\n")
    found = vggsound(tmp_path / "list.csv", media)
    assert (len(found.clips), found.missing) == (1, ["lost_000001"])
    assert found.remarks == [
        "3 rows repeat a clip and count once",
        "1 of them have another label; the first label counts, as 'x' and not 'y' for ccc_000007",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"videos": {"flute": ["a"], "flute": ["b"]}}', "the key 'flute' comes twice"),
        (b'{"videos": {"flute": ["a\\nb"]}}', "'flute': expected 'id' to be of printable"),
        (b'{"videos": {"flute": [""]}}', "'flute': expected 'id' to be a non-empty string"),
        (b'{"videos": {"flute": [NaN]}}', "'flute': expected a list of YouTube ids"),
        (b'{"videos": {"flute": "caf\xe9"}}', "expected UTF-8 text, got the byte 0xe9"),
        (b'{"videos": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "nested|expected a list"),
        (b"\x1f\x8b\0\0", "got a binary file"),
    ],
)
def test_a_bad_json_is_named(tmp_path: Path, media: Path, content: bytes, message: str) -> None:
    (tmp_path / "music.json").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"music\.json.*{message}"):
        music(tmp_path / "music.json", media)


def test_json_in_utf_16(tmp_path: Path, media: Path) -> None:
    (tmp_path / "music.json").write_bytes(json.dumps({"videos": {"flûte": ["ccc"]}}).encode("utf-16"))
    assert [(clip.id, clip.label) for clip in music(tmp_path / "music.json", media).clips] == [("ccc", "flûte")]


def test_media_of_any_suffix_and_what_is_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "media"
    taken = ["a.mp4", "b.WMV", "c.3gp", "d.MTS", "e.m2ts", "f.ogv", "g.Mov", "h.vob", "i.mxf", "j.dvr-ms", "-k.mp4"]
    for name in [*taken, "._a.mp4", ".hidden/x.mp4", "a.wav", "a.json", "B.JSON", "README", ".DS_Store", "l.mp4.part"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "m.mp4").symlink_to(root / "gone.mp4")
    os.mkfifo(root / "n.mp4")
    found = folder(root)
    assert sorted(clip.path.name for clip in found.clips) == sorted(taken)
    counts = found.remarks[0].removeprefix("passed over: ").split(", ")
    assert set(counts) == {"3 hidden", "2 .json", "2 not a file", "1 .wav", "1 without suffix", "1 .part"}
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "a.wav").touch()
    with pytest.raises(ManifestError, match=r"no media files in it \(passed over: 1 \.wav\); their suffixes are \.3g2"):
        folder(tmp_path / "sound")


def test_names_that_do_not_print_become_ids_that_do(tmp_path: Path) -> None:
    root = tmp_path / "media"
    root.mkdir()
    for name in (b"caf\xe9.mp4", b"a\tb.mp4", b"new\nline.mp4", b"n" * 250 + b".mp4"):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).touch()
    found = folder(root)
    assert {clip.id for clip in found.clips} == {r"caf\xe9", r"a\tb", r"new\nline", "n" * 250}
    write_manifest(tmp_path / "m.jsonl", found.clips)
    assert read_manifest(tmp_path / "m.jsonl") == found.clips
    assert all(clip.path.is_file() for clip in read_manifest(tmp_path / "m.jsonl"))


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    root = tmp_path / "media"
    for name in ("media/test/a.mp4", "elsewhere/dog/b.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "outside.mp4").touch()
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (root / "test" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (tmp_path / "elsewhere" / "back").symlink_to(root / "test")
    (root / "c.mp4").symlink_to(tmp_path / "elsewhere" / "dog" / "b.mp4")
    assert folder(root).clips == [
        Clip("c", root / "c.mp4", "test"),
        Clip("test/a", root / "test/a.mp4", "test"),
        Clip("train/dog/b", root / "train/dog/b.mp4", "train", label="dog"),
    ]


def test_short_videos_and_short_clips(tmp_path: Path, make_media: object) -> None:
    (tmp_path / "music.json").write_text('{"videos": {"flute": ["a", "b"]}}')
    make_media("media/a.mp4", seconds=1.2)  # type: ignore[operator]
    make_media("media/b.mp4", seconds=0.4)  # type: ignore[operator]
    found = music(tmp_path / "music.json", tmp_path / "media", clip_seconds=0.5)
    assert [(clip.id, clip.start) for clip in found.clips] == [("a_000000.000", 0.0), ("a_000000.500", 0.5)]
    assert found.remarks == ["passed over: 1 videos shorter than 0.5 s"]
