"""Whether there is a network, asked before a download: what downloads retries for a minute where there is none."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit
from urllib.request import getproxies


def require_host(url: str) -> None:
    """Raise OSError at once where the name of a URL's host is not found.

    Behind a proxy nothing is asked, for it is the proxy that knows the names.
    """
    if not getproxies().keys() - {"no"}:
        socket.getaddrinfo(urlsplit(url).hostname, 443)
