"""HTTP: the page, and the JSON API under /api."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from scav_kernels._version import __version__
from scav_model.data.decode import DecodeError
from scav_model.index.header import SearchIndexError
from scav_model.serve.answers import (
    AlignmentAnswer,
    ClipsAnswer,
    IndexAnswer,
    SearchAnswer,
    Side,
    SpectrogramAnswer,
    UploadAnswer,
    alignment_answer,
    clip_answer,
    hit_answer,
    index_answer,
    spectrogram_answer,
    upload_answer,
)
from scav_model.serve.engine import Asked, Engine
from scav_model.serve.errors import BusyError, NotFoundError
from scav_model.storage.text import printable

# Seconds in which an upload has to arrive.
RECEIVE_SECONDS = 120.0
MAX_HITS = 200
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Errors that say what is wrong with a request, and their status.
STATUS: dict[type[Exception], int] = {
    NotFoundError: 404,
    SearchIndexError: 400,
    DecodeError: 422,
    BusyError: 503,
}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
PICTURE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "A JPEG picture"}}
MEDIA: dict[int | str, dict[str, Any]] = {
    200: {"content": {"video/mp4": {}, "audio/wav": {}}, "description": "The media file"},
    206: {"description": "The bytes that the header Range names"},
}

Clip = Annotated[str | None, Query(description="Id of a clip of the index")]
UploadKey = Annotated[str | None, Query(description="Key of an upload")]
Metric = Annotated[str | None, Query(description="Distance, from /api/index; none takes the index's")]
AskedSide = Annotated[Side, Query(description="Side of the query; the other side is searched")]


def asked(clip: Clip = None, upload: UploadKey = None) -> Asked:
    return Asked(clip, upload)


AskedQuery = Annotated[Asked, Depends(asked)]


def make_app(engine: Engine, receive_seconds: float = RECEIVE_SECONDS) -> FastAPI:
    """Return the application of one index; the caller closes the engine."""
    app = FastAPI(
        title="SCAV search",
        version=__version__,
        description="Search an index of clips: the sounds that fit a video, the videos that fit a sound.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(api(engine, receive_seconds))
    app.include_router(pages())
    for error, status in STATUS.items():
        app.add_exception_handler(error, _handler(status))
    return app


def _handler(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": printable(str(error))}, status)

    return answer


def pages() -> APIRouter:
    """Return the routes of the page and its files, which are read once: no request names a path."""
    router = APIRouter(include_in_schema=False)
    folders = (resources.files("scav_model.serve") / "static", resources.files("scav_model.index") / "static")
    files = {
        entry.name: (entry.read_bytes(), TYPES[Path(entry.name).suffix])
        for folder in folders
        for entry in folder.iterdir()
        if Path(entry.name).suffix in TYPES
    }

    def file(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "no such file")
        content, kind = files[name]
        return Response(content, media_type=kind)

    @router.head("/")
    @router.get("/")
    def page() -> Response:
        return file("index.html")

    @router.head("/api")
    @router.get("/api")
    def documentation() -> Response:
        return file("api.html")

    @router.head("/static/{name}")
    @router.get("/static/{name}")
    def static(name: str) -> Response:
        return file(name)

    return router


def api(engine: Engine, receive_seconds: float) -> APIRouter:
    router = APIRouter(prefix="/api")
    rates = {side: engine.index.header.features[side]["rate_hz"] for side in ("video", "audio")}

    @router.get("/index")
    def index() -> IndexAnswer:
        """Return the contents of the index, the metrics to search by, and the limits of uploads."""
        return index_answer(engine)

    @router.get("/clips")
    def clips(
        contains: Annotated[str, Query(description="Text in the id or label", max_length=200)] = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_HITS)] = 50,
    ) -> ClipsAnswer:
        """Clips of the index, in its order."""
        wanted = contains.casefold()

        def fits(item: tuple[str, int]) -> bool:
            label = engine.index.media(item[1]).get("label") if wanted else None
            return wanted in item[0].casefold() or wanted in str(label or "").casefold()

        found = [number for _, number in filter(fits, engine.index.numbers.items())]
        listed = itertools.islice(found, offset, offset + limit)
        return ClipsAnswer(len(found), [clip_answer(engine, number) for number in listed])

    @router.post("/uploads", openapi_extra=BODY, status_code=201)
    async def upload(
        request: Request,
        name: Annotated[str, Query(description="What to call the query", max_length=200)] = "recording",
    ) -> UploadAnswer:
        """Upload a media file, the body of the request, as a query. It is decoded, encoded and deleted."""
        uploads = engine.uploads
        if uploads.encoding is None:
            raise HTTPException(409, uploads.problem)
        check_is_no_form(request)
        with uploads.place(), tempfile.NamedTemporaryFile(prefix="scav-upload-") as file:
            await receive(request, file, uploads.limits.megabytes, receive_seconds)
            return upload_answer(await uploads.read(Path(file.name), printable(name)))

    @router.get("/search")
    async def search(
        query: AskedQuery,
        side: AskedSide = "video",
        metric: Metric = None,
        k: Annotated[int, Query(ge=1, le=MAX_HITS, description="Clips to return")] = 10,
    ) -> SearchAnswer:
        """The nearest clips of a query, a clip of the index or an upload."""
        metric = metric or engine.metric
        answer = await engine.in_turn(engine.search, query, side, metric, k)
        hits = [hit_answer(engine, query, hit) for hit in answer.hits[0]]
        searched: Side = "audio" if side == "video" else "video"
        return SearchAnswer(side, searched, metric, [printable(note) for note in answer.notes], hits)

    @router.get("/alignment")
    async def alignment(
        query: AskedQuery,
        hit: Annotated[str, Query(description="Id of the clip to align the query with")],
        side: AskedSide = "video",
        metric: Metric = None,
    ) -> AlignmentAnswer:
        """The costs of a query's and a clip's moments, which match, and what each second contributes."""
        compared = await engine.in_turn(engine.compare, query, side, metric or engine.metric, hit)
        return alignment_answer(compared, rates)

    @router.head("/media", include_in_schema=False)
    @router.get("/media", responses=MEDIA, response_class=Response)
    async def media(clip: Annotated[str, Query(description="Id of a clip")]) -> Response:
        """The media file of a clip, with ranges. A format that browsers do not play is converted to mp4."""
        path, kind = await engine.files.playable(engine.number(clip))
        return FileResponse(path, media_type=kind)

    @router.get("/poster", responses=PICTURE, response_class=Response)
    async def poster(clip: Annotated[str, Query(description="Id of a clip")]) -> Response:
        """A picture from the middle of a clip."""
        return jpeg(await engine.files.poster(engine.number(clip)))

    @router.get("/film", responses=PICTURE, response_class=Response)
    async def film(query: AskedQuery, tiles: Annotated[int, Query(ge=1, le=40)] = 12) -> Response:
        """Pictures evenly through a clip or an upload, side by side."""
        return jpeg(await engine.film(query, tiles))

    @router.get("/sound")
    async def sound(query: AskedQuery) -> SpectrogramAnswer:
        """The log-mel spectrogram of the sound of a clip or an upload."""
        return spectrogram_answer(await engine.sound(query))

    return router


def jpeg(picture: bytes) -> Response:
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})


def check_is_no_form(request: Request) -> None:
    """
    Raises:
        HTTPException: the body of the request is a form, in which a file is but a part.
    """
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(
            415,
            "expected the file itself as the body of the request, got a form (multipart/form-data); "
            "with curl, take --data-binary @FILE in place of -F",
        )


async def receive(request: Request, file: Any, megabytes: int, seconds: float) -> None:
    """Write the body of a request to a file.

    Raises:
        HTTPException: it is empty, too large or too slow.
    """
    too_large = HTTPException(413, f"expected a file of at most {megabytes} MiB, got a larger one; cut it")
    limit = megabytes << 20
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limit:
        raise too_large
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise too_large
                file.write(chunk)
    except TimeoutError:
        raise HTTPException(408, f"the file did not arrive within {seconds:g} s; upload a smaller one") from None
    if not size:
        raise HTTPException(422, "expected a media file as the body of the request, got nothing")
    file.flush()
