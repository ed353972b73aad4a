import base64
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import av
import numpy as np
import pytest

from scav_model.index import Encoded, IndexWriter, SearchIndex, queries_by_id, search
from scav_model.index.align import Alignment, alignments
from scav_model.index.page import as_html, summed, ticks
from scav_model.index.report import as_json, as_table
from scav_model.index.search import Hit
from scav_model.index.thumbnails import thumbnails
from tests.index.worlds import clip, header

# What an index from a stranger may hold in place of a path, none of which leads to a file.
BAD_PATHS = (
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "http://example.org/a.mp4",
    "//example.org/a.mp4",
    '"><script>alert(1)</script>.mp4',
    "a\nb\t\u202e\udcff.mp4",
    "a\0b.mp4",
    "\ud800.mp4",
    "/dev/zero",
    "/",
    "n" * 5000,
)


class Page(HTMLParser):
    """The tags of a page, which must close what they open."""

    EMPTY = ("img", "meta", "!doctype")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def movie(tmp_path):
    """Two seconds of red, then two of blue, at a name that HTML has to escape."""
    path = tmp_path / "dog & <cat>.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(40):
            picture = np.zeros((64, 64, 3), dtype=np.uint8)
            picture[..., 0 if number < 20 else 2] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def answer(tmp_path, movie):
    media = {"path": str(movie), "start": 1.0, "seconds": 2.0, "label": "<bark>"}
    with IndexWriter.create(tmp_path / "index", header(metric="dtw", per_step=True)) as writer:
        for number in range(6):
            writer.add(Encoded(f"clip-{number}", clip(number).steps, media if number != 5 else {}))
    index = SearchIndex.open(tmp_path / "index")
    return index, search(index, queries_by_id(index, ["clip-2", "clip-5"], "audio"), 9)


def test_table(answer):
    _, found = answer
    lines = as_table(found).splitlines()
    assert lines[0].split() == ["query", "rank", "id", "distance", "file"]
    assert len(lines) == 13
    assert lines[1].split()[:3] == ["clip-2", "1", "clip-2"]


def test_json(answer):
    index, found = answer
    whole = json.loads(as_json(found, alignments(index, found)))
    assert (whole["mode"], whole["side"], whole["searched"]) == ("exact", "audio", "video")
    assert "all of them are returned" in whole["notes"][0]
    assert [query["query"] for query in whole["queries"]] == ["clip-2", "clip-5"]
    first = whole["queries"][0]["hits"][0]
    assert (first["rank"], first["id"], first["media"]["label"]) == (1, "clip-2", "<bark>")
    aligned = first["alignment"]
    assert sum(aligned["contribution"]) == pytest.approx(first["distance"], rel=1e-4)
    assert len(aligned["query"]) == len(aligned["clip"]) == len(aligned["contribution"])
    assert "alignment" not in json.loads(as_json(found))["queries"][0]["hits"][0]


def test_page_is_sound_html_that_needs_nothing_else(answer, movie):
    index, found = answer
    text = as_html(index, found)
    page = Page(text)
    assert len(page.all("section")) == 2
    assert len(page.all("article")) == 12
    assert "<bark>" in "".join(page.texts)
    assert "<bark>" not in text
    assert not page.all("script")
    assert not page.all("link")
    players = page.all("video")
    # One for each query and hit but clip-5's, which has no file.
    assert len(players) == 11
    assert {player["src"].split("#")[1] for player in players} == {"t=0", "t=1,3"}
    assert all(player["src"].startswith("file:///") and "%26" in player["src"] for player in players)
    pictures = page.all("img")
    assert len(pictures) == 40
    assert all(picture["src"].startswith("data:image/jpeg;base64,") for picture in pictures)


def hostile(answer, text, path):
    """An answer in which ids, labels, notes and paths are of a stranger."""
    index, found = answer
    media = {"path": path, "start": float("nan"), "seconds": -1, "label": text}
    hits = [[Hit(1, text, 0, float("nan"), media)], [Hit(1, text, 0, 1.0, {**media, "start": "x"})]]
    queries = replace(found.queries, names=[text, text], media=[path, path])
    return index, replace(found, queries=queries, hits=hits, notes=[text])


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: repr(path)[:30])
def test_a_page_links_to_files_alone(path, answer):
    index, found = hostile(answer, "a'\"><script>alert(1)</script>\n\t\x1b[31m\u202e\udcff\ud800", path)
    text = as_html(index, found)
    text.encode()
    page = Page(text)
    assert not any(page.all(tag) for tag in ("script", "video", "audio", "img", "a"))
    assert not any(name.startswith("on") or name in ("href", "src") for _, attrs in page.tags for name in attrs)
    assert "".join(page.texts).count("No player: there is no file") == 4
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_page_says_where_it_has_no_media(answer, movie):
    index, found = answer
    text = as_html(index, found)
    # Of clip-5, a query and a hit of both queries.
    assert text.count("No player: no media file of this query is known.") == 1
    assert text.count("No player: the index names no media file of this clip. Build it with --manifest") == 2
    movie.write_text("no film")
    text = as_html(index, found)
    assert text.count("No pictures: none can be read from the file.") == 10
    movie.unlink()
    text = as_html(index, found)
    assert "<video" not in text
    assert text.count("No player: there is no file ") == 11
    assert "dog &amp; &lt;cat&gt;.mp4. Put it there" in text


@pytest.mark.parametrize("name", ["a'b\"c.mp4", "a#b?c%20.mp4", "a\n\u202e.mp4", "caf\udce9.mp4"])
def test_players_of_files_with_any_name(name, answer, movie):
    path = movie.rename(movie.with_name(name))
    index, found = hostile(answer, "clip", str(path))
    players = Page(as_html(index, found)).all("video")
    assert [player["src"] for player in players] == [path.as_uri() + "#t=0"] * 4


def test_a_page_links_from_its_folder_to_files_in_it(answer, movie):
    index, found = answer
    folder = movie.parent
    links = {player["src"].split("#")[0] for player in Page(as_html(index, found, folder)).all("video")}
    assert {unquote(link) for link in links} == {movie.name}
    elsewhere = Page(as_html(index, found, folder / "below")).all("video")
    assert all(player["src"].startswith("file:///") for player in elsewhere)


def test_a_page_says_which_files_browsers_do_not_play(answer, movie):
    assert "Most browsers" not in as_html(*answer)
    path = movie.rename(movie.with_suffix(".avi"))
    text = as_html(*hostile(answer, "clip", str(path)))
    assert text.count("Most browsers do not play .avi; scav serve converts it") == 4


def test_a_page_holds_media_up_to_a_limit(answer, movie):
    index, found = answer
    movie.write_bytes(movie.read_bytes().ljust(400_000, b"\0"))
    sources = [player["src"] for player in Page(as_html(index, found, embed_megabytes=1)).all("video")]
    assert [source.startswith("data:video/mp4;base64,") for source in sources] == [True, True] + [False] * 9
    assert base64.b64decode(sources[0].partition(",")[2].partition("#")[0]) == movie.read_bytes()


def test_both_axes_have_one_scale_and_the_same_ticks(answer):
    assert ticks(1.6, 1.6) == [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6]
    assert ticks(0.5, 1.6) == [0, 0.2, 0.4]
    assert ticks(40.0, 62.0) == [0, 10, 20, 30, 40]
    drawing = as_html(*answer).partition("<svg")[2].partition("</svg>")[0]
    assert drawing.count(">0.2<") == 2


def test_words_say_what_adds_up_to_the_distance():
    aligned = Alignment([0.5], [0.5], [1.0], [0.75], 0.25, 1.0, "s")
    assert summed(aligned) == (
        "The distance is 1: its matches add up to 0.75, and 0.25 is of none: smoothing, or matches too small to draw."
    )
    assert summed(replace(aligned, rest=0.0, distance=0.75)) == "The distance is 0.75: its matches add up to 0.75."


def test_tables_and_json_of_any_text(answer):
    text = 'a"b\n\t\x1b[31m\x7f\u202e\u2028\udcff\ud800\U0001f600é'
    _, found = hostile(answer, text, text)
    table = as_table(found)
    assert len(table.split("\n")) == 3
    assert all(character.isprintable() or character == "\n" for character in table)
    whole = as_json(found)
    assert "\U0001f600é" in whole
    assert all(character.isprintable() or character == "\n" for character in whole)
    whole.encode()
    hit = json.loads(whole, parse_constant=pytest.fail)["queries"][0]["hits"][0]
    assert (hit["id"], hit["media"]["path"], hit["distance"], hit["media"]["start"]) == (text, text, None, None)


def test_drawings_hold_every_match_and_its_part(answer):
    index, found = answer
    text = as_html(index, found)
    drawings = [ET.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in text.split("<svg")[1:]]
    assert len(drawings) == 12
    for drawing, aligned in zip(drawings, [one for row in alignments(index, found) for one in row], strict=True):
        # Three axes beside the matches.
        assert len(drawing.findall("line")) == len(aligned.clip) + 3
        bars = drawing.findall("rect")
        assert len(bars) == len(set(aligned.clip))
        _, _, width, height = map(float, drawing.get("viewBox").split())
        for shape in (*drawing.findall("line"), *bars):
            for name in ("x1", "x2", "x"):
                assert 0 <= float(shape.get(name, 0)) <= width
            for name in ("y1", "y2", "y"):
                assert 0 <= float(shape.get(name, 0)) <= height
        shares = [float(bar.find("title").text.split("(")[1].rstrip("%)")) for bar in bars]
        assert sum(shares) == pytest.approx(100, abs=1)


def test_thumbnails_are_of_the_clip(movie):
    def colors(**options):
        found = []
        for uri in thumbnails(movie, 2, **options):
            with av.open(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="mjpeg") as container:
                found.append(next(container.decode(video=0)).to_ndarray(format="rgb24").mean((0, 1)).argmax())
        return found

    assert colors(start=0.0, seconds=4.0) == [0, 2]
    assert colors(start=2.0, seconds=2.0) == [2, 2]
    assert thumbnails(movie.with_name("none.mp4")) == []
