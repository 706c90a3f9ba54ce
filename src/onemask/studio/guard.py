"""Access control in front of the application: requests need the token and must come from the studio's own page."""

from __future__ import annotations

import asyncio
import hmac
import re
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import RedirectResponse, Response
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 * 2**20  # bytes of a mask file, or of a command
VIDEOS = "/api/videos"  # path for uploads
ENDING = "the studio has been stopped; start it again"
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


class Guard:
    """ASGI middleware that accepts requests with the token, for this host, from this server's page or from no page."""

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...] | None, largest_upload: int):
        self._app, self._token, self._hosts, self._largest_upload = app, token, hosts, largest_upload
        self._coming: set[asyncio.Future[Message]] = set()  # pending parts of request bodies
        self._ended = False

    def end(self) -> None:
        """Stop waiting for clients that are still sending a body, and treat them as disconnected."""
        self._ended = True
        for coming in self._coming:
            coming.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a connection, as ASGI defines."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        port = re.search(r":(\d+)$", host)
        cookie = f"onemask-{port[1] if port else 80}"  # cookies are not separated by port
        problem = self._problem(scope, headers, host, cookie)
        if problem:
            await _refuse(scope, receive, send, *problem)
        elif scope["type"] == "http" and scope["path"] == "/" and "token" in _query(scope):
            redirect = RedirectResponse("/", 303)  # keeps the token off the screen and out of the history
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
        except asyncio.CancelledError:  # the server is shutting down and the grace period is over
            if not started:
                await _refuse(scope, receive, send, 503, ENDING)

    def _until_the_end(self, receive: Receive) -> Receive:
        whole = False  # the body has arrived

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
                return 411, "a request must state the length of its body"
            largest = self._largest_upload if scope["path"] == VIDEOS else LARGEST_BODY
            if int(length) > largest:
                return 413, f"a request here can have at most {largest // 2**20} MiB"
        return None

    def _has_token(self, scope: Scope, headers: dict[str, str], cookie: str) -> bool:
        given = list(_query(scope).get("token", []))
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given += [bearer] if scheme.lower() == "bearer" else []
        kept = cookie_parser(headers.get("cookie", "")).get(cookie)  # beside those of other programs, in any form
        given += [kept] if kept is not None else []
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
