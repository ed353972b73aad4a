"""The JSON API: searches, alignments, uploads and media."""

import asyncio
import base64
import io
import resource
import tempfile
from contextlib import ExitStack
from dataclasses import asdict

import av
import httpx
import pytest
from fastapi.testclient import TestClient

from scav_kernels.ops.registry import METRICS
from scav_model.distances import Distance
from scav_model.index import queries_by_id, search
from scav_model.index.align import METRICS as ALIGNED
from scav_model.serve import app as application
from scav_model.serve import engine as engines
from scav_model.serve import uploads
from scav_model.serve.app import make_app
from scav_model.serve.engine import Engine, label_of
from tests.index.test_cli_search import make_media
from tests.serve.conftest import client_of
from tests.serve.worlds import World, make_sound


def listed(answer) -> list[tuple[str, float]]:
    return [(hit["clip"]["id"], pytest.approx(hit["distance"], rel=1e-5)) for hit in answer.json()["hits"]]


def test_the_index_says_how_it_can_be_searched(client: TestClient) -> None:
    found = client.get("/api/index").json()
    assert found["clips"] == 5
    assert found["metric"] == "dtw"
    assert [metric["name"] for metric in found["metrics"]] == ["mean", *METRICS]
    assert found["uploads"] == {"problem": None, "megabytes": 200, "seconds": 120.0}


def test_clips_are_listed_by_a_part_of_their_id_or_label(client: TestClient) -> None:
    found = client.get("/api/clips", params={"contains": "KIND 1", "limit": 1, "offset": 1}).json()
    assert found["total"] == 2
    assert [clip["id"] for clip in found["clips"]] == ["horn"]
    first = client.get("/api/clips", params={"contains": "bell"}).json()["clips"][0]
    assert first == {
        "id": "bell",
        "label": "kind 0",
        "seconds": pytest.approx(1.0, abs=0.1),
        "kind": "video",
        "start": 0.0,
    }


@pytest.mark.parametrize("side", ["video", "audio"])
def test_a_clip_of_the_index_finds_what_the_index_finds(client: TestClient, world: World, side: str) -> None:
    hits = world.open().search("drum", k=3, side=side)
    answer = client.get("/api/search", params={"clip": "drum", "side": side, "k": 3})
    assert listed(answer) == [(hit.id, hit.distance) for hit in hits]
    marked = [hit["clip"]["id"] for hit in answer.json()["hits"] if hit["is_query"]]
    assert marked == [hit.id for hit in hits if hit.id == "drum"]


@pytest.mark.parametrize("metric", METRICS)
def test_another_metric_searches_as_an_index_of_that_metric(client: TestClient, world: World, metric: str) -> None:
    index = world.open()
    distance = index.distance if metric == index.header.metric else Distance(metric)
    expected = search(index.measured_by(distance), queries_by_id(index, ["drum"], "video"), 5)
    answer = client.get("/api/search", params={"clip": "drum", "metric": metric})
    assert listed(answer) == [(hit.id, hit.distance) for hit in expected.hits[0]]


def test_the_mean_searches_as_mode_mean(client: TestClient, world: World) -> None:
    hits = world.open().search("drum", k=5, mode="mean")
    answer = client.get("/api/search", params={"clip": "drum", "metric": "mean"})
    assert listed(answer) == [(hit.id, hit.distance) for hit in hits]


@pytest.mark.parametrize(
    ("parameters", "status", "words"),
    [
        ({"clip": "nobody"}, 404, "no clip of the index has the id 'nobody'"),
        ({"upload": "no-key"}, 404, "upload the file again"),
        ({}, 400, "expected clip or upload"),
        ({"clip": "drum", "upload": "key"}, 400, "expected clip or upload"),
        ({"clip": "drum", "metric": "none"}, 400, "expected metric to be one of mean, "),
    ],
)
def test_a_bad_search_is_answered_in_words(client: TestClient, parameters, status: int, words: str) -> None:
    answer = client.get("/api/search", params=parameters)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("parameters", [{"k": 0}, {"k": 10_000}, {"side": "both"}])
def test_values_out_of_range_are_refused(client: TestClient, parameters) -> None:
    assert client.get("/api/search", params={"clip": "drum", **parameters}).status_code == 422


# Metrics whose matches never go back.
ONE_PATH = ("dtw", "interpolated_cosine", "interpolated_euclidean")


@pytest.mark.parametrize("metric", ["mean", *METRICS])
@pytest.mark.parametrize("side", ["video", "audio"])
def test_an_alignment_adds_up_to_the_distance(client: TestClient, metric: str, side: str) -> None:
    parameters = {"clip": "bell", "side": side, "metric": metric}
    hits = client.get("/api/search", params=parameters).json()["hits"]
    distance = next(hit["distance"] for hit in hits if hit["clip"]["id"] == "wood")
    found = client.get("/api/alignment", params={**parameters, "hit": "wood"}).json()
    rows, columns = found["query"]["steps"], found["clip"]["steps"]
    assert found["unit"] == "s"
    assert (found["query"]["side"], found["clip"]["side"]) == (side, "audio" if side == "video" else "video")
    assert len(base64.b64decode(found["costs"]["values"])) == rows * columns
    for axis, other in (("query", "clip"), ("clip", "query")):
        assert len(found[axis]["matching"]) == found[axis]["steps"]
        assert 0 <= min(found[axis]["matching"]) <= max(found[axis]["matching"]) <= found[other]["end"]
    if metric != "mean" and metric not in ALIGNED:
        assert found["matches"] is None
        return
    assert found["distance"] == pytest.approx(distance, rel=1e-4, abs=1e-5)
    matches = found["matches"]
    assert sum(matches["contributions"]) + matches["rest"] == pytest.approx(distance, rel=1e-4, abs=1e-5)
    assert (matches["path"] is None) != (matches["plan"] is None)
    if metric in ONE_PATH:
        assert matches["plan"] is None
    elif metric != "chamfer":  # whose matches may go back, or not
        assert matches["path"] is None


def test_sequences_too_long_to_draw_are_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "MAX_CELLS", 10)
    answer = client.get("/api/alignment", params={"clip": "bell", "hit": "wood"})
    assert answer.status_code == 400
    assert "too many to draw" in answer.json()["detail"]


# -- Uploads


def upload(client: TestClient, content: bytes, name: str = "query.mp4"):
    return client.post("/api/uploads", params={"name": name}, content=content)


@pytest.fixture
def temporary(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The folder in which uploads lie while they are read."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("side", ["video", pytest.param("audio", marks=pytest.mark.slow)])
def test_an_upload_finds_what_its_file_finds(client: TestClient, world: World, temporary, side: str) -> None:
    path = world.folder / "wood.mkv"
    answer = upload(client, path.read_bytes())
    assert answer.status_code == 201
    found = answer.json()
    assert (found["name"], found["sides"], found["missing"]) == ("query.mp4", ["video", "audio"], {})
    assert list(temporary.iterdir()) == []
    hits = world.open().search(path, k=5, side=side)
    answer = client.get("/api/search", params={"upload": found["upload"], "side": side})
    assert listed(answer) == [(hit.id, hit.distance) for hit in hits]
    assert not any(hit["is_query"] for hit in answer.json()["hits"])
    key = {"upload": found["upload"]}
    assert client.get("/api/alignment", params={**key, "side": side, "hit": "drum"}).status_code == 200
    assert client.get("/api/film", params=key).headers["content-type"] == "image/jpeg"
    assert client.get("/api/sound", params=key).json()["matrix"]["rows"] == 64


def test_a_recording_has_one_side(client: TestClient, tmp_path) -> None:
    make_sound(tmp_path / "tone.wav", 500)
    found = upload(client, (tmp_path / "tone.wav").read_bytes(), "recording").json()
    assert found["sides"] == ["audio"]
    assert "no video stream" in found["missing"]["video"]
    assert found["seconds"] == pytest.approx(1, abs=0.01)
    answer = client.get("/api/search", params={"upload": found["upload"], "side": "video"})
    assert answer.status_code == 400
    assert "no video stream" in answer.json()["detail"]
    assert client.get("/api/film", params={"upload": found["upload"]}).status_code == 404


@pytest.mark.parametrize(
    "content",
    [b"noise" * 1000, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"],
)
def test_what_is_no_media_file_is_refused(client: TestClient, temporary, content: bytes) -> None:
    answer = upload(client, content)
    assert answer.status_code == 422
    assert "not a readable media file" in answer.json()["detail"]
    assert list(temporary.iterdir()) == []


def test_a_form_is_told_how_to_upload(client: TestClient, world: World) -> None:
    answer = client.post("/api/uploads", files={"file": (world.folder / "bell.mp4").read_bytes()})
    assert answer.status_code == 415
    assert "take --data-binary @FILE in place of -F" in answer.json()["detail"]


def test_an_empty_upload_is_refused(client: TestClient) -> None:
    assert upload(client, b"").status_code == 422


def chunks(count: int):
    yield from (b"x" * 65536 for _ in range(count))


@pytest.mark.parametrize("content", [b"x" * (1 << 20) + b"x", chunks(17)], ids=["stated", "unstated"])
def test_a_large_upload_is_refused(world: World, temporary, content) -> None:
    engine = world.engine(megabytes=1)
    try:
        answer = upload(client_of(engine), content)
    finally:
        engine.close()
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("expected a file of at most 1 MiB")
    assert [path for path in temporary.iterdir() if path.is_file()] == []


def test_a_long_upload_is_refused(world: World, tmp_path) -> None:
    make_media(tmp_path / "long.mp4", 300, seconds=2.0)
    engine = world.engine(seconds=1.0)
    try:
        answer = upload(client_of(engine), (tmp_path / "long.mp4").read_bytes())
    finally:
        engine.close()
    assert answer.status_code == 422
    assert answer.json()["detail"] == "expected at most 1 seconds, got 2; cut the file"


def test_slow_decoding_is_ended(world: World, tmp_path) -> None:
    make_media(tmp_path / "slow.mp4", 300)
    engine = world.engine(decode_seconds=0.001)
    try:
        answer = upload(client_of(engine), (tmp_path / "slow.mp4").read_bytes())
    finally:
        engine.close()
    assert answer.status_code == 422
    assert "takes too long to decode" in answer.json()["detail"]


def test_a_slow_upload_is_ended(engine: Engine) -> None:
    async def slow():
        yield b"x"
        await asyncio.sleep(5)
        yield b"y"

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(make_app(engine, receive_seconds=0.05))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.post("/api/uploads", content=slow())

    assert asyncio.run(ask()).status_code == 408


def test_uploads_beyond_the_limit_wait_for_others(client: TestClient, engine: Engine) -> None:
    with ExitStack() as places:
        for _ in range(uploads.AT_ONCE):
            places.enter_context(engine.uploads.place())
        assert upload(client, b"x").status_code == 503
    assert upload(client, b"x").status_code == 422


def test_the_oldest_uploads_are_forgotten(client: TestClient, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "KEPT_UPLOADS", 1)
    make_sound(tmp_path / "tone.wav", 500, seconds=0.5)
    keys = [upload(client, (tmp_path / "tone.wav").read_bytes()).json()["upload"] for _ in range(2)]
    statuses = [client.get("/api/search", params={"upload": key, "side": "audio"}).status_code for key in keys]
    assert statuses == [404, 200]


def test_without_a_model_clips_are_searched_and_nothing_is_uploaded(world: World) -> None:
    engine = Engine(world.open(), None, "no checkpoint")
    try:
        client = client_of(engine)
        assert client.get("/api/index").json()["uploads"]["problem"] == "no checkpoint"
        assert client.get("/api/search", params={"clip": "drum"}).status_code == 200
        assert upload(client, b"x").status_code == 409
    finally:
        engine.close()


# -- Media


def test_a_media_file_is_served_with_ranges(client: TestClient, world: World) -> None:
    content = (world.folder / "bell.mp4").read_bytes()
    whole = client.get("/api/media", params={"clip": "bell"})
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, content, "video/mp4")
    assert whole.headers["accept-ranges"] == "bytes"
    for header, part in (("bytes=10-19", content[10:20]), ("bytes=-5", content[-5:]), ("bytes=100-", content[100:])):
        answer = client.get("/api/media", params={"clip": "bell"}, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, part)
    beyond = client.get("/api/media", params={"clip": "bell"}, headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416


@pytest.mark.parametrize("path", ["/", "/api", "/static/app.js", "/api/media?clip=bell", "/api/media?clip=horn"])
def test_head_has_the_headers_of_get(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(get.content))
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(("clip", "codec"), [("horn", "h264"), ("wood", "h264")])
def test_other_formats_are_converted_once(client: TestClient, engine: Engine, clip: str, codec: str) -> None:
    answer = client.get("/api/media", params={"clip": clip})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    with av.open(io.BytesIO(answer.content)) as container:
        assert container.streams.video[0].codec_context.name == codec
        assert container.streams.audio[0].codec_context.name == "aac"
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.15)
    number = engine.index.numbers[clip]
    made = engine.files.converted.get(number)
    assert client.get("/api/media", params={"clip": clip}).content == answer.content
    assert engine.files.converted.get(number) == made


def test_a_clip_without_its_file_says_so(client: TestClient) -> None:
    for path in ("media", "poster", "film", "sound"):
        answer = client.get(f"/api/{path}", params={"clip": "gone"})
        assert answer.status_code == 404
        assert "not where the index says" in answer.json()["detail"]


@pytest.mark.parametrize("parameters", [{}, {"clip": "bell", "upload": "key"}])
@pytest.mark.parametrize("path", ["film", "sound", "search", "alignment"])
def test_a_query_is_a_clip_or_an_upload(client: TestClient, path: str, parameters) -> None:
    answer = client.get(f"/api/{path}", params={**parameters, "hit": "bell"})
    assert answer.status_code == 400
    assert "expected clip or upload, one of the two" in answer.json()["detail"]


def test_pictures_of_a_clip(client: TestClient) -> None:
    for path in ("poster", "film"):
        answer = client.get(f"/api/{path}", params={"clip": "horn"})
        assert answer.headers["content-type"] == "image/jpeg"
        with av.open(io.BytesIO(answer.content), format="mjpeg") as container:
            frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == {"poster": (64, 48), "film": (12 * 96, 96)}[path]
    sound = client.get("/api/sound", params={"clip": "horn"}).json()
    assert sound["seconds"] == pytest.approx(1, abs=0.1)
    values = base64.b64decode(sound["matrix"]["values"])
    assert len(values) == sound["matrix"]["rows"] * sound["matrix"]["columns"]
    assert max(values) == 255


# -- All of it


def test_fifty_searches_at_once(engine: Engine) -> None:
    metrics = ["mean", *METRICS]
    asked = [{"clip": "drum", "metric": metrics[number % len(metrics)]} for number in range(50)]

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(make_app(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await asyncio.gather(*(client.get("/api/search", params=one) for one in asked))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    answers = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200] * 50
    for first, again in zip(answers, answers[len(metrics) :], strict=False):
        assert first.json() == again.json()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10


def test_the_openapi_document_has_every_operation(client: TestClient) -> None:
    found = client.get("/api/openapi.json").json()
    assert set(found["paths"]) == {
        f"/api/{name}"
        for name in ("index", "clips", "uploads", "search", "alignment", "media", "poster", "film", "sound")
    }
    for methods in found["paths"].values():
        for operation in methods.values():
            assert operation["description"]
    page = client.get("/api")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text.replace("<!DOCTYPE html>", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("interpolated_euclidean", "Interpolated Euclidean"),
        ("dtw", "DTW"),
        ("soft_dtw", "Soft-DTW"),
        ("sinkhorn_divergence", "Sinkhorn divergence"),
    ],
)
def test_labels_of_metrics(metric: str, label: str) -> None:
    assert label_of(metric) == label


def test_limits_are_in_the_answers(engine: Engine) -> None:
    assert asdict(engine.uploads.limits) == {"megabytes": 200, "seconds": 120.0, "decode_seconds": 30.0}
    assert application.MAX_HITS == 200
