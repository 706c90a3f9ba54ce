"""A check for network access before a download: downloaders retry for a minute if there is none."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def require_host(url: str) -> None:
    """Raise OSError immediately if the host name of a URL cannot be resolved.

    Behind a proxy there is no check, because the proxy resolves names.
    """
    if not getproxies().keys() - {"no"}:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
