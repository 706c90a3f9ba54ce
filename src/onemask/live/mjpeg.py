"""Pictures for a browser: MJPEG over HTTP, on localhost."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from ..errors import InputError

HOST = "127.0.0.1"
QUALITY = 85
_SLOW_SECONDS = 10.0  # a reader that takes nothing for this long is dropped
_BOUNDARY = "onemask"
_PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>onemask live</title>
<style>body{margin:0;background:#16171a}img{display:block;margin:auto;max-width:100%;max-height:100vh}</style>
<img src="/stream" alt="the newest frame, with its objects">
"""


class MjpegServer(AbstractContextManager["MjpegServer"]):
    """Serves the newest picture: a page at /, MJPEG at /stream, one JPEG at /frame.

    Only this machine can reach it. A slow reader misses pictures and delays nobody; without a reader nothing is
    encoded.

    Args:
        port: the port to listen on; 0: any free port, see `address`.

    Raises:
        InputError: the port is taken or invalid.
    """

    def __init__(self, port: int = 0):
        self._picture: np.ndarray | None = None
        self._jpeg: tuple[int, bytes] = (0, b"")  # number of the picture, and its JPEG
        self._number = 0
        self._changed = threading.Condition()
        self._closed = False
        try:
            self._server = _Server(self, port)
        except (OSError, OverflowError) as error:
            raise InputError(
                f"port {port} of {HOST} cannot be used ({error}); give another one, or 0 for a free one"
            ) from error
        self.address = f"http://{HOST}:{self._server.server_port}/"

    def __enter__(self) -> MjpegServer:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="mjpeg", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, picture: np.ndarray) -> bool:
        """Make this the newest picture, (H, W, 3) uint8 RGB. Returns True: readers cannot close the server."""
        with self._changed:
            self._picture = picture
            self._number += 1
            self._changed.notify_all()
        return True

    def jpeg(self, after: int = 0) -> tuple[int, bytes] | None:
        """Wait for a picture newer than number `after`; returns the number and JPEG of the newest, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._number > after)
            if self._closed or self._picture is None:
                return None
            if self._jpeg[0] != self._number:
                bgr = cv2.cvtColor(self._picture, cv2.COLOR_RGB2BGR)
                data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
                self._jpeg = self._number, data.tobytes()
            return self._jpeg


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pictures: MjpegServer, port: int):
        self.pictures = pictures
        super().__init__((HOST, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing when a reader disconnects."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOW_SECONDS

    def do_GET(self) -> None:
        """Answer a browser."""
        hosts = [f"{name}:{self.server.server_port}" for name in (HOST, "localhost")]
        if self.headers.get("Host") not in hosts:  # a foreign page whose host name points to this machine
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._send(_PAGE, "text/html; charset=utf-8")
        elif self.path == "/frame":
            newest = self.server.pictures.jpeg()
            if newest is not None:
                self._send(newest[1], "image/jpeg")
        elif self.path == "/stream":
            with suppress(OSError):
                self._stream()
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        number = 0
        while (newest := self.server.pictures.jpeg(number)) is not None:
            number, data = newest
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""
