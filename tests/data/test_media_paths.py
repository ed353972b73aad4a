"""A media path is one regular file: nothing else is opened, whatever a name or a file's content says."""

import contextlib
import ctypes
import io
import os
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from marked_media import make_marked

from scav_model.data.decode import DecodeError, decode_sound, media_seconds, read_clip
from scav_model.index.thumbnails import thumbnails

IN_OPEN = 0x20


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_marked(tmp_path / "target.mp4")


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        yield listening


class Opened:
    """Tells whether a file has been opened by anyone since this was made."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self.descriptor, os.fsencode(path), IN_OPEN) >= 0

    def __bool__(self) -> bool:
        try:
            return bool(os.read(self.descriptor, 4096))
        except BlockingIOError:
            return False


def playlists(target: Path, address: str) -> dict[str, str]:
    segments = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n{}\n#EXT-X-ENDLIST\n"
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation '
        'id="0" bandwidth="1000"><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )
    return {
        "ffconcat": f"ffconcat version 1.0\nfile {target.name}\n",
        "unsafe ffconcat": f"ffconcat version 1.0\nfile 'file:{target}'\n",
        "ffconcat of an address": f"ffconcat version 1.0\nfile 'http://{address}/x.mp4'\n",
        "m3u8": segments.format(target.name),
        "m3u8 of an address": segments.format(f"http://{address}/x.ts"),
        "mpd": mpd.format(target.name),
        "mpd of an address": mpd.format(f"http://{address}/x.mp4"),
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {address.split(':')[1]} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mpd", ".ffconcat", ".sdp", ".ts", ""])
def test_a_text_that_names_others_is_refused_and_they_stay_closed(
    clip: Path, port: socket.socket, tmp_path: Path, suffix: str
) -> None:
    address = "{}:{}".format(*port.getsockname())
    opened = Opened(clip)
    for name, text in playlists(clip, address).items():
        path = tmp_path / f"list{suffix}"
        path.write_text(text)
        for read in (read_clip, media_seconds, decode_sound):
            with pytest.raises(DecodeError, match=r"not a readable media file|no streams|no (video|audio) stream"):
                read(path)
        with pytest.raises(DecodeError):
            read_clip(io.BytesIO(text.encode()))
        assert thumbnails(path) == []
        assert not opened, name
        with pytest.raises(BlockingIOError):
            port.accept()


@pytest.mark.parametrize(
    "name",
    [
        "http://{address}/x.mp4",
        "tcp://{address}",
        "concat:{clip}|{clip}",
        "subfile:,,start,0,end,0,,:{clip}",
        "file:{clip}",
        "crypto:{clip}",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "fd:",
        "lavfi:testsrc",
        "async:{clip}",
        "cache:{clip}",
    ],
)
def test_a_name_is_a_files_name_and_no_address(clip: Path, port: socket.socket, name: str) -> None:
    opened = Opened(clip)
    path = name.format(address="{}:{}".format(*port.getsockname()), clip=clip)
    for given in (path, Path(path)):
        with pytest.raises(DecodeError, match=r"^no such file$"):
            read_clip(given)
        assert thumbnails(Path(path)) == []
    assert not opened
    with pytest.raises(BlockingIOError):
        port.accept()


@pytest.mark.parametrize(
    "name", ["12:30 clip.mp4", "http:clip.mp4", "clip %03d.mp4", "frame%d.png", "a|b*?[c].mp4", "-i", " "]
)
def test_any_name_of_a_file_will_do(clip: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(clip, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for given in (name, Path(name), tmp_path / name):
        assert len(read_clip(given).frames) == 50


def test_a_name_that_is_not_utf8(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    shutil.copy(clip, path)
    assert len(read_clip(path).frames) == 50


def test_what_is_no_regular_file_is_refused_at_once(clip: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    link = tmp_path / "link.mp4"
    link.symlink_to(fifo)
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX) as local:
        # A socket's address is at most 108 bytes long.
        folder = os.open(tmp_path, os.O_RDONLY)
        local.bind(f"/proc/self/fd/{folder}/socket.mp4")
        for path in (fifo, link, Path("/dev/zero"), tmp_path / "socket.mp4"):
            for read in (read_clip, media_seconds, decode_sound):
                with pytest.raises(DecodeError, match="expected a regular file, got a pipe, a socket or a device"):
                    read(path)
            assert thumbnails(path) == []
        os.close(folder)
    with pytest.raises(DecodeError, match="expected a regular file, got a folder"):
        read_clip(tmp_path)
    assert time.monotonic() - began < 2


def test_a_pipe_that_takes_a_files_place_is_refused(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    looks = os.stat(clip)
    monkeypatch.setattr(os, "stat", lambda *_, **__: looks)
    with pytest.raises(DecodeError, match="expected a regular file"):
        read_clip(fifo)


def test_bad_names_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="zero byte"):
        read_clip("a\0b.mp4")
    with pytest.raises(DecodeError, match="cannot be opened: File name too long"):
        read_clip("x" * 5000 + ".mp4")
    with pytest.raises(DecodeError, match="no such file"):
        read_clip("clip \ud800.mp4")


def test_a_film_whose_samples_lie_in_another_file(clip: Path, tmp_path: Path) -> None:
    """A QuickTime reference film: its data reference, an alias with a path, is not followed."""
    outside = tmp_path / "outside.mp4"
    shutil.copy(clip, outside)
    opened = Opened(outside)
    content = clip.read_bytes()
    own = struct.pack(">I4sI", 12, b"url ", 1)
    assert own in content
    path = tmp_path / "reference.mov"
    path.write_bytes(content.replace(own, struct.pack(">I4sI", 12, b"alis", 0)))
    with contextlib.suppress(DecodeError):
        read_clip(path)
    assert not opened
