"""`onemask studio`: open a project, listen, and show the page."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import uvicorn

from ..errors import InputError
from ..methods import names
from .guard import Guard
from .opening import Studio
from .project import MethodChoice
from .server import LARGEST_COMMAND, make_app

SHORTEST_TOKEN = 16


def serve(
    video: str | None,
    folder: Path | None,
    method: MethodChoice,
    *,
    host: str,
    port: int,
    token: str | None,
    largest_upload: int,
    say: Callable[[str], None],
    browse: bool,
) -> None:
    """Serve a project until Ctrl-C.

    video: None: the project's, or, if no folder is given either, the bundled sample clip. folder: the project; None: in
    the working directory, named after the video. largest_upload: maximum size in bytes of an uploaded video. say:
    called with messages for the user.
    Raises InputError for invalid arguments, OutputError if another process has the project open.
    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise InputError(
            f"a token must have at least {SHORTEST_TOKEN} characters, got {len(token)}; leave it out for a new one"
        )
    if method.method not in names():
        raise InputError(f"method {method.method!r} is not known; there are: {', '.join(sorted(names()))}")
    if video is None and folder is None:
        from ..video.sample import sample_clip

        video = str(sample_clip().path)
    if folder is None:
        folder = Path(f"{Path(str(video)).resolve().stem}.studio")
    token = token or secrets.token_urlsafe(24)
    listening = _listen(host, port)
    with listening, closing(Studio.start(folder, video, method, largest_upload=largest_upload)) as studio:
        studio.desk.warm_up()
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{port}/?token={token}"
        say(f"project: {folder}")
        say(f"open {address}")
        if not _is_loopback(host):
            say("others can reach this address, and traffic is not encrypted: put a TLS proxy in front of it")
        say("press Ctrl-C to stop; everything is kept")
        hosts = _hosts((shown, "localhost", "127.0.0.1"), port) if _is_loopback(host) else None
        if browse:
            timer = threading.Timer(0.5, webbrowser.open, [address])
            timer.daemon = True
            timer.start()
        Server(make_app(studio, token, hosts)).run(sockets=[listening])


class Server(uvicorn.Server):
    """Server of the application until Ctrl-C, which drops pending uploads at once."""

    def __init__(self, app: Guard):
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            ws_max_size=LARGEST_COMMAND,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self._guard = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down, as called by uvicorn."""
        self._guard.end()
        await super().shutdown(sockets)


def _hosts(names: tuple[str, ...], port: int) -> tuple[str, ...]:
    """Return the "Host" headers of requests to this port; browsers leave out that of HTTP."""
    return tuple(f"{name}:{port}" for name in names) + (names if port == 80 else ())


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # now, because the address is printed before uvicorn takes over
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}, port {port}: {error}; choose another --port or --host") from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
