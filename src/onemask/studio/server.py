"""The server: HTTP and WebSocket interface to the desk, only for requests with the token and from its own page."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from .. import __version__
from ..errors import InputError, OnemaskError
from ..video.label_maps import write_mask
from .commands import COMMAND, Command, Edit
from .desk import Desk, Event
from .guard import ENDING, VIDEOS, Guard
from .opening import Studio

log = logging.getLogger(__name__)

LARGEST_COMMAND = 24 * 2**20  # bytes of a message
WAITING_EVENTS = 5_000  # a page that falls further behind is disconnected and reconnects
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "studio.js": ("studio.js", "text/javascript; charset=utf-8"),
    "studio.css": ("studio.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


def make_app(studio: Studio, token: str, hosts: tuple[str, ...] | None) -> Guard:
    """Create the application. token: required from callers. hosts: accepted "Host" headers, with port; None: any."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(studio.close)

    app = FastAPI(
        title="onemask studio",
        version=__version__,
        description="What the page does, any program can: send the token as `Authorization: Bearer TOKEN`. The "
        "WebSocket `/api/socket` takes the same commands, and tells of all events.",
        lifespan=lifespan,
        docs_url=None,  # the docs pages load scripts from other sites
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _add_errors(app)
    _add_page(app)
    _add_api(app, studio)
    _add_opening(app, studio)
    return Guard(app, token, hosts, studio.largest_upload)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(OnemaskError)
    async def refused(request: Request, error: OnemaskError) -> JSONResponse:
        return JSONResponse({"problem": str(error)}, 400)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"problem": ENDING}, 503)  # only received if the server is closing, not the client

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"problem": error.detail}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"problem": _in_a_line(error.errors())}, 422)


def _add_page(app: FastAPI) -> None:
    folder = files("onemask.studio") / "static"
    for path, (name, kind) in PAGE.items():

        def serve(name: str = name, kind: str = kind) -> Response:
            return Response((folder / name).read_bytes(), media_type=kind)

        app.get(f"/{path}", include_in_schema=False)(_without_arguments(serve))


def _without_arguments(serve: Callable[[], Response]) -> Callable[[], Response]:
    return lambda: serve()


def _add_api(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/state")
    def state() -> dict[str, Any]:
        """Return the video (name, size, frames, fps), objects, method, annotated frames, and the current job."""
        return studio.desk.state()

    @app.get("/api/frames/{index}.jpg", response_class=Response)
    def picture(index: int) -> Response:
        """Return a frame at its original size, as JPEG."""
        return Response(studio.desk.frames.picture(index), media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/thumbnails/{index}.jpg", response_class=Response)
    def thumbnail(index: int) -> Response:
        """Return a small picture of a frame, as JPEG; 204 if it is not made yet."""
        made = studio.desk.frames.thumbnail(index)
        return Response(status_code=204) if made is None else Response(made, media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/coded", response_model=None)
    def coded() -> Response | dict[str, Any]:
        """Return the configuration for a decoder in the browser; 204 if this video is only available as pictures."""
        found = studio.desk.coded()
        return Response(status_code=204) if found is None else found.to_json()

    @app.get("/api/coded/{index}", response_class=Response)
    def group(index: int) -> Response:
        """Return the packets of a frame's group, each after frame number (i32), key frame flag (u8) and size (u32)."""
        found = studio.desk.coded()
        packets = b"" if found is None else found.group(index)
        return Response(packets, media_type="application/octet-stream", headers=_KEPT)

    @app.get("/api/masks/{index}.png", response_class=Response)
    def mask(index: int) -> Response:
        """Return the label map that is shown in a frame, as indexed PNG."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.png"
            write_mask(path, studio.desk.shown(index))
            return Response(path.read_bytes(), media_type="image/png")

    @app.get("/api/mattes/{index}.png", response_class=Response)
    def matte(index: int, edges: str = "guided") -> Response:
        """Return the joint alpha of the visible objects in a frame as grey PNG. edges: one of the state's "edges"."""
        return Response(studio.desk.matte(index, edges), media_type="image/png")

    @app.post("/api/masks/{index}")
    async def import_mask(index: int, request: Request) -> dict[str, str]:
        """Annotate a frame with a mask file, the request's body; return how it was interpreted."""
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            async for chunk in request.stream():  # no longer than its Content-Length, which the guard has checked
                file.write(chunk)
            file.flush()
            try:
                read = await run_in_threadpool(studio.desk.import_mask, index, file.name)
            except InputError as error:  # without the name of the temporary file
                raise InputError(str(error).removeprefix(f"{file.name}: ")) from error
        return {"read": read}

    @app.post("/api/exports/{name}")
    def export(name: str, matte: str = "none") -> dict[str, str]:
        """Export the masks that are shown; return the file's URL. name, matte: of the state's "exports" and "edges"."""
        _, shown = studio.desk.export(name, matte)
        return {"file": f"/api/exports/{name}/file", "name": shown}

    @app.get("/api/exports/{name}/file", response_class=FileResponse)
    def exported(name: str) -> FileResponse:
        """Return the file of the last export to this format."""
        path, shown = studio.desk.exported(name)
        return FileResponse(path, filename=shown)

    @app.post("/api/commands")
    def do(command: Command) -> dict[str, Any]:
        """Execute a command; return the state after it. Events are only sent to the WebSocket."""
        desk = studio.desk
        desk.do(command)
        return desk.state()

    @app.websocket("/api/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await _serve_socket(studio.desk, websocket)


def _add_opening(app: FastAPI, studio: Studio) -> None:
    @app.get("/api/projects")
    def projects() -> dict[str, Any]:
        """Return the recent projects, latest first, and the maximum size in bytes of an uploaded video."""
        return {"projects": studio.projects(), "largest_upload": studio.largest_upload}

    @app.post("/api/projects/{number}")
    def open_project(number: str) -> dict[str, Any]:
        """Open a recent project instead of the current one; return the state after it."""
        studio.open(number)
        return studio.desk.state()

    @app.post(VIDEOS)
    async def upload(name: Annotated[str, Query(min_length=1, max_length=200)], request: Request) -> dict[str, Any]:
        """Create and open a project from a video, the request's body; return the state after it. name: its title."""
        with studio.receiving(name) as received:
            async for chunk in request.stream():  # no longer than its Content-Length, which the guard has checked
                received.file.write(chunk)
            await run_in_threadpool(studio.take, received)
        return studio.desk.state()


_KEPT = {"cache-control": "private, max-age=3600"}


async def _serve_socket(desk: Desk, websocket: WebSocket) -> None:
    """Send events and receive commands until the socket closes. A malformed message closes it."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Event | None] = asyncio.Queue()

    def put(event: Event | None) -> None:
        if events.qsize() < WAITING_EVENTS:
            events.put_nowait(event)

    def hear(event: Event) -> None:
        loop.call_soon_threadsafe(put, event)

    subscriber = await run_in_threadpool(desk.subscribe, hear)
    telling = asyncio.create_task(_tell(websocket, events))
    try:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if text is None or len(text) > LARGEST_COMMAND:
                await websocket.close(1003, "a command is a text of JSON")
                return
            try:
                command = COMMAND.validate_json(text)
            except ValidationError as error:
                await websocket.close(1008, _in_a_line(error.errors())[:120])
                return
            try:
                await run_in_threadpool(desk.do, command, subscriber)
            except OnemaskError as error:
                hear({"type": "notice", "text": str(error), "to": command.type})
            if isinstance(command, Edit):  # until then the page shows its own label map
                hear({"type": "edited", "frame": command.frame})
    except (WebSocketDisconnect, RuntimeError):  # it disconnected while a message was sent to it
        return
    finally:
        desk.unsubscribe(subscriber)
        telling.cancel()


async def _tell(websocket: WebSocket, events: asyncio.Queue[Event | None]) -> None:
    send: Callable[[str], Awaitable[None]] = websocket.send_text
    while True:
        event = await events.get()
        try:
            await send(json.dumps(event, separators=(",", ":")))
        except (WebSocketDisconnect, RuntimeError):
            return
        if event is not None and event["type"] == "opened":
            await websocket.close(1012, "another project was opened")
            return
        if events.qsize() >= WAITING_EVENTS - 1:
            await websocket.close(1013, "too far behind")
            return


def _in_a_line(errors: Any) -> str:
    """Describe validation errors of a message in a line, for people."""
    found = [f"{'.'.join(map(str, error.get('loc', ())))}: {error.get('msg', '')}" for error in errors[:3]]
    return "; ".join(found) or "the message is not a command"
