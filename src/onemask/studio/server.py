"""The server: the desk on the network, for those who have the token, from its own page, and for nobody else."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlsplit

from fastapi import FastAPI, Query, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from .. import __version__
from ..errors import InputError, OnemaskError
from ..video.masks import write_mask
from .commands import COMMAND, Command
from .desk import Desk, Event
from .opening import Studio

log = logging.getLogger(__name__)

LARGEST_BODY = 64 * 2**20  # bytes of a mask file, or of a command
LARGEST_COMMAND = 24 * 2**20  # bytes of a message
VIDEOS = "/api/videos"  # where they are uploaded
ENDING = "the studio has been stopped; start it again"
WAITING_EVENTS = 5_000  # a page that is further behind is cut off, and looks anew
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "studio.js": ("studio.js", "text/javascript; charset=utf-8"),
    "studio.css": ("studio.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}


def make_app(studio: Studio, token: str, hosts: tuple[str, ...] | None) -> Guard:
    """The application. token: what a caller must have. hosts: what may stand in "Host", with the port; None: any."""

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
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _add_errors(app)
    _add_page(app)
    _add_api(app, studio)
    _add_opening(app, studio)
    return Guard(app, token, hosts, studio.largest_upload)


class Guard:
    """Lets through who has the token, comes from this server's own page or from no page, and asks for this host."""

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...] | None, largest_upload: int):
        self._app, self._token, self._hosts, self._largest_upload = app, token, hosts, largest_upload
        self._coming: set[asyncio.Future[Message]] = set()  # parts of bodies
        self._ended = False

    def end(self) -> None:
        """Wait for nobody who is still sending something: they are treated as if they had gone."""
        self._ended = True
        for coming in self._coming:
            coming.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        cookie = f"onemask-{host.rpartition(':')[2] or '80'}"  # cookies do not tell ports apart
        problem = self._problem(scope, headers, host, cookie)
        if problem:
            await _refuse(scope, receive, send, *problem)
        elif scope["type"] == "http" and scope["path"] == "/" and "token" in _query(scope):
            redirect = RedirectResponse("/", 303)  # so that the token is neither on the screen nor in the history
            redirect.set_cookie(cookie, self._token, httponly=True, samesite="strict", path="/")
            await redirect(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await self._answer(scope, receive, _with_headers(send))
        else:
            await self._app(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, self._until_the_end(receive), sending)
        except asyncio.CancelledError:  # the server ends, and has waited long enough
            if not started:
                await _refuse(scope, receive, send, 503, ENDING)

    def _until_the_end(self, receive: Receive) -> Receive:
        whole = False  # the body has come

        async def receiving() -> Message:
            nonlocal whole
            if whole:
                return await receive()
            if self._ended:
                return {"type": "http.disconnect"}
            coming = asyncio.ensure_future(receive())
            self._coming.add(coming)
            try:
                message = await coming
            except asyncio.CancelledError:
                if not self._ended:
                    raise
                return {"type": "http.disconnect"}
            finally:
                self._coming.discard(coming)
            whole = message["type"] != "http.request" or not message.get("more_body")
            return message

        return receiving

    def _problem(self, scope: Scope, headers: dict[str, str], host: str, cookie: str) -> tuple[int, str] | None:
        if self._hosts is not None and host not in self._hosts:
            return 421, "this address is not the studio's"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests come from the studio's own page"
        if not self._has_token(scope, headers, cookie):
            return 401, "open the address that onemask studio printed when it started: it ends with the token"
        length = headers.get("content-length", "")
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            if not length.isdecimal():
                return 411, "a request says how long its body is"
            largest = self._largest_upload if scope["path"] == VIDEOS else LARGEST_BODY
            if int(length) > largest:
                return 413, f"what is sent here has at most {largest // 2**20} MiB"
        return None

    def _has_token(self, scope: Scope, headers: dict[str, str], cookie: str) -> bool:
        given = list(_query(scope).get("token", []))
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given += [bearer] if scheme.lower() == "bearer" else []
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(cookie)
        except Exception:  # a cookie that is none
            morsel = None
        given += [morsel.value] if morsel is not None else []
        return any(hmac.compare_digest(value.encode(), self._token.encode()) for value in given)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"))


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + status, "reason": reason})
    else:
        await Response(f"onemask studio: {reason}\n", status, media_type="text/plain")(
            scope, receive, _with_headers(send)
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            have = {name for name, _ in message["headers"]}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in have]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return sending


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(OnemaskError)
    async def refused(request: Request, error: OnemaskError) -> JSONResponse:
        return JSONResponse({"problem": str(error)}, 400)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"problem": ENDING}, 503)  # read only where the server went, not the client

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
        """The video (name, size, frames, fps), the objects, the method, the annotated frames, and the job at work."""
        return studio.desk.state()

    @app.get("/api/frames/{index}.jpg", response_class=Response)
    def picture(index: int) -> Response:
        """A frame in its own size."""
        return Response(studio.desk.frames.picture(index), media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/thumbnails/{index}.jpg", response_class=Response)
    def thumbnail(index: int) -> Response:
        """A small picture of a frame; 204 where it is not made yet."""
        made = studio.desk.frames.thumbnail(index)
        return Response(status_code=204) if made is None else Response(made, media_type="image/jpeg", headers=_KEPT)

    @app.get("/api/coded", response_model=None)
    def coded() -> Response | dict[str, Any]:
        """Configuration of a decoder in the browser; 204 where there is none for this video, but pictures."""
        found = studio.desk.coded()
        return Response(status_code=204) if found is None else found.to_json()

    @app.get("/api/coded/{index}", response_class=Response)
    def group(index: int) -> Response:
        """The packets of a frame's group, each after its frame's number (i32), whether it is a key (u8), size (u32)."""
        found = studio.desk.coded()
        packets = b"" if found is None else found.group(index)
        return Response(packets, media_type="application/octet-stream", headers=_KEPT)

    @app.get("/api/masks/{index}.png", response_class=Response)
    def mask(index: int) -> Response:
        """The label map that is shown in a frame: as PNG, indexed."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mask.png"
            write_mask(path, studio.desk.shown(index))
            return Response(path.read_bytes(), media_type="image/png")

    @app.get("/api/mattes/{index}.png", response_class=Response)
    def matte(index: int, edges: str = "guided") -> Response:
        """Alpha of the visible objects in a frame, together: as PNG, grey. edges: of the state's "edges"."""
        return Response(studio.desk.matte(index, edges), media_type="image/png")

    @app.post("/api/masks/{index}")
    async def import_mask(index: int, request: Request) -> dict[str, str]:
        """Annotate a frame with a mask file, which is the request's body; how it was read."""
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            async for chunk in request.stream():  # not longer than it says, which the guard has checked
                file.write(chunk)
            file.flush()
            try:
                read = await run_in_threadpool(studio.desk.import_mask, index, file.name)
            except InputError as error:  # without the temporary file's name, which says nothing to anybody
                raise InputError(str(error).removeprefix(f"{file.name}: ")) from error
        return {"read": read}

    @app.post("/api/exports/{name}")
    def export(name: str, matte: str = "none") -> dict[str, str]:
        """Write what is shown in a format of the state's "exports", with edges of its "edges"; where the file is."""
        _, shown = studio.desk.export(name, matte)
        return {"file": f"/api/exports/{name}/file", "name": shown}

    @app.get("/api/exports/{name}/file", response_class=FileResponse)
    def exported(name: str) -> FileResponse:
        """The file of the last export of that format."""
        path, shown = studio.desk.exported(name)
        return FileResponse(path, filename=shown)

    @app.post("/api/commands")
    def do(command: Command) -> dict[str, Any]:
        """Do a command; the state after it. What comes as events is on the WebSocket alone."""
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
        """The projects that were opened, the last one first, and how many bytes of a video may be uploaded."""
        return {"projects": studio.projects(), "largest_upload": studio.largest_upload}

    @app.post("/api/projects/{number}")
    def open_project(number: str) -> dict[str, Any]:
        """Open a project of that list in place of this one; the state after it."""
        studio.open(number)
        return studio.desk.state()

    @app.post(VIDEOS)
    async def upload(name: Annotated[str, Query(min_length=1, max_length=200)], request: Request) -> dict[str, Any]:
        """Make a project of a video, which is the request's body, and open it; the state after it. name: its title."""
        with studio.receiving(name) as received:
            async for chunk in request.stream():  # not longer than it says, which the guard has checked
                received.file.write(chunk)
            await run_in_threadpool(studio.take, received)
        return studio.desk.state()


_KEPT = {"cache-control": "private, max-age=3600"}


async def _serve_socket(desk: Desk, websocket: WebSocket) -> None:
    """Pass events on and commands in, until the socket closes. A malformed message closes it."""
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
    except (WebSocketDisconnect, RuntimeError):  # it went away while something was said to it
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
    """Description of what does not fit in a message, for people."""
    found = [f"{'.'.join(map(str, error.get('loc', ())))}: {error.get('msg', '')}" for error in errors[:3]]
    return "; ".join(found) or "the message is no command"
